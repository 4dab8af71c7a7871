"""Records: examples kept as the columns of an Arrow table, each made an object when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from tubelet.data.names import path_of, text_of

pc: Any = pyarrow.compute  # its functions are made when it is imported, which type checkers cannot see

LABEL = "label"
FILE = "path."  # and a name: the column of a second file of each example
_AT_ONCE = 1024  # rows that an iteration makes objects of together
_DIGESTED = 1 << 16  # rows that a fingerprint takes in together


@dataclass(frozen=True, slots=True)
class Record:
    """One example: a media file, or the part of one between ``start`` and ``end`` seconds (None: to its end).

    ``labels``: by label set; the columns ``label`` and ``labels`` are the set "label", ``label.verb`` the set "verb".
    ``group``: what must not be split apart (a speaker, a scene, a source), the same for all of its examples.
    ``key`` names the example in results: the path as the manifest writes it, and the part. ``duration`` (seconds),
    ``fps``, ``width`` and ``height`` of the file are 0 where no index has cached them. ``error``: why the index could
    not read the file; training leaves such an example out, evaluation counts it as expected. ``paths``: of its other
    files: the column ``path.flow`` names the file "flow". ``text``, ``texts``: a caption, and several.
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
    texts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in results and errors."""
        return self.key or text_of(self.path)

    @property
    def captions(self) -> tuple[str, ...]:
        """All captions that the manifest gives it."""
        return (self.text, *self.texts) if self.text else self.texts


TYPES: dict[str, Any] = {
    "path": pa.string(),
    "key": pa.string(),
    "start": pa.float64(),
    "end": pa.float64(),
    "split": pa.dictionary(pa.int32(), pa.string()),
    "group": pa.dictionary(pa.int32(), pa.string()),
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "duration": pa.float64(),
    "fps": pa.float64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "error": pa.string(),
}
"""The columns of a table of records beside the labels. All but ``path`` may be missing: then all cells are empty."""
_DEFAULTS = {f.name: f.default for f in fields(Record) if f.name in TYPES and f.name != "path"}


@dataclass(frozen=True)
class Codes:
    """Text cells as numbers: record i has the ``counts[i]`` names ``names[code]`` of the next as many ``codes``."""

    names: tuple[str, ...]
    codes: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Any) -> Codes:
        """An Arrow array of text, none of it null, as one name per record."""
        encoded = _single(texts)
        encoded = encoded if pa.types.is_dictionary(encoded.type) else encoded.dictionary_encode()
        codes = _numpy(encoded.indices).astype(np.int64)
        return cls(tuple(encoded.dictionary.to_pylist()), codes, np.ones(len(codes), np.int64))

    @cached_property
    def used(self) -> tuple[str, ...]:
        """The names that a record has, in the order in which they come first."""
        codes, first = np.unique(self.codes, return_index=True)
        return tuple(self.names[code] for code in codes[np.argsort(first)])

    def owners(self) -> NDArray[np.int64]:
        """The record of each code."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def sizes(self) -> dict[str, int]:
        """How often each name that is used comes."""
        counts = np.bincount(self.codes, minlength=len(self.names))
        return {name: int(counts[i]) for i, name in enumerate(self.names) if counts[i]}


