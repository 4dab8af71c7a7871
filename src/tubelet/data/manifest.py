"""Manifests: which media files there are, what they show, and on which side of the split they stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tubelet.data import tables
from tubelet.data.tables import ManifestError, Row

__all__ = ["Manifest", "ManifestError", "Record", "read_manifest", "write_manifest"]

LABEL = "label"
_NUMBERS = ("start", "end", "duration", "fps", "width", "height")
_TEXTS = ("path", "split", "group", "text", "error")
_INDEXED = ("duration", "fps", "width", "height", "error")
_PREFIXES = ("label.", "path.")
_COLUMNS = ("path", "label", "labels", "start", "end", "split", "group", "text", *_INDEXED)


@dataclass(frozen=True, slots=True)
class Record:
    """One example: a media file, or the part of one between ``start`` and ``end`` seconds (None: to its end).

    ``labels``: by label set; the columns ``label`` and ``labels`` are the set "label", ``label.verb`` the set "verb".
    ``group``: what must not be split apart (a speaker, a scene, a source), the same for all of its examples.
    ``key`` names the example in results: the path as the manifest writes it, and the part. ``duration`` (seconds),
    ``fps``, ``width`` and ``height`` of the file are 0 where no index has cached them. ``error``: why the index could
    not read the file; training leaves such an example out, evaluation counts it as expected. ``paths``: of its other
    files: the column ``path.flow`` names the file "flow".
    """

    path: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    start: float = 0.0
    end: float | None = None
    split: str = ""
    group: str = ""
    text: str = ""
    key: str = ""
    duration: float = 0.0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    error: str = ""
    paths: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Manifest:
    """The records of a file or folder, in its order. ``notes``: sentences about it that a person should see."""

    path: str
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(record.split for record in self.records))

    def split(self, name: str) -> tuple[Record, ...]:
        """The records of one split. Raises :class:`ManifestError` where there are none."""
        records = tuple(record for record in self.records if record.split == name)
        if not records:
            named = [repr(split) for split in self.splits if split]
            has = ", ".join(named) if named else "none; write train and val in a column 'split', or lay out subfolders"
            raise ManifestError(self.path, None, f"no split {name!r}; it has {has}")
        return records

    @property
    def label_sets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for record in self.records for name in record.labels))

    def classes(self, label_set: str = LABEL, split: str | None = None) -> tuple[str, ...]:
        """The labels of a set (in one split, or in all), sorted: as numbers where all are whole numbers."""
        records = self.records if split is None else self.split(split)
        labels = {label for record in records for label in record.labels.get(label_set, ())}
        if not labels:
            column = "'label' or 'labels'" if label_set == LABEL else f"'label.{label_set}'"
            raise ManifestError(self.path, 1, f"no column {column}, so no record has labels of the set {label_set!r}")
        numbers = all(label.isdecimal() for label in labels)
        return tuple(sorted(labels, key=lambda label: (int(label) if numbers else 0, label)))


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest (.csv, .jsonl or .parquet), or a folder of class folders.

    Columns: ``path`` (relative ones are relative to the manifest); ``label``, or ``labels`` (several: separated by ";"
    in CSV, a list elsewhere), or ``label.NAME`` for each of several label sets; ``path.NAME`` for a second file of the
    example, such as its optical flow, for inputs whose spec names that column; ``start``, ``end`` in seconds;
    ``split``; ``group``; ``text``; and what an index caches: ``duration``, ``fps``, ``width``, ``height``, ``error``.
    Raises :class:`ManifestError` with the line that is wrong and what to do about it.
    """
    path = Path(path)
    if path.is_dir():
        from tubelet.data.folder import read_folder

        return read_folder(path)
    columns, rows = tables.read(path)
    _check_columns(path, columns)
    records: list[Record] = []
    seen: dict[str, int] = {}
    for row in rows:
        record = _record(row, path.parent, columns)
        if record.key in seen:
            raise row.error(f"{record.key!r} already stands in line {seen[record.key]}; remove one of them")
        seen[record.key] = row.line
        records.append(record)
    if not records:
        raise ManifestError(str(path), None, "the manifest has no rows")
    return Manifest(str(path), tuple(records))


