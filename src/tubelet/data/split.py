"""Holding out a part of a data set, and the groups of examples (speakers, scenes, sources) that it must not split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import PurePath

from tubelet.data.manifest import Record

_FEWEST_GROUPS = 4  # a training, a validation and a test set want groups of their own
_LARGEST_GROUP = 0.4  # of all files
_LARGEST_EXCESS = 1.4  # held-out examples may be so many times those that were asked for
_KEPT = 0.5  # of a class's examples stay in training at least


def hold_out(records: Sequence[Record], share: float, most: int = 2_000) -> tuple[list[Record], list[Record], str]:
    """The records without those held out; these, about ``share`` of every class and at most ``most``; how, in words.

    Groups stay whole where that takes no more than 1.4 times the share and leaves every class half of its examples;
    else files are held out. Parts of one file always stay together. A class of fewer than four files gives none.
    The choice is a function of the records' keys and labels alone.
    """
    share = min(share, most / max(1, len(records)))
    grouped = {record.group for record in records if record.group}
    if grouped:
        held = _whole_groups(records, share)
        if held:
            rest, held_out = _parted(records, [record.group in held for record in records])
            return rest, held_out, f"{len(held)} of {len(grouped)} groups"
    held = _files(records, share)
    rest, held_out = _parted(records, [record.path in held for record in records])
    return rest, held_out, "files of the same groups as in training" if grouped else "files"


def _parted(records: Sequence[Record], held: Sequence[bool]) -> tuple[list[Record], list[Record]]:
    pairs = list(zip(records, held, strict=True))
    return [record for record, out in pairs if not out], [record for record, out in pairs if out]


def _whole_groups(records: Sequence[Record], share: float) -> set[str]:
    """Groups to hold out; none where there is no good choice."""
    members: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        members[record.group or record.path].append(record)
    left = Counter(_label(record) for record in records)
    least = {label: _KEPT * count for label, count in left.items()}
    wanted, held, chosen = share * len(records), 0, set[str]()
    for group in sorted(members, key=_hash):
        loses = Counter(map(_label, members[group]))
        small = held + len(members[group]) <= _LARGEST_EXCESS * wanted
        if small and all(left[label] - count >= least[label] for label, count in loses.items()):
            chosen.add(group)
            held += len(members[group])
            left -= loses
        if held >= wanted:
            break
    return chosen if held >= wanted / 2 else set()


def _files(records: Sequence[Record], share: float) -> set[str]:
    by_class: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        by_class[_label(record)][record.path] = _hash(record.key or record.path)
    held: set[str] = set()
    for files in by_class.values():
        count = max(1, round(share * len(files))) if len(files) >= 4 and share > 0 else 0
        held.update(sorted(files, key=files.__getitem__)[:count])
    return held


def _label(record: Record) -> str:
    """The class of the first label set."""
    return ";".join(next(iter(record.labels.values()), ()))


def _hash(text: str) -> str:
    return blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def with_name_groups(records: Sequence[Record]) -> tuple[list[Record], str]:
    """The records with the groups that their files' names show, and a sentence on them; "" where names show none.

    A word that recurs across the classes at one place of the names (``7_george_12``: george), or else what names share
    before their running number (``film3_0012``: film3). Records that have groups keep them.
    """
    if any(record.group for record in records) or len(records) < 2 * _FEWEST_GROUPS:
        return list(records), ""
    words = _words(records)
    groups = _recurring_word(records, words) or _shared_beginning(records, words)
    if not groups:
        return list(records), ""
    names = sorted(set(groups))
    shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
    said = (
        f"The files' names show {len(names)} groups ({shown}): each is kept on one side of a split. For other groups "
        "or none, write a manifest with `tubelet data index` and change its columns group and split."
    )
    return [replace(record, group=group) for record, group in zip(records, groups, strict=True)], said


def _words(records: Sequence[Record]) -> list[list[str]]:
    """The words of each name, without the running number at its end and without those that the class decides."""
    found: list[list[str]] = []
    for record in records:
        words = [word for word in re.split(r"[\W_]+", PurePath(record.key or record.path).stem) if word]
        last = re.sub(r"\d+$", "", words.pop()) if words else ""
        found.append([*words, last] if last else words)
    shortest = min(map(len, found))
    decided = {i for i in range(shortest) if _is_function(map(_label, records), (words[i].lower() for words in found))}
    labels = [_label(record).lower() for record in records]
    return [
        [word for i, word in enumerate(words) if i not in decided and word.lower() != label]
        for words, label in zip(found, labels, strict=True)
    ]


def _is_function(labels: Iterable[str], values: Iterable[str]) -> bool:
    seen: dict[str, str] = {}
    return all(seen.setdefault(label, value) == value for label, value in zip(labels, values, strict=True))


def _recurring_word(records: Sequence[Record], words: Sequence[Sequence[str]]) -> list[str]:
    classes = len({_label(record) for record in records})
    for place in range(min(map(len, words))):
        column = [name[place] for name in words]
        if any(word.isdecimal() for word in column):
            continue
        labels: defaultdict[str, set[str]] = defaultdict(set)
        for word, record in zip(column, records, strict=True):
            labels[word].add(_label(record))
        recurs = all(2 * len(found) >= classes for found in labels.values())
        if classes > 1 and recurs and len(column) >= 5 * len(labels) and _sound(Counter(column), records, column):
            return column
    return []


def _shared_beginning(records: Sequence[Record], words: Sequence[Sequence[str]]) -> list[str]:
    for length in range(max(map(len, words)), 0, -1):
        column = ["_".join(name[:length]) for name in words]
        sizes = Counter(column)
        if len(column) >= 2 * len(sizes) and _sound(sizes, records, column):
            return column
    return []


def _sound(sizes: Mapping[str, int], records: Sequence[Record], groups: Sequence[str]) -> bool:
    """Whether there are enough groups, none of them too large, and two or more in every class."""
    if len(sizes) < _FEWEST_GROUPS or max(sizes.values()) > _LARGEST_GROUP * len(groups) or "" in sizes:
        return False
    by_class: defaultdict[str, set[str]] = defaultdict(set)
    for record, group in zip(records, groups, strict=True):
        by_class[_label(record)].add(group)
    return min(map(len, by_class.values())) >= 2