class Records(Sequence[Record]):
    """Some rows of an Arrow table as a sequence of records. A part of it is another view of the same table.

    ``table``: the columns of :data:`TYPES`, for each label set a column ``label`` or ``label.NAME`` (text where every
    record has one label, else lists), and for each second file a column ``path.NAME``. ``folder``: what relative paths
    are relative to. ``rows`` (N,): which rows, in which order; all if None. Processes that are forked share the table.
    """

    def __init__(self, table: Any, rows: NDArray[np.int64] | None = None, folder: str = "") -> None:
        self.table, self.folder, self.rows = table, folder, rows

    @classmethod
    def of(cls, records: Iterable[Record]) -> Records:
        """The same records as columns; those that are already are returned as they are."""
        if isinstance(records, Records):
            return records
        records = list(records)
        columns: dict[str, Any] = {"path": pa.array([text_of(record.path) for record in records], TYPES["path"])}
        for name in dict.fromkeys(chain.from_iterable(record.labels for record in records)):
            labels = [record.labels.get(name) for record in records]
            single = all(label is None or len(label) == 1 for label in labels)
            columns[label_column(name)] = (
                pa.array([label and label[0] for label in labels], pa.string()).dictionary_encode()
                if single
                else pa.array(labels, pa.list_(pa.string()))
            )
        for name in dict.fromkeys(chain.from_iterable(record.paths for record in records)):
            files = [record.paths.get(name) for record in records]
            columns[FILE + name] = pa.array([file and text_of(file) for file in files], pa.string())
        for name, default in _DEFAULTS.items():
            values = [getattr(record, name) for record in records]
            if name == "key" or any(value != default for value in values):
                columns[name] = pa.array(values, TYPES[name])
        return cls(pa.table(columns))

    @classmethod
    def of_columns(
        cls, paths: Sequence[str], labels: Mapping[str, Sequence[str]], folder: str = "", **columns: Sequence[Any]
    ) -> Records:
        """Records with one label of each set, from lists of N cells by the names of columns."""
        texts = {label_column(name): pa.array(cells, pa.string()).dictionary_encode() for name, cells in labels.items()}
        others = {name: pa.array(cells, TYPES[name]) for name, cells in columns.items()}
        return cls(pa.table({"path": pa.array(paths, TYPES["path"])} | texts | others), None, folder)

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """The records of all ``parts``, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        tables: list[Any] = []
        for part in parts:
            table = part._rows()
            whole = {"path": part.paths(), **{FILE + name: part.paths(name) for name in part.files}}
            for name, cells in {"key": part.keys(), **whole}.items():
                place = table.column_names.index(name) if name in table.column_names else None
                cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
                table = table.append_column(name, cells) if place is None else table.set_column(place, name, cells)
            plain = [
                pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
                for field in table.schema
            ]
            tables.append(table.cast(pa.schema(plain)))
        return cls(pa.concat_tables(tables, promote_options="default"))

    def __len__(self) -> int:
        return len(self.table) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return self.at(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        index %= len(self)
        row = index if self.rows is None else int(self.rows[index])
        return self._record({name: self.table[name][row].as_py() for name in self.table.column_names})

    def __iter__(self) -> Iterator[Record]:
        for begin in range(0, len(self), _AT_ONCE):
            yield from map(self._record, self[begin : begin + _AT_ONCE]._rows().to_pylist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"<{len(self):,} records>"

    def at(self, places: NDArray[np.int64]) -> Records:
        """The records at these places (N,), in this order."""
        return Records(self.table, places if self.rows is None else self.rows[places], self.folder)

    def where(self, mask: NDArray[np.bool_]) -> Records:
        """Those for which the mask (N,) is true."""
        return self if mask.all() else self.at(np.flatnonzero(mask))

    def replaced(self, **columns: Sequence[Any]) -> Records:
        """The same records with other values in some columns."""
        table = self._rows()
        for name, values in columns.items():
            column = pa.array(values, TYPES[name])
            place = table.column_names.index(name) if name in table.column_names else None
            table = table.append_column(name, column) if place is None else table.set_column(place, name, column)
        return Records(table, None, self.folder)

    @property
    def readable(self) -> Records:
        """Those that no index found broken."""
        if "error" not in self.table.column_names:
            return self
        return self.where(_numpy(pc.equal(pc.fill_null(self.column("error"), ""), "")).astype(bool))

    def column(self, name: str) -> Any:
        """A column of the table, of these records: an Arrow array (N,)."""
        column = self.table[name]
        return column if self.rows is None else column.take(pa.array(self.rows))

    def codes(self, name: str) -> Codes:
        """A column of text, or of labels, as numbers. An empty cell of text is the name ""; labels may be none."""
        if name not in self.table.column_names:
            return Codes(("",), np.zeros(len(self), np.int64), np.ones(len(self), np.int64))
        column = self.column(name)
        if pa.types.is_list(column.type):
            counts = _numpy(pc.fill_null(pc.list_value_length(column), 0)).astype(np.int64)
            column = pc.list_flatten(column)
        elif name == LABEL or name.startswith(f"{LABEL}."):
            counts = _numpy(pc.is_valid(column)).astype(np.int64)
            column = column.drop_null()
        else:
            return Codes.of(
                column
                if pa.types.is_dictionary(column.type) and not column.null_count
                else pc.fill_null(column.cast(pa.string()), "")
            )
        return replace(Codes.of(column), counts=counts)

    @property
    def label_sets(self) -> tuple[str, ...]:
        return tuple(map(label_set, filter(_is_label, self.table.column_names)))

    def labels(self, name: str = LABEL) -> Codes:
        """The labels of a set."""
        if name not in self.label_sets:
            return Codes((), np.zeros(0, np.int64), np.zeros(len(self), np.int64))
        return self.codes(label_column(name))

    def classes(self) -> Codes:
        """One name per record: its label of the first set that it has, several as "a;b"; "" for none."""
        first: Any = None
        for name in filter(_is_label, self.table.column_names):
            column = self.column(name)
            texts = pc.binary_join(column, ";") if pa.types.is_list(column.type) else column.cast(pa.string())
            first = texts if first is None else pc.coalesce(first, texts)
        if first is None:
            return self.codes(LABEL)
        return Codes.of(pc.fill_null(first, ""))

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the second files that the examples have: "flow" for a column ``path.flow``."""
        return tuple(name.removeprefix(FILE) for name in self.table.column_names if name.startswith(FILE))

    def paths(self, file: str = "") -> Any:
        """Where the files are, or the second files called ``file``, as :func:`~tubelet.data.names.text_of` writes it.

        An Arrow array (N,) of text.
        """
        paths = self.column(FILE + file if file else "path")
        if self.folder in ("", "."):
            return paths
        whole = pc.binary_join_element_wise(text_of(self.folder.rstrip("/")), paths, "/")
        return pc.if_else(pc.starts_with(paths, "/"), paths, whole)

    def keys(self) -> Any:
        """What names the examples, or their paths where nothing does: an Arrow array (N,) of text."""
        if "key" not in self.table.column_names:
            return self.column("path")
        keys = self.column("key")
        return pc.if_else(pc.equal(keys, ""), self.paths(), keys)

    def sha256(self) -> str:
        """A fingerprint of the examples' keys, labels, times and captions, in this order; the same for every format."""
        digest = sha256()
        _digest_texts(digest, self.keys())
        for name in self.label_sets:
            labels = self.labels(name)
            digest.update(name.encode() + labels.counts.astype("<i8").tobytes())
            _digest_texts(digest, pa.array(labels.names).take(pa.array(labels.codes)))
        for name in self.files:
            digest.update(name.encode())
            _digest_texts(digest, pc.fill_null(self.column(FILE + name), ""))
        for name in ("start", "end"):
            none = -1.0 if name == "end" else 0.0
            column = self.column(name) if name in self.table.column_names else None
            times = np.full(len(self), none) if column is None else _numpy(pc.fill_null(column, none))
            digest.update(times.astype("<f8").tobytes())
        for name in filter(self.table.column_names.__contains__, ("text", "texts")):
            cells = self.column(name)
            if pa.types.is_list(cells.type):
                counts = _numpy(pc.fill_null(pc.list_value_length(cells), 0))
                cells = pc.list_flatten(cells)
            else:
                counts, cells = np.ones(len(cells)), pc.fill_null(cells, "")
            if pc.any(pc.not_equal(cells, "")).as_py():
                digest.update(name.encode() + counts.astype("<i8").tobytes())
                _digest_texts(digest, cells)
        return digest.hexdigest()

    def _rows(self) -> Any:
        return self.table if self.rows is None else self.table.take(pa.array(self.rows))

    def _record(self, cells: dict[str, Any]) -> Record:
        labels = {
            label_set(name): (cells[name],) if isinstance(cells[name], str) else tuple(cells[name])
            for name in cells
            if _is_label(name) and cells[name] is not None
        }
        path = cells["path"]
        paths = {
            name.removeprefix(FILE): self._path(cell)
            for name, cell in cells.items()
            if name.startswith(FILE) and cell is not None
        }
        values = {name: cells[name] for name in _DEFAULTS if cells.get(name) is not None}
        if "texts" in values:
            values["texts"] = tuple(values["texts"])
        return Record(
            path=self._path(path),
            labels=labels,
            paths=paths,
            **({"key": path} | values),
        )

    def _path(self, text: str) -> str:
        path = path_of(text)
        return str(Path(self.folder, path)) if self.folder else path


def label_column(name: str) -> str:
    """The column of a label set."""
    return LABEL if name == LABEL else f"{LABEL}.{name}"


def label_set(column: str) -> str:
    """The label set of a column."""
    return column if column == LABEL else column.removeprefix(f"{LABEL}.")


def _is_label(column: str) -> bool:
    return column == LABEL or column.startswith(f"{LABEL}.")


def _digest_texts(digest: Any, texts: Any) -> None:
    """Count the lengths and then the letters in."""
    for begin in range(0, len(texts), _DIGESTED):
        cells = [text.encode(errors="surrogateescape") for text in texts[begin : begin + _DIGESTED].to_pylist()]
        digest.update(np.array([len(cell) for cell in cells], "<i8").tobytes() + b"".join(cells))


def _single(column: Any) -> Any:
    """One array of a column that may be in chunks."""
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks() if column.num_chunks else pa.array([], column.type)
    return column


def _numpy(column: Any) -> NDArray[Any]:
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