def write_manifest(path: str | Path, records: Iterable[Record]) -> None:
    """Write a manifest in the format that ``path`` ends with; columns that no record uses are left out.

    Relative paths are written as they are, absolute ones relative to the manifest where they lie below its folder.
    """
    path, records = Path(path), list(records)
    plural = any(len(record.labels.get(LABEL, ("",))) != 1 for record in records)
    tables.write(path, [_cells(record, path, plural) for record in records])


def _check_columns(path: Path, columns: Mapping[str, int]) -> None:
    for column, line in columns.items():
        if column not in _COLUMNS and not any(column.removeprefix(prefix) not in ("", column) for prefix in _PREFIXES):
            guess = tables.nearest(column, _COLUMNS)
            raise ManifestError(
                str(path),
                line,
                f"unknown column {column!r}{guess}; the columns are {', '.join(_COLUMNS)} label.NAME and path.NAME",
            )
    if "path" not in columns:
        has = ", ".join(columns) or "nothing"
        raise ManifestError(str(path), 1, f"no column 'path'; the first line must name the columns, but it has {has}")
    if "label" in columns and "labels" in columns:
        line = max(columns["label"], columns["labels"])
        raise ManifestError(str(path), line, "'label' and 'labels' are two names of one column; keep one of them")


def _record(row: Row, folder: Path, columns: Iterable[str]) -> Record:
    texts = {name: row.text(name) for name in _TEXTS}
    numbers = {name: row.number(name) for name in _NUMBERS}
    if not texts["path"]:
        raise row.error("the path is empty; remove the line or give the file")
    start, end = numbers["start"] or 0.0, numbers["end"]
    if start < 0 or (end is not None and start >= end):
        raise row.error(f"start={start:g} must be at least 0 and before end={'' if end is None else f'{end:g}'}")
    part = "" if not start and end is None else f"#{start:g}-{'' if end is None else f'{end:g}'}"
    return Record(
        path=str(folder / texts["path"]),
        labels=dict(
            _labels(row, column) for column in columns if column in ("label", "labels") or column.startswith("label.")
        ),
        start=start,
        end=end,
        split=texts["split"],
        group=texts["group"],
        text=texts["text"],
        key=texts["path"] + part,
        duration=numbers["duration"] or 0.0,
        fps=numbers["fps"] or 0.0,
        width=int(numbers["width"] or 0),
        height=int(numbers["height"] or 0),
        error=texts["error"],
        paths={name: str(folder / _second(row, name)) for name in _seconds(columns)},
    )


def _seconds(columns: Iterable[str]) -> list[str]:
    """NAME of each column ``path.NAME``."""
    return [column.removeprefix("path.") for column in columns if column.startswith("path.")]


def _second(row: Row, name: str) -> str:
    if path := row.text(f"path.{name}"):
        return path
    raise row.error(f"column 'path.{name}' is empty; give the file or remove the line")


def _labels(row: Row, column: str) -> tuple[str, tuple[str, ...]]:
    labels = row.texts(column) if column == "labels" else tuple(filter(None, [row.text(column)]))
    if not labels:
        raise row.error(f"column {column!r} is empty; give the label or remove the line")
    return LABEL if column == "labels" else column.removeprefix("label."), labels


def _cells(record: Record, manifest: Path, plural: bool) -> dict[str, object]:
    folder = manifest.parent.absolute()
    paths = {"path": record.path} | {f"path.{name}": path for name, path in record.paths.items()}
    cells: dict[str, object] = {column: _relative(Path(path), folder) for column, path in paths.items()}
    for name, labels in record.labels.items():
        if name == LABEL and plural:
            cells["labels"] = list(labels)
        elif len(labels) != 1:
            raise ManifestError(str(manifest), None, f"{record.path}: {labels=} of {name!r} must be one label")
        else:
            cells[name if name == LABEL else f"label.{name}"] = labels[0]
    return cells | {name: getattr(record, name) for name in _COLUMNS[3:]}


def _relative(path: Path, folder: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
