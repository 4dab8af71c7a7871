"""A folder of class folders as a manifest."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from tubelet.data.fingerprints import fingerprints
from tubelet.data.kinds import kind_of_file
from tubelet.data.manifest import LABEL, Manifest, ManifestError, Records
from tubelet.data.split import hold_out, with_name_groups
from tubelet.media.subtitles import SUFFIXES as SUBTITLES

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_TEST_SHARE = 0.2
_NOWHERE = "a link that leads nowhere"


@dataclass(frozen=True)
class _File:
    """A file in a class folder. ``key``: its path from the root. A link that leads nowhere has ``size`` -1."""

    key: str
    label: str
    split: str
    size: int
    changed: int


@dataclass(frozen=True)
class _Listing:
    """All files of a folder; two listings are equal where their ``digest`` is."""

    digest: bytes
    files: list[_File] = field(compare=False)
    notes: list[str] = field(compare=False)


def read_folder(folder: Path) -> Manifest:
    """The media files in a folder's class folders, at any depth; a file's class is the outermost folder it lies in.

    Subfolders named train, val (or valid, validation) and test hold class folders of their own and are the splits; one
    that holds files and no folders, beside other class folders, is a class of that name. Links to folders are followed;
    hidden files and folders are left out. Files of no known suffix are left out and counted in the notes, but for
    subtitles, which belong to the media file beside them.

    Without splits a fifth of each class, at least one file where it has two, becomes "val": the files whose fingerprint
    (:func:`~tubelet.data.fingerprints.fingerprints`) is smallest. So the split doesn't depend on names or order, copies
    of a file stay on one side, and adding a file moves at most one other file of its class. A file that stands in
    several classes trains. Where the files' names show groups (:func:`~tubelet.data.split.with_name_groups`), whole
    groups are held out instead. Raises :class:`ManifestError`.
    """
    return _manifest(folder, os.getcwd(), _listing(folder))


def read_files(folder: Path) -> Manifest:
    """The media files of a folder at any depth, whatever the folders are called: without labels and splits.

    Raises :class:`ManifestError` where there are none.
    """
    files = list(_walk(folder, folder, ""))
    media = [file for file in files if kind_of_file(file.key)]
    if not media:
        raise ManifestError(str(folder), None, f"no media files; it has {len(files)} files of other kinds")
    columns = {"error": [_NOWHERE if file.size < 0 else "" for file in media]}
    records = Records.of_columns([file.key for file in media], {}, str(folder), **columns)
    return Manifest(str(folder), records.readable, tuple(_left_out(folder, files, media)))


@lru_cache(maxsize=4)
def _manifest(folder: Path, directory: str, listing: _Listing) -> Manifest:
    """``directory``: what a relative folder is relative to."""
    media = [file for file in listing.files if kind_of_file(file.key)]
    notes = [*listing.notes, *_left_out(folder, listing.files, media)]
    if not media:
        reason = "no media files in class folders; lay them out as FOLDER/CLASS/FILE.mp4"
        raise ManifestError(str(folder), None, ". ".join([reason, *notes]))
    records = _records(folder, media)
    if records.codes("split").used != ("",):
        records, grouped = with_name_groups(records)
        said = [grouped] if grouped else []
    else:
        records, said = _split(folder, records, media)
    return Manifest(str(folder), records, (*said, *notes))


def _records(folder: Path, files: Sequence[_File]) -> Records:
    columns = {
        "split": [file.split for file in files],
        "error": [_NOWHERE if file.size < 0 else "" for file in files],
    }
    return Records.of_columns(
        [file.key for file in files], {LABEL: [file.label for file in files]}, str(folder), **columns
    )


def _listing(folder: Path) -> _Listing:
    outer = _folders(folder)
    splits = {name: _SPLITS[name.name.lower()] for name in outer if name.name.lower() in _SPLITS}
    stray = [name.name for name in outer if name not in splits]
    if stray and any(not _folders(name) for name in splits):  # classes such as bus, car and train
        splits, stray = {}, []
    labels = [(label, split) for place, split in (splits or {folder: ""}).items() for label in _folders(place)]
    found = [file for label, split in labels for file in _walk(folder, label, split)]
    notes = (
        [f"{folder}: left out, beside {_listed(s.name for s in splits)}: {_listed(stray)}"] if splits and stray else []
    )
    filled = {file.label for file in found if kind_of_file(file.key) and file.size >= 0}
    empty = sorted({label.name for label, _ in labels} - filled)
    if empty and filled:
        notes.append(f"{folder}: left out, as no file in them can be used: the classes {_listed(empty)}")
    return _Listing(sha256(repr(found).encode(errors="surrogateescape")).digest(), found, notes)


def _walk(root: Path, label: Path, split: str) -> Iterator[_File]:
    """The files below a class folder that are not hidden, in order; through links, but never in a circle."""
    found: list[tuple[list[str], _File]] = []
    open_folders = [(label, frozenset({label.resolve()}))]
    while open_folders:
        folder, above = open_folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    place = Path(entry.path).resolve()
                    if place not in above:
                        open_folders.append((Path(entry.path), above | {place}))
                    continue
                key = Path(entry.path).relative_to(root).as_posix()
                _check_name(entry.path)
                try:
                    state = entry.stat()
                    file = _File(key, label.name, split, state.st_size, state.st_mtime_ns)
                except OSError:
                    file = _File(key, label.name, split, -1, 0)
                found.append((key.split("/"), file))
    return (file for _, file in sorted(found, key=lambda pair: pair[0]))


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        reason = "its name is not UTF-8, so that no result could be written; rename it (as `convmv` does)"
        raise ManifestError(shown, None, reason) from None


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _left_out(folder: Path, files: Sequence[_File], media: Sequence[_File]) -> list[str]:
    notes: list[str] = []
    unknown = [file for file in files if not kind_of_file(file.key) and not file.key.lower().endswith(SUBTITLES)]
    strange = Counter((Path(file.key).suffix, file.label) for file in unknown)
    if strange:
        said = _listed(
            f"{count} {suffix or 'without a suffix'} in {label}" for (suffix, label), count in strange.items()
        )
        notes.append(f"{folder}: {sum(strange.values())} files whose suffix tells no kind are left out: {said}")
    broken = [file.key for file in media if file.size < 0]
    if broken:
        notes.append(f"{folder}: {len(broken)} links lead nowhere and are left out: {_listed(broken)}")
    return notes


def _split(folder: Path, records: Records, files: Sequence[_File]) -> tuple[Records, list[str]]:
    records, grouped = with_name_groups(records)
    if grouped:
        _, test, how = hold_out(records, _TEST_SHARE)
        held = set(test.keys().to_pylist())
        done = records.replaced(split=["val" if file.key in held else "train" for file in files])
        said = f"{folder} has no train and val folders: {how}, {len(test)} of {len(records)} files, are the test set."
        return done, [said, grouped]
    prints = fingerprints(folder, [(str(folder / file.key), file.size, file.changed) for file in files])
    classes: defaultdict[bytes, set[str]] = defaultdict(set)
    for file, print_ in zip(files, prints, strict=True):
        classes[print_].add(file.label)
    by_class: defaultdict[str, set[bytes]] = defaultdict(set)
    for file, print_ in zip(files, prints, strict=True):
        if len(classes[print_]) == 1 and file.size >= 0:
            by_class[file.label].add(print_)
    test = {print_ for members in by_class.values() for print_ in _smallest(members)}
    done = records.replaced(split=["val" if print_ in test else "train" for print_ in prints])
    held_out = sum(print_ in test for print_ in prints)
    notes = [
        f"{folder} has no train and val folders: {held_out} of its {len(done)} files, about a fifth of each class, "
        f"are the test set 'val', chosen by a hash of their content."
    ]
    copies = [print_ for print_, count in Counter(prints).items() if count > 1]
    if copies:
        same = [file.key for file, print_ in zip(files, prints, strict=True) if print_ == copies[0]]
        notes.append(f"{folder}: {len(copies)} files are there more than once, the first as {_listed(same)}.")
    torn = next((print_ for print_ in copies if len(classes[print_]) > 1), None)
    if torn is not None:
        same = [file.key for file, print_ in zip(files, prints, strict=True) if print_ == torn]
        count = sum(len(found) > 1 for found in classes.values())
        notes.append(f"{folder}: {count} files stand in several classes, as {_listed(same)}: one content, two labels.")
    return done, notes


def _smallest(prints: set[bytes]) -> list[bytes]:
    share = max(1, round(len(prints) * _TEST_SHARE)) if len(prints) > 1 else 0
    return sorted(prints)[:share]


def _listed(names: Iterable[str]) -> str:
    first, *rest = names
    return ", ".join([first, *rest[:2], *(["..."] if len(rest) > 2 else [])])
