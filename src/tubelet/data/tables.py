"""Tables on disk, CSV, JSONL, Parquet and Arrow, read as columns; where a row is wrong, its line is looked up."""

from __future__ import annotations

import codecs
import csv
import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tubelet.data.names import text_of
from tubelet.writing import written_beside

pc: Any = pyarrow.compute  # its functions are made when it is imported, which type checkers cannot see

SEPARATOR = ";"
LISTS = "labels", "texts"  # the columns whose cells hold several values
_WAY_OUT = "a manifest ends with .csv, .jsonl, .parquet or .arrow, or is a folder of class folders"
_INDEX = ("", "__index_level_0__")  # what data frames call the column of their index
_BLOCK = 1 << 20  # bytes
_PROSE = ("text", "error")  # the columns of long texts, and those whose names begin so
_LONGEST, _LONGEST_PROSE = 4_096, 100_000  # letters in a cell; no path has more than 4,096
_NESTED = 64  # brackets in a line of JSON; Arrow ends the process where thousands are nested
_SHOWN = 60  # letters of a cell in an error
_HALVES = re.compile("[\ud800-\udfff]")

csv.field_size_limit(2**31 - 1)  # a cell that is too long is an error of its line, however long it is


class ManifestError(ValueError):
    """What is wrong with a manifest: ``path``, ``line`` (from 1; None: the whole file), ``reason`` and the way out."""

    def __init__(self, path: str, line: int | None, reason: str) -> None:
        super().__init__(path, line, reason)
        self.path, self.line, self.reason = path, line, reason

    def __str__(self) -> str:
        return f"{self.path}{'' if self.line is None else f', line {self.line}'}: {self.reason}"


@dataclass(frozen=True)
class Table:
    """The cells of a file. ``line`` gives the line of a row, ``named`` the line that first names a column."""

    path: str
    cells: Any
    line: Callable[[int], int]
    named: Callable[[str], int]

    @property
    def columns(self) -> list[str]:
        return self.cells.column_names

    def error(self, row: int, reason: str) -> ManifestError:
        return ManifestError(self.path, self.line(row), reason)

    def text(self, column: str) -> Any:
        """A column as stripped text, "" where a cell is empty: an Arrow array."""
        cells = self._array(column)
        if pa.types.is_nested(cells.type):
            row = first(pc.is_valid(cells))
            if row is not None:
                raise self.error(row, f"column {column!r} must hold one value, not {shown(cells[row].as_py())}")
        texts = _stripped(_text(cells))
        self._check_length(column, texts)
        return texts

    def texts(self, column: str) -> Any:
        """Several values in a cell, a list or text with ";" between them, without the empty ones: an array of lists."""
        cells = self._array(column)
        if not pa.types.is_list(cells.type) and not pa.types.is_large_list(cells.type):
            cells = pc.split_pattern(self.text(column), SEPARATOR)
        texts = self._full(cells)
        self._check_length(column, texts.values, texts)
        return texts

    def together(self, columns: Sequence[str]) -> Any:
        """The cells of several columns of text, row by row, without the empty ones: an array of lists."""
        rows, count = len(self.cells), len(columns)
        places = np.arange(rows * count).reshape(count, rows).T.ravel()
        values = pa.concat_arrays([self.text(column) for column in columns]).take(pa.array(places))
        return self._full(pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * count), values))

    def _full(self, cells: Any) -> Any:
        """Lists without empty texts."""
        owners, values = pc.list_parent_indices(cells), _stripped(_text(pc.list_flatten(cells)))
        full = pc.not_equal(values, "")
        counts = np.bincount(owners.filter(full).to_numpy().astype(np.int64), minlength=len(cells))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values.filter(full))

    def _check_length(self, column: str, texts: Any, lists: Any = None) -> None:
        """Raises for a text that is longer than any that makes sense; ``lists``: the cells that the texts stand in."""
        most = _LONGEST_PROSE if column.startswith(_PROSE) else _LONGEST
        lengths = pc.utf8_length(texts)
        if (place := first(pc.greater(lengths, most))) is not None:
            row = place if lists is None else pc.list_parent_indices(lists)[place].as_py()
            reason = f"a cell of {lengths[place].as_py():,} letters, {shown(texts[place].as_py())}, where {most:,} are "
            raise self.error(row, f"column {column!r} has {reason}the most; is a quote or a line end missing?")

    def number(self, column: str, most: float) -> Any:
        """A column as numbers from 0 to ``most``, null where a cell is empty or NaN: an Arrow array."""
        cells = self._array(column)
        if not pa.types.is_integer(cells.type) and not pa.types.is_floating(cells.type):
            text = self.text(column)
            cells = pc.if_else(pc.equal(text, ""), None, text)
        try:
            numbers = pc.cast(cells, pa.float64())
        except pa.ArrowInvalid:
            numbers = pa.array([self._number(column, row, text) for row, text in enumerate(cells.to_pylist())])
        numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
        row = first(pc.or_(pc.less(numbers, 0), pc.greater(numbers, most)))
        if row is not None:
            number = numbers[row].as_py()
            limit = f"number of at most {most:,.0f}" if most < number < math.inf else "finite number of at least 0"
            raise self.error(row, f"column {column!r} must hold a {limit}, not {number:g}")
        return numbers

    def _number(self, column: str, row: int, text: str | None) -> float | None:
        try:
            return None if text is None else float(text)
        except ValueError:
            hint = "; write a point, not a comma" if re.fullmatch(r"\d+,\d+", text or "") else ""
            raise self.error(row, f"column {column!r} must hold a number, not {shown(text)}{hint}") from None

    def _array(self, column: str) -> Any:
        cells = self.cells[column]
        if pa.types.is_dictionary(cells.type):
            cells = cells.cast(cells.type.value_type)
        return cells.combine_chunks() if cells.num_chunks != 1 else cells.chunk(0)


