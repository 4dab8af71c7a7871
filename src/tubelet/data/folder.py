"""A folder of class folders as a manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from tubelet.data.kinds import kind_of_file
from tubelet.data.manifest import LABEL, Manifest, ManifestError, Record
from tubelet.data.split import hold_out, with_name_groups

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_TEST_SHARE = 0.2
_SAMPLE = 1 << 16  # bytes at each end of a file that its fingerprint covers


def read_folder(folder: Path) -> Manifest:
    """The media files in a folder's class folders, at any depth; a file's class is the outermost folder it lies in.

    Subfolders named train, val (or valid, validation) and test hold class folders of their own and are the splits.
    Without them a fifth of each class, at least one file where it has two, becomes "val": the files whose fingerprint
    (a hash of the size and both ends of the content) is smallest. So the split doesn't depend on names or order, copies
    of a file stay on one side, and adding a file moves at most one other file of its class. Where the files' names show
    groups (:func:`~tubelet.data.split.with_name_groups`), whole groups are held out instead.
    """
    outer = _folders(folder)
    splits = {name: _SPLITS[name.name.lower()] for name in outer if name.name.lower() in _SPLITS}
    if splits:
        records = [record for name, split in splits.items() for record in _class_folders(folder, name, split)]
        records, grouped = with_name_groups(records)
        stray = [name.name for name in outer if name not in splits]
        notes = [f"{folder}: left out, beside {_listed(s.name for s in splits)}: {_listed(stray)}"] if stray else []
        notes += [grouped] if grouped else []
    else:
        records, notes = _split(folder, _class_folders(folder, folder, ""))
    if not records:
        raise ManifestError(str(folder), None, "no media files in class folders; lay them out as FOLDER/CLASS/FILE.mp4")
    return Manifest(str(folder), tuple(records), tuple(notes))


def _class_folders(root: Path, folder: Path, split: str) -> list[Record]:
    return [
        Record(str(path), {LABEL: (label.name,)}, split=split, key=path.relative_to(root).as_posix())
        for label in _folders(folder)
        for path in sorted(label.rglob("*"))
        if kind_of_file(path) and not path.name.startswith(".") and path.is_file()
    ]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _split(folder: Path, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    records, grouped = with_name_groups(records)
    if grouped:
        _, test, how = hold_out(records, _TEST_SHARE)
        held = {record.path for record in test}
        done = [replace(record, split="val" if record.path in held else "train") for record in records]
        said = f"{folder} has no train and val folders: {how}, {len(test)} of {len(records)} files, are the test set."
        return done, [said, grouped]
    prints = {record.path: _fingerprint(Path(record.path)) for record in records}
    by_class: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_class[record.labels[LABEL][0]].append(record)
    test = {print_ for members in by_class.values() for print_ in _smallest(prints[record.path] for record in members)}
    done = [replace(record, split="val" if prints[record.path] in test else "train") for record in records]
    held_out = sum(record.split == "val" for record in done)
    notes = [
        f"{folder} has no train and val folders: {held_out} of its {len(done)} files, about a fifth of each class, "
        f"are the test set 'val', chosen by a hash of their content."
    ]
    copies = [print_ for print_, count in Counter(prints.values()).items() if count > 1]
    if copies:
        same = [record.key for record in records if prints[record.path] == copies[0]]
        notes.append(f"{folder}: {len(copies)} files are there more than once, the first as {_listed(same)}.")
    return done, notes


def _smallest(prints: Iterable[bytes]) -> list[bytes]:
    different = sorted(set(prints))
    share = max(1, round(len(different) * _TEST_SHARE)) if len(different) > 1 else 0
    return different[:share]


def _fingerprint(path: Path) -> bytes:
    """Equal for equal files, whatever they are called; a file that cannot be opened counts as empty."""
    digest = blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            digest.update(size.to_bytes(8, "big"))
            digest.update(file.read(_SAMPLE))
            file.seek(max(file.tell(), size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    except OSError:
        pass
    return digest.digest()


def _listed(names: Iterable[str]) -> str:
    first, *rest = names
    return ", ".join([first, *rest[:2], *(["..."] if len(rest) > 2 else [])])
