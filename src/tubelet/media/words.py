"""Captions to ids of words, and the vocabularies that say which."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from tubelet.specs import PAD, UNKNOWN


class _Marks(dict[int, str | None]):
    """What ``str.translate`` makes of each letter: None, which deletes it, of punctuation and symbols."""

    def __missing__(self, letter: int) -> str | None:
        text = chr(letter)
        self[letter] = None if unicodedata.category(text)[0] in "PS" else text
        return self[letter]


_MARKS = _Marks()


def words_of(text: str) -> list[str]:
    """The words of a caption: punctuation and symbols deleted, lower-cased, split at white space.

    "Don't add 1/2 cup..." is dont, add, 12 and cup. For English text as the released code does (DMVR's WordTokenizer).
    That knows ASCII alone: it keeps a curly apostrophe or an "É" as it is. Here they are deleted and lower-cased, too,
    and accents that are written apart from their letters are joined to them.
    """
    return unicodedata.normalize("NFC", text).translate(_MARKS).lower().split()


def word_ids(text: str, ids: Mapping[str, int], length: int) -> Int64[Tensor, " L"]:
    """The ids of the first ``length`` words of a caption, filled up with 0; unknown words have that of ``<unk>``."""
    unknown = ids[UNKNOWN]
    found = [ids.get(word, unknown) for word in words_of(text)[:length]]
    return torch.tensor(found + [0] * (length - len(found)), dtype=torch.int64)


def build_vocabulary(texts: Iterable[str], size: int) -> str:
    """The most frequent words of ``texts``, as :class:`~tubelet.specs.TextSpec` takes them: "<pad> <unk> the of ...".

    ``size``: how many, the two special ones included; fewer where the texts have fewer. Words that are equally frequent
    come in the order of the alphabet. Raises ValueError for a size that holds no word, and for texts that have none.
    """
    if size < 3:
        raise ValueError(f"{size=} must be at least 3: {PAD}, {UNKNOWN} and one word")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_of(text))
    if not counts:
        raise ValueError("the texts have no words to make a vocabulary of")
    best = sorted(counts, key=lambda word: (-counts[word], word))
    return " ".join([PAD, UNKNOWN, *islice(best, size - 2)])


def load_vocabulary(path: str | Path) -> str:
    """A vocabulary from a text file with a word per line, as :class:`~tubelet.specs.TextSpec` takes it.

    The order of the lines is that of the ids. ``<pad>`` and ``<unk>`` are put in front of a file that has neither; one
    that has them is kept as it is, other special words among them, and must begin with ``<pad>``. Empty lines at the
    end are left out. Raises ValueError that names the file and the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    words = [line.strip() for line in lines]
    lines_of: dict[str, int] = {}
    for line, word in enumerate(words, 1):
        if len(word.split()) != 1:
            raise ValueError(f"{path}, line {line}: {word!r} must be one word; write a word per line, and nothing else")
        if word in lines_of:
            raise ValueError(f"{path}, line {line}: {word!r} already stands in line {lines_of[word]}; remove one")
        lines_of[word] = line
    special = [word for word in (PAD, UNKNOWN) if word in lines_of]
    if not special:
        return " ".join([PAD, UNKNOWN, *words])
    if len(special) == 1 or words[0] != PAD:
        raise ValueError(f"{path}: a file with {special[0]} must begin with {PAD}, whose id is 0, and have {UNKNOWN}")
    return " ".join(words)
