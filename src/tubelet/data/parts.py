"""Files without labels, cut into parts that are examples of their own: what learning without labels starts from."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tubelet.data.folder import read_files
from tubelet.data.index import probed
from tubelet.data.manifest import Manifest, ManifestError, read_manifest
from tubelet.data.records import Records
from tubelet.data.split import hold_out

_TEST_SHARE = 0.1
_FEWEST_FILES = 20  # so many or more, that whole files are held out for the test
_SHORTEST = 0.5  # of a part, that what is left at the end of a file is one


def read_parts(path: str | Path, seconds: float, test: str) -> Manifest:
    """A manifest, or all media files of a folder at any depth, in parts of ``seconds``.

    Records that are parts already are cut further. What is left at the end of a file is a part if it is at least half
    as long. Where there are no splits, a tenth is ``test`` and the rest "train": whole files where there are 20 or
    more, else the end of each file. Files that cannot be read are noted and left out. Raises :class:`ManifestError`.
    """
    return _read_parts(Path(path), os.getcwd(), seconds, test)


@lru_cache(maxsize=4)
def _read_parts(path: Path, directory: str, seconds: float, test: str) -> Manifest:
    manifest = read_files(path) if path.is_dir() else read_manifest(path)
    records, notes = _with_durations(Records.of(manifest.records))
    if not len(records):
        raise ManifestError(str(path), None, f"none of its {len(manifest.records)} files can be read. {notes[0]}")
    starts, ends = _numbers(records, "start", 0.0), _numbers(records, "end", np.inf)
    ends = np.minimum(ends, _numbers(records, "duration", 0.0))
    lengths = np.maximum(0.0, ends - starts)
    counts = np.floor(lengths / seconds).astype(np.int64)
    counts = np.maximum(1, counts + (lengths - counts * seconds >= _SHORTEST * seconds))
    owner = np.repeat(np.arange(len(records)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[owner] + place * seconds
    last = np.minimum(first + seconds, ends[owner])
    paths = records.column("path").to_pylist()
    keys = [f"{paths[i]}#{a:g}-{b:g}" for i, a, b in zip(owner.tolist(), first.tolist(), last.tolist(), strict=True)]
    parts = records.at(owner).replaced(start=first.tolist(), end=last.tolist(), key=keys)
    if records.codes("split").used == ("",):
        held, how = _held_out(records, counts, owner, place)
        if not held.any():
            raise ManifestError(str(path), None, f"{len(parts)} parts of {seconds:g} s are too few to hold any out")
        parts = parts.replaced(split=np.where(held, test, "train").tolist())
        notes.append(
            f"{path}: {held.sum():,} of {len(parts):,} parts of {seconds:g} s, {how}, are the test set {test!r}."
        )
    return Manifest(str(path), parts, (*manifest.notes, *notes))


def _held_out(
    records: Records, counts: NDArray[np.int64], owner: NDArray[np.int64], place: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], str]:
    """Which parts are the test, and how they were chosen. ``owner`` and ``place``: a part's file, and its place there,
    of so many parts (``counts``)."""
    if len(records) < _FEWEST_FILES:
        last = np.where(counts > 1, np.maximum(1, np.rint(_TEST_SHARE * counts)), 0)
        held = place >= (counts - last)[owner]
        if held.any():
            return held, "the end of each file"
    _, files, _ = hold_out(records, _TEST_SHARE, by_class=False)
    return np.isin(np.array(records.keys().to_pylist()), files.keys().to_pylist())[owner], "whole files"


def _with_durations(records: Records) -> tuple[Records, list[str]]:
    """The records with the duration of each file, without those that cannot be read; and what was left out."""
    durations = _numbers(records, "duration", 0.0)
    unknown = np.flatnonzero(durations == 0)
    infos = probed(records.at(unknown))
    durations[unknown] = [getattr(info, "duration", 0.0) for info in infos]
    errors = [info for info in infos if isinstance(info, Exception)]
    notes = [f"{len(errors)} files cannot be read and are left out; the first: {errors[0]}"] if errors else []
    return records.replaced(duration=durations.tolist()).where(durations > 0), notes


def _numbers(records: Records, name: str, empty: float) -> NDArray[np.float64]:
    if name not in records.table.column_names:
        return np.full(len(records), empty)
    cells = np.array(records.column(name).to_pylist(), dtype=np.float64)
    return np.where(np.isnan(cells), empty, cells)
