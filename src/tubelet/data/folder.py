"""A folder of class folders as a manifest."""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

from tubelet.data.fingerprints import fingerprints
from tubelet.data.kinds import kind_of_file
from tubelet.data.manifest import LABEL, Manifest, ManifestError, Records
from tubelet.data.names import text_of
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
_SYSTEM = {"@eadir", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found", "__macosx"}
"""Folders that network drives and other systems make for themselves, for thumbnails and what was deleted."""

_NOWHERE = "a link that leads nowhere"
_LOST = {
    _NOWHERE: ("link that leads nowhere", "links that lead nowhere"),
    "hidden": ("hidden media file", "hidden media files"),
    "beside": ("media file beside the class folders", "media files beside the class folders"),
    "circle": ("link back to a folder that it is in", "links back to folders that they are in"),
    "closed": ("folder that cannot be opened", "folders that cannot be opened"),
    "special": ("pipe or device", "pipes or devices"),
}
"""Why something in a folder is no data: what one, and several, are called."""


@dataclass(frozen=True)
class _File:
    """A file in a class folder. ``path``: from the root. ``lost``: why it cannot be read, of ``_LOST``."""

    path: str
    label: str
    split: str
    size: int = 0
    changed: int = 0
    lost: str = ""

    @property
    def is_media(self) -> bool:
        """Whether it is an example; a link that leads nowhere is one that cannot be read."""
        return self.lost in ("", _NOWHERE) and kind_of_file(self.path) is not None


@dataclass(frozen=True)
class _Listing:
    """All files of a folder; two listings are equal where their ``digest`` is."""

    digest: bytes
    files: list[_File] = field(compare=False)
    notes: list[str] = field(compare=False)


def read_folder(folder: Path) -> Manifest:
    """The media files in a folder's class folders, at any depth; a file's class is the outermost folder it lies in.

    Subfolders named train, val (or valid, validation) and test hold class folders of their own and are the splits; one
    that holds files and no folders, beside other class folders, is a class of that name. Links to folders are followed.
    What is left out is counted in the notes: files of no known suffix (but for subtitles, which belong to the media
    file beside them), media that are hidden or lie beside the class folders, links that lead nowhere. Keys and labels
    are written as :func:`~tubelet.data.names.text_of` writes names.

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
    files = list(_walk(folder, folder, "", ""))
    media, notes = [file for file in files if file.is_media], _left_out(folder, files)
    if not media:
        raise ManifestError(str(folder), None, ". ".join(["no media files", *notes]))
    columns = {"error": [file.lost for file in media]}
    records = Records.of_columns([text_of(file.path) for file in media], {}, str(folder), **columns)
    return Manifest(str(folder), records.readable, tuple(notes))


@lru_cache(maxsize=4)
def _manifest(folder: Path, directory: str, listing: _Listing) -> Manifest:
    """``directory``: what a relative folder is relative to."""
    media = [file for file in listing.files if file.is_media]
    notes = [*listing.notes, *_left_out(folder, listing.files)]
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
        "error": [file.lost for file in files],
    }
    return Records.of_columns(
        [text_of(file.path) for file in files], {LABEL: [file.label for file in files]}, str(folder), **columns
    )


def _listing(folder: Path) -> _Listing:
    outer = _folders(folder)
    splits = {name: _SPLITS[name.name.lower()] for name in outer if name.name.lower() in _SPLITS}
    stray = [name.name for name in outer if name not in splits]
    if stray and any(not _folders(name) for name in splits):  # classes such as bus, car and train
        splits, stray = {}, []
    places = splits or {folder: ""}
    labels = [(label, split) for place, split in places.items() for label in _folders(place)]
    spelled: dict[str, str] = {}  # names that look the same, as two systems write "é", are one class
    found = [
        file
        for label, split in labels
        for file in _walk(folder, label, split, spelled.setdefault(normalize("NFC", label.name), text_of(label.name)))
    ]
    found += [file for place in {folder: "", **places} for file in _beside(folder, place)]
    notes = (
        [f"{folder}: left out beside {_listed(s.name for s in splits)}: {_listed(map(text_of, stray))}"]
        if splits and stray
        else []
    )
    filled = {file.label for file in found if file.is_media and not file.lost}
    empty = sorted(set(spelled.values()) - filled)
    if empty and filled:
        what = _counted(len(empty), ("class without a readable file", "classes without a readable file"))
        notes.append(f"{folder}: left out: {what}: {_listed(empty)}")
    return _Listing(sha256(repr(found).encode(errors="surrogateescape")).digest(), found, notes)


def _walk(root: Path, top: Path, split: str, label: str) -> Iterator[_File]:
    """All files below a class folder ``top``, in order; through links, but never in a circle."""
    found: list[_File] = []
    open_folders = [(top, frozenset({top.resolve()}))]
    while open_folders:
        folder, above = open_folders.pop()
        entries = _entries(folder)
        if entries is None:
            found.append(_File(folder.relative_to(root).as_posix(), label, split, lost="closed"))
        for entry in entries or ():
            path = Path(entry.path).relative_to(root).as_posix()
            if _is_hidden(entry.name):
                found += [_File(hidden, label, split, lost="hidden") for hidden in _hidden_media(root, entry)]
            elif entry.is_dir():
                place = Path(entry.path).resolve()
                if place in above:
                    found.append(_File(path, label, split, lost="circle"))
                else:
                    open_folders.append((Path(entry.path), above | {place}))
            else:
                found.append(_file(entry, path, label, split))
    return iter(sorted(found, key=lambda file: file.path.split("/")))


def _file(entry: os.DirEntry[str], path: str, label: str, split: str) -> _File:
    try:
        state = entry.stat()
    except OSError:
        return _File(path, label, split, lost=_NOWHERE)
    if not stat.S_ISREG(state.st_mode):
        return _File(path, label, split, lost="special")
    return _File(path, label, split, state.st_size, state.st_mtime_ns)


def _beside(root: Path, place: Path) -> Iterator[_File]:
    """Media that lie where class folders should, and those in hidden folders there."""
    for entry in sorted(_entries(place) or (), key=lambda entry: entry.name):
        if _is_hidden(entry.name):
            yield from (_File(path, "", "", lost="hidden") for path in _hidden_media(root, entry))
        elif kind_of_file(entry.name) and not entry.is_dir():
            yield _File(Path(entry.path).relative_to(root).as_posix(), "", "", lost="beside")


def _hidden_media(root: Path, entry: os.DirEntry[str]) -> Iterator[str]:
    paths = [entry.path]
    if entry.is_dir(follow_symlinks=False):
        paths = [os.path.join(folder, name) for folder, _, names in os.walk(entry.path) for name in names]
    return (Path(path).relative_to(root).as_posix() for path in paths if kind_of_file(path))


def _entries(folder: Path) -> list[os.DirEntry[str]] | None:
    """What is in a folder; None where it cannot be opened."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM


def _folders(folder: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in _entries(folder) or () if entry.is_dir() and not _is_hidden(entry.name))


def _left_out(folder: Path, files: Sequence[_File]) -> list[str]:
    notes: list[str] = []
    strange = Counter(
        (text_of(Path(file.path).suffix), file.label)
        for file in files
        if not (file.lost or kind_of_file(file.path) or file.path.lower().endswith(SUBTITLES))
    )
    if strange:
        said = _listed(
            f"{count} {suffix or 'without a suffix'}{label and f' in {label}'}"
            for (suffix, label), count in strange.items()
        )
        what = _counted(sum(strange.values()), ("file whose suffix tells no kind", "files whose suffixes tell no kind"))
        notes.append(f"{folder}: left out: {what}: {said}")
    for lost, names in _LOST.items():
        if gone := [text_of(file.path) for file in files if file.lost == lost]:
            notes.append(f"{folder}: left out: {_counted(len(gone), names)}: {_listed(gone)}")
    return notes


def _counted(count: int, names: tuple[str, str]) -> str:
    return f"{count} {names[count > 1]}"


def _split(folder: Path, records: Records, files: Sequence[_File]) -> tuple[Records, list[str]]:
    records, grouped = with_name_groups(records)
    if grouped:
        _, test, how = hold_out(records, _TEST_SHARE)
        held = set(test.keys().to_pylist())
        done = records.replaced(split=["val" if key in held else "train" for key in records.keys().to_pylist()])
        said = f"{folder} has no train and val folders: {how}, {len(test)} of {len(records)} files, are the test set."
        return done, [said, grouped]
    prints = fingerprints(folder, [(str(folder / file.path), file.size, file.changed) for file in files])
    same: defaultdict[bytes, list[_File]] = defaultdict(list)
    for file, print_ in zip(files, prints, strict=True):
        if not file.lost:
            same[print_].append(file)
    by_class: defaultdict[str, set[bytes]] = defaultdict(set)
    for print_, copies in same.items():
        if len({file.label for file in copies}) == 1:
            by_class[copies[0].label].add(print_)
    test = {print_ for members in by_class.values() for print_ in _smallest(members)}
    done = records.replaced(split=["val" if print_ in test else "train" for print_ in prints])
    held_out = sum(print_ in test for print_ in prints)
    notes = [
        f"{folder} has no train and val folders: {held_out} of its {len(done)} files, about a fifth of each class, "
        f"are the test set 'val', chosen by a hash of their content."
    ]
    if several := [copies for copies in same.values() if len(copies) > 1]:
        first = _listed(text_of(file.path) for file in several[0])
        notes.append(f"{folder}: {len(several)} files are there more than once, the first as {first}.")
    if torn := [copies for copies in several if len({file.label for file in copies}) > 1]:
        first = _listed(text_of(file.path) for file in torn[0])
        notes.append(
            f"{folder}: {len(torn)} files stand in several classes, as {first}: one content, two labels; mend one."
        )
    return done, notes


def _smallest(prints: set[bytes]) -> list[bytes]:
    share = max(1, round(len(prints) * _TEST_SHARE)) if len(prints) > 1 else 0
    return sorted(prints)[:share]


def _listed(names: Iterable[str]) -> str:
    first, *rest = names
    return ", ".join([first, *rest[:2], *(["..."] if len(rest) > 2 else [])])