def shown(value: Any) -> str:
    """A cell as an error shows it: no longer than a line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def first(mask: Any) -> int | None:
    """The first row in which an Arrow mask is true."""
    row = pc.index(mask, True).as_py()
    return None if row < 0 else row


def _text(cells: Any) -> Any:
    """Whatever the cells hold as text; NaN, as data frames write a missing text, is empty."""
    if pa.types.is_string(cells.type):
        return cells
    if pa.types.is_integer(cells.type) or pa.types.is_large_string(cells.type) or pa.types.is_null(cells.type):
        return cells.cast(pa.string())
    encoded = cells.dictionary_encode()
    texts = [None if value is None or value != value else str(value) for value in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _stripped(texts: Any) -> Any:
    texts = pc.fill_null(texts, "") if texts.null_count else texts
    stripped = pc.utf8_trim_whitespace(texts)
    return texts if stripped.equals(texts) else stripped


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint such as "; did you mean 'path'?", or nothing."""
    close = difflib.get_close_matches(name.lower(), list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def read(path: Path, numbers: Sequence[str] = ()) -> Table:
    """The columns of a table; one without a name, as data frames write their index, is left out.

    ``numbers``: the columns that hold numbers in JSON.

    Raises :class:`ManifestError`.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet, ".arrow": _read_arrow}
    if not path.is_file():
        raise ManifestError(str(path), None, "no such file or folder")
    if path.suffix.lower() not in readers:
        raise ManifestError(str(path), None, f"not a kind of manifest that can be read; {_WAY_OUT}")
    try:
        table = readers[path.suffix.lower()](path, numbers)
    except UnicodeDecodeError as error:
        line, what = _not_utf8(path)
        raise ManifestError(str(path), line, f"{what}; save it as UTF-8") from error
    unnamed = [name for name in table.columns if name in _INDEX]
    return Table(table.path, table.cells.drop_columns(unnamed), table.line, table.named) if unnamed else table


def _not_utf8(path: Path) -> tuple[int | None, str]:
    """The first line that is not UTF-8, and what it is instead."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return None, 'UTF-16, as spreadsheets save their "Unicode text"'
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number, f"not UTF-8 text: the byte 0x{line[error.start]:02x} is no letter"
    return None, "not UTF-8 text"


def write(path: Path, table: Any) -> None:
    """Write an Arrow table in the format that ``path`` ends with, without the columns that are all empty or 0.

    What goes wrong leaves an older file as it is.
    """
    writers = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet, ".arrow": _write_arrow}
    if path.suffix.lower() not in writers:
        raise ManifestError(str(path), None, f"not a kind of manifest that can be written; {_WAY_OUT}")
    used = table.select([name for name in table.column_names if _used(table[name])])
    try:
        with written_beside(path) as beside:
            writers[path.suffix.lower()](beside, used)
    except ManifestError as error:
        raise ManifestError(str(path), error.line, error.reason) from error


