"""Manifests: which media files there are, what they show, and on which side of the split they stand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tubelet.data import tables
from tubelet.data.facts import FACTS, believed
from tubelet.data.records import FILE, LABEL, TYPES, Record, Records, label_column, label_set
from tubelet.data.tables import ManifestError, Table

pc: Any = pyarrow.compute  # its functions are made when it is imported, which type checkers cannot see

__all__ = ["LABEL", "Manifest", "ManifestError", "Record", "Records", "read_manifest", "write_manifest"]

_YEARS = 1e9  # seconds, thirty years
_NUMBERS = {"start": _YEARS, "end": _YEARS, "duration": _YEARS, "fps": 1e6, "width": 1e6, "height": 1e6}
"""The columns of numbers, and the most that makes sense in each."""
_TEXTS = ("split", "group", "text", "error")
_INDEXED = (*FACTS, "error")
_TEXT = "text."  # and a name: the column of one of several captions
_PREFIXES = ("label.", FILE, _TEXT)
_COLUMNS = ("path", "label", "labels", "start", "end", "split", "group", "text", "texts", *_INDEXED)


@dataclass(frozen=True)
class Manifest:
    """The records of a file or folder, in its order, as columns. ``notes``: sentences that a person should see."""

    path: str
    records: Sequence[Record]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", Records.of(self.records))

    @property
    def _records(self) -> Records:
        return Records.of(self.records)

    @property
    def splits(self) -> tuple[str, ...]:
        return self._records.codes("split").used

    def split(self, name: str) -> Records:
        """The records of one split. Raises :class:`ManifestError` where there are none."""
        splits = self._records.codes("split")
        if name not in splits.used:
            named = [repr(split) for split in splits.used if split]
            has = ", ".join(named) if named else "none; write train and val in a column 'split', or lay out subfolders"
            left_out = "".join(f". {note}" for note in self.notes if "left out" in note)
            raise ManifestError(self.path, None, f"no split {name!r}; it has {has}{left_out}")
        return self._records.where(splits.codes == splits.names.index(name))

    @property
    def label_sets(self) -> tuple[str, ...]:
        return self._records.label_sets

    def classes(self, label_set: str = LABEL, split: str | None = None) -> tuple[str, ...]:
        """The labels of a set (in one split, or in all), sorted: as numbers where all are whole numbers."""
        records = self._records if split is None else self.split(split)
        labels = records.labels(label_set).used
        if not labels:
            column = "'label' or 'labels'" if label_set == LABEL else f"'label.{label_set}'"
            raise ManifestError(self.path, 1, f"no column {column}, so no record has labels of the set {label_set!r}")
        numbers = all(label.isdecimal() for label in labels)
        return tuple(sorted(labels, key=lambda label: (int(label) if numbers else 0, label)))


def read_manifest(path: str | Path, *, as_written: bool = False) -> Manifest:
    """Read a manifest (.csv, .jsonl, .parquet or .arrow), or a folder of class folders.

    Columns: ``path`` (relative ones are relative to the manifest); ``label``, or ``labels`` (several: separated by ";"
    in CSV, a list elsewhere), or ``label.NAME`` for each of several label sets; ``path.NAME`` for a second file of the
    example, such as its optical flow, for inputs whose spec names that column; ``start``, ``end`` in seconds;
    ``split``; ``group``; ``text``, a caption, or several: a list in ``texts``, or a column ``text.NAME`` for each, as
    in CSV; and what an index caches: ``duration``, ``fps``, ``width``, ``height``, ``error``.
    Where files are not as the manifest says, what it caches of them is not used, and a note says so; ``as_written``
    keeps it. A file that has not changed is read once in a process; parquet and Arrow files are mapped into memory.
    Raises :class:`ManifestError` with the line that is wrong and what to do about it.
    """
    path = Path(path)
    if path.is_dir():
        from tubelet.data.folder import read_folder

        return read_folder(path)
    state = path.stat() if path.is_file() else None
    read = _read_file if as_written else _believed
    return read(path, os.getcwd(), (state.st_mtime_ns, state.st_size, state.st_ino) if state else ())


@lru_cache(maxsize=8)
def _believed(path: Path, directory: str, state: tuple[int, ...]) -> Manifest:
    manifest = _read_file(path, directory, state)
    records, notes = believed(str(path), Records.of(manifest.records))
    return Manifest(manifest.path, records, (*manifest.notes, *notes))


@lru_cache(maxsize=8)
def _read_file(path: Path, directory: str, state: tuple[int, ...]) -> Manifest:
    """``directory`` and ``state`` tell apart what has the same path."""
    table = tables.read(path, tuple(_NUMBERS))
    _check_columns(table)
    if not len(table.cells):
        raise ManifestError(str(path), None, "the manifest has no rows")
    columns = _columns(table)
    del table
    pa.default_memory_pool().release_unused()
    records = Records(pa.table(columns), folder=str(path.parent))
    return Manifest(str(path), records, tuple(_left_out(path, records)))


def _left_out(path: Path, records: Records) -> Iterator[str]:
    """What no split has, and what no training sees, in sentences."""
    splits = records.codes("split")
    if "" in splits.used and splits.used != ("",):
        count = splits.sizes()[""]
        yield f"{path}: {count:,} examples have no split and are left out"
    if broken := len(records) - len(records.readable):
        yield f"{path}: {broken:,} examples that the index could not read are left out of training"


def write_manifest(path: str | Path, records: Iterable[Record]) -> None:
    """Write a manifest in the format that ``path`` ends with; columns that no record uses are left out.

    Relative paths are written as they are, absolute ones relative to the manifest where they lie below its folder.
    """
    path, records = Path(path), Records.of(records)
    folder = path.parent.absolute().as_posix().rstrip("/") + "/"
    files = {"path": records.paths(), **{FILE + name: records.paths(name) for name in records.files}}
    columns = {
        name: pc.if_else(pc.starts_with(paths, folder), pc.utf8_slice_codeunits(paths, len(folder)), paths)
        for name, paths in files.items()
    }
    for name in records.label_sets:
        columns |= _label_cells(path, records, name)
    for name in _COLUMNS[3:]:
        if name == "texts" and name in records.table.column_names and path.suffix.lower() == ".csv":
            columns |= _caption_cells(records.column(name).to_pylist())
        elif name in records.table.column_names:
            column = records.column(name)
            columns[name] = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    tables.write(path, pa.table(columns))


def _caption_cells(captions: Sequence[Sequence[str] | None]) -> dict[str, Any]:
    """A column for each: captions have every letter in them that could stand between several in a cell."""
    rows = [row or () for row in captions]
    count = max(map(len, rows), default=0)
    return {f"{_TEXT}{i + 1}": pa.array([row[i] if i < len(row) else "" for row in rows]) for i in range(count)}


def _label_cells(manifest: Path, records: Records, name: str) -> dict[str, Any]:
    labels, column = records.labels(name), records.column(label_column(name))
    single = not pa.types.is_list(column.type)
    if not (labels.counts != 1).any():
        return {label_column(name): column.cast(pa.string()) if single else pc.list_flatten(column)}
    if name == LABEL:
        return {"labels": column}
    wrong = records[int(np.flatnonzero(labels.counts != 1)[0])]
    raise ManifestError(
        str(manifest), None, f"{wrong.path}: labels={wrong.labels.get(name, ())} of {name!r} must be one label"
    )


def _check_columns(table: Table) -> None:
    columns = table.columns
    for column in columns:
        if column not in _COLUMNS and not any(column.removeprefix(prefix) not in ("", column) for prefix in _PREFIXES):
            guess, known = tables.nearest(column, _COLUMNS), ", ".join([*_COLUMNS, "label.NAME", "path.NAME"])
            reason = f"unknown column {tables.shown(column)}{guess}; the columns are {known} and text.NAME"
            raise ManifestError(table.path, table.named(column), reason)
    if "path" not in columns and len(table.cells):
        has = ", ".join(columns) or "nothing"
        raise ManifestError(table.path, 1, f"no column 'path'; the first line must name the columns, but it has {has}")
    if "label" in columns and "labels" in columns:
        line = max(table.named("label"), table.named("labels"))
        raise ManifestError(table.path, line, "'label' and 'labels' are two names of one column; keep one of them")
    if "texts" in columns and (apart := next((name for name in columns if name.startswith(_TEXT)), None)):
        line = max(table.named("texts"), table.named(apart))
        raise ManifestError(table.path, line, f"'texts' and {apart!r} both hold several captions; keep one of them")


def _columns(table: Table) -> dict[str, Any]:
    """The columns of :class:`Records`; raises for the first row that is wrong."""
    written = table.text("path")
    if (row := tables.first(pc.equal(written, ""))) is not None:
        raise table.error(row, "the path is empty; remove the line or give the file")
    path = _normal(table, written)
    columns: dict[str, Any] = {"path": path}
    for name in table.columns:
        if name == "labels" or name == LABEL or name.startswith(f"{LABEL}."):
            columns[label_column("label" if name == "labels" else label_set(name))] = _labels(table, name)
    for name in table.columns:
        if name.startswith(FILE):
            columns[name] = _normal(table, cells := table.text(name))
            if (row := tables.first(pc.equal(cells, ""))) is not None:
                raise table.error(row, f"column {name!r} is empty; give the file or remove the line")
        elif name in _NUMBERS:
            columns[name] = table.number(name, _NUMBERS[name])
        elif name in _TEXTS:
            columns[name] = table.text(name)
    columns |= _captions(table)
    key = _key(written, _times(table, columns))
    if key is not path:
        columns["key"] = key
    _check_keys(table, key)
    for name in ("width", "height"):
        if name in columns:
            columns[name] = pc.cast(pc.trunc(columns[name]), pa.int32())
    return {
        name: column.cast(TYPES[name]) if name in TYPES and column.type != TYPES[name] else column
        for name, column in columns.items()
    }


def _normal(table: Table, paths: Any) -> Any:
    """The paths as :class:`Path` writes them: no "./", no "//", no "/" at the end."""
    if (row := tables.first(pc.match_substring(paths, "\0"))) is not None:
        raise table.error(
            row, f"the path {tables.shown(paths[row].as_py())} has a zero byte, which no name has; mend it"
        )
    odd = pc.match_substring_regex(paths, r"(^\./.)|/\.?/|/\.?$")
    if tables.first(odd) is None:
        return paths
    return pc.replace_with_mask(paths, odd, pa.array([str(Path(text)) for text in paths.filter(odd).to_pylist()]))


def _labels(table: Table, column: str) -> Any:
    if column == "labels":
        labels = table.texts(column)
        empty, single = pc.equal(pc.list_value_length(labels), 0), len(labels.values) == len(labels)
    else:
        labels = table.text(column)
        empty, single = pc.equal(labels, ""), True
    if (row := tables.first(empty)) is not None:
        raise table.error(row, f"column {column!r} is empty; give the label or remove the line")
    if not single:
        return labels
    return (labels.values if column == "labels" else labels).dictionary_encode()


def _captions(table: Table) -> dict[str, Any]:
    apart = [name for name in table.columns if name.startswith(_TEXT)]
    if apart:
        return {"texts": table.together(apart)}
    if "texts" not in table.columns:
        return {}
    if not pa.types.is_nested(table.cells["texts"].type):
        reason = "column 'texts' must hold lists; where cells hold text, as in CSV, write text.1, text.2 and so on"
        raise ManifestError(table.path, table.named("texts"), reason)
    return {"texts": table.texts("texts")}


def _times(table: Table, columns: dict[str, Any]) -> tuple[Any, Any] | None:
    """The starts and ends of the examples; None where all of them are whole files."""
    if "start" not in columns and "end" not in columns:
        return None
    count = len(table.cells)
    start = pc.fill_null(columns["start"], 0.0) if "start" in columns else pa.array(np.zeros(count))
    end = columns.get("end", pa.nulls(count, pa.float64()))
    if (row := tables.first(pc.greater_equal(start, end))) is not None:
        reason = f"start={start[row].as_py():g} must be at least 0 and before end={end[row].as_py():g}"
        raise table.error(row, reason)
    return start, end


def _key(paths: Any, times: tuple[Any, Any] | None) -> Any:
    """What names the examples: the path, and the part where there is one: "a.mp4#1.5-4"."""
    if times is None:
        return paths
    start, end = times
    for digits in ("g", ".15g"):  # six digits, unless they are too few to tell the parts of a long file apart
        first, last = (_written(numbers, digits) for numbers in (start, end))
        parts = pc.binary_join_element_wise(paths, "#", first, "-", pc.fill_null(last, ""), "")
        keys = pc.if_else(pc.or_(pc.greater(start, 0), pc.is_valid(end)), parts, paths)
        if _differ(keys):
            break
    return keys


def _written(numbers: Any, digits: str) -> Any:
    encoded = numbers.dictionary_encode()
    return pa.array([f"{n:{digits}}" for n in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def _differ(keys: Any) -> bool:
    return pc.count_distinct(keys).as_py() == len(keys)


def _check_keys(table: Table, keys: Any) -> None:
    if _differ(keys):
        return
    seen: dict[str, int] = {}
    for row, key in enumerate(keys.to_pylist()):
        if key in seen:
            raise table.error(
                row, f"{tables.shown(key)} already stands in line {table.line(seen[key])}; remove one of them"
            )
        seen[key] = row
