"""Word vectors in text files, as word2vec and GloVe have them: a word and its numbers in each line."""

from __future__ import annotations

import gzip
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tubelet.models.model import Encoder
from tubelet.specs import TextSpec
from tubelet.weights.files import WeightsError

TABLE = "modalities.text.words.table"
"""The parameter of an encoder that has them."""


@dataclass(frozen=True)
class FoundWords:
    """How many of a vocabulary's words a file has; ``missing`` are the others, which keep what they had."""

    source: str
    found: int
    missing: tuple[str, ...]

    def __str__(self) -> str:
        total = self.found + len(self.missing)
        some = ", ".join(self.missing[:5])
        rest = f"; not {some}{' ...' if len(self.missing) > 5 else ''}" if self.missing else ""
        return f"{self.source} has {self.found:,} of the vocabulary's {total:,} words{rest}"


def is_word_vectors(source: str) -> bool:
    """Whether it is named like a text file of word vectors: .txt or .vec, compressed or not."""
    return source.removesuffix(".gz").endswith((".txt", ".vec"))


@torch.no_grad()
def load_word_vectors(encoder: Encoder, path: str | Path) -> FoundWords:
    """Fill the encoder's word vectors from a text file, which may be compressed (``.gz``).

    A first line of two numbers, the words and the width, is allowed. Words that the file lacks keep their random
    start, as padding does. Raises WeightsError for an encoder without captions or without a vocabulary, for a file that
    cannot be read, for vectors of another width and where the file has none of the words.
    """
    spec = encoder.inputs.get("text")
    if not isinstance(spec, TextSpec) or not spec.id_of:
        raise WeightsError("word vectors need a model of captions whose TextSpec has a vocabulary")
    table = encoder.get_parameter(TABLE)
    vectors = read_word_vectors(path, spec.id_of, table.shape[1])
    if not vectors:
        raise WeightsError(f"{path}: none of the vocabulary's {len(spec.id_of):,} words is there")
    for word, vector in vectors.items():
        table[spec.id_of[word]] = vector.to(table)
    missing = tuple(word for word in spec.id_of if word not in vectors)
    return FoundWords(str(path), len(vectors), missing)


def read_word_vectors(path: str | Path, wanted: Collection[str], width: int) -> dict[str, Tensor]:
    """The vectors (D,) of those words of a file that are ``wanted``; of a word that is there twice, the first."""
    found: dict[str, Tensor] = {}
    for number, line in enumerate(_lines(Path(path)), start=1):
        if number == 1 and len(line.split()) == 2 and width > 1:
            continue
        word, *numbers = line.rstrip().rsplit(" ", width)  # a word may have spaces in it, as some of GloVe's do
        if len(numbers) != width or (line.partition(" ")[0] in wanted and " " in word and _numeric(word.split()[1:])):
            count = len(line.split()) - 1
            raise WeightsError(f"{path}, line {number}: {count} numbers, but the model's vectors have {width}")
        if word in wanted and word not in found:
            if not _numeric(numbers):
                raise WeightsError(f"{path}, line {number}: what follows {word!r} is not all numbers")
            found[word] = torch.tensor([float(x) for x in numbers])
    return found


def _numeric(texts: Sequence[str]) -> bool:
    try:
        return all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False


def _lines(path: Path) -> Iterator[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", errors="replace") as file:
            yield from file
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from None