def _used(column: Any) -> bool:
    if pa.types.is_list(column.type):
        return bool(pc.any(pc.greater(pc.list_value_length(column), 0)).as_py())
    return bool(pc.any(pc.not_equal(column, "" if pa.types.is_string(column.type) else 0)).as_py())


# CSV


def _read_csv(path: Path, numbers: Sequence[str]) -> Table:
    from pyarrow import csv as arrow

    header = _header(path)
    columns = [name.strip() for name in header]
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise ManifestError(str(path), 1, f"two columns are named {shown(twice[0])}; keep one of them")
    for separator, name in {SEPARATOR: "';'", "\t": "tabs", "|": "'|'"}.items():
        if "path" not in columns and any("path" in map(str.strip, column.split(separator)) for column in columns):
            raise ManifestError(str(path), 1, f"the cells are separated by {name}; save it with commas")
    if "\0" in "".join(columns):
        raise ManifestError(str(path), 1, "its letters have zeros between them, as UTF-16 has; save it as UTF-8")
    try:
        if _quotes(path) % 2:
            _check_csv(path)
        cells = arrow.read_csv(
            path,
            parse_options=arrow.ParseOptions(newlines_in_values=True),
            convert_options=arrow.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
        ).rename_columns(columns)
    except pa.ArrowException as error:
        _check_csv(path)
        if not columns:
            return Table(str(path), pa.table({}), lambda row: 1, lambda column: 1)
        raise ManifestError(str(path), None, f"not a CSV table ({error})") from error
    return Table(str(path), cells, lambda row: next(islice(_csv_rows(path), row + 1, None))[0], lambda column: 1)


def _header(path: Path) -> list[str]:
    try:
        return next(_csv_rows(path), (1, list[str]()))[1]
    except csv.Error as error:
        raise ManifestError(str(path), 1, f"not a CSV table ({error})") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line that each row begins in, and its cells; empty lines are no rows."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows, end = csv.reader(file), 0
        for cells in rows:
            start, end = end + 1, rows.line_num
            if cells:
                yield start, cells


def _quotes(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b'"') for block in iter(lambda: file.read(_BLOCK), b""))


def _check_csv(path: Path) -> None:
    """Raises :class:`ManifestError` for the first row that has too many or too few cells, or never closes a quote."""
    end, columns = 0, 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            for cells in rows:
                start, end = end + 1, rows.line_num
                columns = columns or len(cells)
                if cells and len(cells) != columns:
                    reason = f"{len(cells)} cells where the first line names {columns} columns; quote cells with commas"
                    raise ManifestError(str(path), start, reason)
        except csv.Error as error:
            reason = f"a quote is opened and not closed ({error}); write a quote within a quoted cell twice"
            raise ManifestError(str(path), end + 1, reason) from error


