"""Holding out a part of a data set, and the groups of examples (speakers, scenes, sources) that it must not split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from tubelet.data.records import Codes, Record, Records

pc: Any = pyarrow.compute  # its functions are made when it is imported, which type checkers cannot see

_FEWEST_FILES = 4  # of a class, that it gives one of them
_FEWEST_GROUPS = 4  # a training, a validation and a test set want groups of their own
_LARGEST_GROUP = 0.4  # of all files
_LARGEST_EXCESS = 1.4  # held-out examples may be so many times those that were asked for
_KEPT = 0.5  # of a class's examples stay in training at least


def hold_out(
    records: Sequence[Record], share: float, most: int = 2_000, *, by_class: bool = True
) -> tuple[Records, Records, str]:
    """The records without those held out; these, about ``share`` of every class and at most ``most``; how, in words.

    ``by_class``: whether labels name classes; else (they are numbers) the share is that of all records.

    Groups stay whole where that takes no more than 1.4 times the share and leaves every class half of its examples;
    else files are held out. Parts of one file always stay together. A class of fewer than four files gives none.
    The choice is a function of the records' keys and labels alone.
    """
    records = Records.of(records)
    classes = records.classes() if by_class else Codes.of(pa.array([""] * len(records)))
    share = min(share, most / max(1, len(records)))
    grouped = set(records.codes("group").used) - {""}
    if grouped:
        groups = _groups(records)
        chosen = _whole_groups(groups, classes, share)
        if chosen:
            names = records.codes("group")
            held = np.isin(groups.codes, chosen) & (np.array(names.names)[names.codes] != "")
            return records.where(~held), records.where(held), f"{len(chosen)} of {len(grouped)} groups"
    held = _files(records, classes, share)
    how = "files of the same groups as in training" if grouped else "files"
    return records.where(~held), records.where(held), how


def _groups(records: Records) -> Codes:
    """The group of each record; a file without one is a group of its own."""
    names = records.column("group").cast(pa.string())
    names = pc.if_else(pc.equal(pc.fill_null(names, ""), ""), records.paths(), names)
    return Codes.of(names)


def _whole_groups(groups: Codes, classes: Codes, share: float) -> list[int]:
    """The codes of the groups to hold out; none where there is no good choice."""
    order = np.argsort(groups.codes, kind="stable")
    ends = np.cumsum(np.bincount(groups.codes, minlength=len(groups.names)))
    left = np.bincount(classes.codes, minlength=len(classes.names))
    least = _KEPT * left
    wanted, held, chosen = share * len(groups.codes), 0, list[int]()
    for group in np.argsort(_hashes(groups.names), kind="stable").tolist():
        members = order[ends[group - 1] if group else 0 : ends[group]]
        if held + len(members) <= _LARGEST_EXCESS * wanted:
            loses, counts = np.unique(classes.codes[members], return_counts=True)
            if (left[loses] - counts >= least[loses]).all():
                chosen.append(group)
                held += len(members)
                left[loses] -= counts
        if held >= wanted:
            break
    return chosen if held >= wanted / 2 else []


def _files(records: Records, of_class: Codes, share: float) -> NDArray[np.bool_]:
    """The records (N,) of the files to hold out: in each class those whose key has the smallest hashes."""
    classes, files = of_class.codes, Codes.of(records.column("path"))
    pairs = classes * len(files.names) + files.codes
    _, last = np.unique(pairs[::-1], return_index=True)  # a file's last part in the class decides
    one = len(pairs) - 1 - last
    if not share:
        return np.zeros(len(records), np.bool_)
    hashes = _hashes(records.at(one).keys().to_pylist())
    order = np.lexsort((hashes, classes[one]))
    sizes = np.bincount(classes[one])
    counts = np.where(sizes >= _FEWEST_FILES, np.maximum(1, np.rint(share * sizes)), 0)
    sorted_classes = classes[one][order]
    place = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[sorted_classes]
    chosen = np.zeros(len(files.names), np.bool_)
    chosen[files.codes[one[order[place < counts[sorted_classes]]]]] = True
    return chosen[files.codes]


def _hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    digests = b"".join(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def with_name_groups(records: Sequence[Record]) -> tuple[Records, str]:
    """The records with the groups that their files' names show, and a sentence on them; "" where names show none.

    A word that recurs across the classes at one place of the names (``7_george_12``: george), or else what names share
    before their running number (``film3_0012``: film3). Records that have groups keep them.
    """
    records = Records.of(records)
    if set(records.codes("group").used) != {""} or len(records) < 2 * _FEWEST_GROUPS:
        return records, ""
    codes = records.classes()
    classes = [codes.names[code] for code in codes.codes.tolist()]
    words = _words(records.keys().to_pylist(), classes)
    groups = _recurring_word(classes, words) or _shared_beginning(classes, words)
    if not groups:
        return records, ""
    names = sorted(set(groups))
    shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
    said = (
        f"The files' names show {len(names)} groups ({shown}): each is kept on one side of a split. For other groups "
        "or none, write a manifest with `tubelet data index` and change its columns group and split."
    )
    return records.replaced(group=groups), said


def _words(keys: Sequence[str], classes: Sequence[str]) -> list[list[str]]:
    """The words of each name, without the running number at its end and without those that the class decides."""
    found: list[list[str]] = []
    for key in keys:
        words = [word for word in re.split(r"[\W_]+", PurePath(key).stem) if word]
        last = re.sub(r"\d+$", "", words.pop()) if words else ""
        found.append([*words, last] if last else words)
    shortest = min(map(len, found))
    decided = {i for i in range(shortest) if _is_function(classes, (words[i].lower() for words in found))}
    return [
        [word for i, word in enumerate(words) if i not in decided and word.lower() != label.lower()]
        for words, label in zip(found, classes, strict=True)
    ]


def _is_function(labels: Iterable[str], values: Iterable[str]) -> bool:
    seen: dict[str, str] = {}
    return all(seen.setdefault(label, value) == value for label, value in zip(labels, values, strict=True))


def _recurring_word(classes: Sequence[str], words: Sequence[Sequence[str]]) -> list[str]:
    count = len(set(classes))
    for place in range(min(map(len, words))):
        column = [name[place] for name in words]
        if any(word.isdecimal() for word in column):
            continue
        labels: defaultdict[str, set[str]] = defaultdict(set)
        for word, label in zip(column, classes, strict=True):
            labels[word].add(label)
        recurs = all(2 * len(found) >= count for found in labels.values())
        if count > 1 and recurs and len(column) >= 5 * len(labels) and _sound(Counter(column), classes, column):
            return column
    return []


def _shared_beginning(classes: Sequence[str], words: Sequence[Sequence[str]]) -> list[str]:
    for length in range(max(map(len, words)), 0, -1):
        column = ["_".join(name[:length]) for name in words]
        sizes = Counter(column)
        if len(column) >= 2 * len(sizes) and _sound(sizes, classes, column):
            return column
    return []


def _sound(sizes: Mapping[str, int], classes: Sequence[str], groups: Sequence[str]) -> bool:
    """Whether there are enough groups, none of them too large, and two or more in every class."""
    if len(sizes) < _FEWEST_GROUPS or max(sizes.values()) > _LARGEST_GROUP * len(groups) or "" in sizes:
        return False
    by_class: defaultdict[str, set[str]] = defaultdict(set)
    for label, group in zip(classes, groups, strict=True):
        by_class[label].add(group)
    return min(map(len, by_class.values())) >= 2