def _write_csv(path: Path, table: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows([_csv_cell(path, cell) for cell in row.values()] for row in _rows(table))


def _csv_cell(path: Path, value: Any) -> Any:
    if not isinstance(value, list):
        return "" if value is None else value
    if any(SEPARATOR in item for item in value):
        reason = f"{value} cannot be told apart by {SEPARATOR!r}; write .jsonl, .parquet or .arrow"
        raise ManifestError(str(path), None, reason)
    return SEPARATOR.join(value)


# JSONL


def _read_jsonl(path: Path, numbers: Sequence[str]) -> Table:
    cells = _arrow_jsonl(path, numbers)
    return Table(
        str(path),
        _jsonl_cells(path) if cells is None else cells,
        lambda row: next(islice(_jsonl_rows(path), row, None))[0],
        lambda column: next((line for line, row in _jsonl_rows(path) if column in row), 1),
    )


def _arrow_jsonl(path: Path, numbers: Sequence[str]) -> Any:
    """The cells as Arrow reads them; None where it would not keep every text and number as it is written."""
    from pyarrow import json as arrow

    with path.open("rb") as lines:
        if any(line.count(b"[") + line.count(b"{") > _NESTED for line in lines):
            return None
    try:
        with path.open(encoding="utf-8") as file:
            head = json.loads(next((line for line in file if line.strip()), "{}"))
        types = {name: pa.float64() if name in numbers else pa.string() for name in head if name not in LISTS}
        options = arrow.ParseOptions(explicit_schema=pa.schema(list(types.items())))
        cells = arrow.read_json(path, parse_options=options)
        cells.validate(full=True)
    except (ValueError, TypeError, RecursionError, pa.ArrowException):  # what is wrong is found by line
        return None
    kept = all(
        pa.types.is_string(kind) or kind == pa.list_(pa.string()) or name in numbers
        for name, kind in zip(cells.schema.names, cells.schema.types, strict=True)
    )
    return cells if kept else None


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each object and its line. Raises :class:`ManifestError` for a line that is none."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except RecursionError as error:
                reason = "lists or objects are nested too deep; a cell holds a value, or a list of texts"
                raise ManifestError(str(path), number, reason) from error
            except ValueError as error:
                why = error if isinstance(error, json.JSONDecodeError) else "a number of thousands of digits"
                raise ManifestError(str(path), number, f"not JSON ({why}); write one object per line") from error
            if not isinstance(cells, dict):
                raise ManifestError(str(path), number, "not an object; write one {...} per line")
            yield number, cells


def _jsonl_cells(path: Path) -> Any:
    """All cells as text, those of ``LISTS`` as lists of it."""
    columns: dict[str, list[Any]] = {}
    for count, (line, cells) in enumerate(_jsonl_rows(path)):
        for name in cells.keys() - columns.keys():
            columns[name] = [None] * count
        for name, column in columns.items():
            value = cells.get(name)
            if name in LISTS:
                if name != "labels" and not isinstance(value, list | None):
                    raise ManifestError(str(path), line, f"column {name!r} must hold a list, not {shown(value)}")
                value = value if isinstance(value, list) else str(value or "").split(SEPARATOR)
                if strange := [item for item in value if isinstance(item, list | dict)]:
                    raise ManifestError(str(path), line, f"column {name!r} must hold texts, not {shown(strange[0])}")
                value = [_letters(path, line, name, str(item)) for item in value]
            elif isinstance(value, list | dict):
                raise ManifestError(str(path), line, f"column {name!r} must hold one value, not {shown(value)}")
            missing = value is None or (isinstance(value, float) and math.isnan(value))
            column.append(None if missing else value if name in LISTS else _letters(path, line, name, str(value)))
    types = {name: pa.list_(pa.string()) if name in LISTS else pa.string() for name in columns}
    return pa.table({name: pa.array(column, types[name]) for name, column in columns.items()})


def _letters(path: Path, line: int, column: str, text: str) -> str:
    r"""The text; bytes of a file name that Python could not read as letters, "\udce9", are written as names are."""
    if not _HALVES.search(text):
        return text
    try:
        text.encode(errors="surrogateescape")
        return text_of(text)
    except UnicodeEncodeError as error:
        reason = f"column {column!r} has half a letter in it, {shown(text)}; write whole ones"
        raise ManifestError(str(path), line, reason) from error


def _write_jsonl(path: Path, table: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in _rows(table):
            cells = {name: value for name, value in row.items() if value not in (None, "")}
            file.write(json.dumps(cells, ensure_ascii=False) + "\n")


# Parquet and Arrow


def _read_parquet(path: Path, numbers: Sequence[str]) -> Table:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(str(path), None, f"not a Parquet file ({error})") from error
    return Table(str(path), table, lambda row: row + 1, lambda column: 1)


def _read_arrow(path: Path, numbers: Sequence[str]) -> Table:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(str(path), None, f"not an Arrow file ({error})") from error
    return Table(str(path), table, lambda row: row + 1, lambda column: 1)


def _write_parquet(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path)


def _write_arrow(path: Path, table: Any) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(batch.to_pylist() for batch in table.to_batches(max_chunksize=1024))
