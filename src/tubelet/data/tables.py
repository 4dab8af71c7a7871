"""Tables of text on disk: CSV, JSONL and Parquet, read row by row with the line that each row stands in."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEPARATOR = ";"
_WAY_OUT = "a manifest ends with .csv, .jsonl or .parquet, or is a folder of class folders"


class ManifestError(ValueError):
    """What is wrong with a manifest: ``path``, ``line`` (from 1; None: the whole file), ``reason`` and the way out."""

    def __init__(self, path: str, line: int | None, reason: str) -> None:
        super().__init__(path, line, reason)
        self.path, self.line, self.reason = path, line, reason

    def __str__(self) -> str:
        return f"{self.path}{'' if self.line is None else f', line {self.line}'}: {self.reason}"


@dataclass(frozen=True)
class Row:
    """The cells of one row by column, and where it stands."""

    path: str
    line: int
    cells: Mapping[str, Any]

    def error(self, reason: str) -> ManifestError:
        return ManifestError(self.path, self.line, reason)

    def text(self, column: str) -> str:
        value = self.cells.get(column)
        if isinstance(value, list | dict):
            raise self.error(f"column {column!r} must hold one value, not {value}")
        return "" if value is None else str(value).strip()

    def texts(self, column: str) -> tuple[str, ...]:
        """Several values: a list, or text with ";" between them; empty ones are dropped."""
        value = self.cells.get(column)
        values = value if isinstance(value, list) else self.text(column).split(SEPARATOR)
        return tuple(text for text in (str(item).strip() for item in values) if text)

    def number(self, column: str) -> float | None:
        text = self.text(column)
        try:
            return float(text) if text else None
        except ValueError:
            raise self.error(f"column {column!r} must hold a number, not {text!r}") from None


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint such as "; did you mean 'path'?", or nothing."""
    close = difflib.get_close_matches(name.lower(), list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def read(path: Path) -> tuple[dict[str, int], list[Row]]:
    """The columns of a table, each with the line that first names it, and its rows. Raises :class:`ManifestError`."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if not path.is_file():
        raise ManifestError(str(path), None, "no such file or folder")
    if path.suffix.lower() not in readers:
        raise ManifestError(str(path), None, f"not a kind of manifest that can be read; {_WAY_OUT}")
    try:
        return readers[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise ManifestError(str(path), None, f"not UTF-8 text ({error}); save it as UTF-8") from error


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows in the format that ``path`` ends with; columns in which every cell is empty or 0 are left out."""
    writers = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if path.suffix.lower() not in writers:
        raise ManifestError(str(path), None, f"not a kind of manifest that can be written; {_WAY_OUT}")
    used = dict.fromkeys(column for row in rows for column, value in row.items() if value)
    writers[path.suffix.lower()](path, list(used), [{column: row.get(column) for column in used} for row in rows])


def _read_csv(path: Path) -> tuple[dict[str, int], list[Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        columns = [name.strip() for name in next(lines, [])]
        if len(set(columns)) < len(columns):
            raise ManifestError(str(path), 1, f"a column is named twice: {', '.join(columns)}")
        rows: list[Row] = []
        end = lines.line_num
        for cells in lines:
            start, end = end + 1, lines.line_num
            if cells and len(cells) != len(columns):
                reason = (
                    f"{len(cells)} cells where the first line names {len(columns)} columns; quote cells with commas"
                )
                raise ManifestError(str(path), start, reason)
            if cells:
                rows.append(Row(str(path), start, dict(zip(columns, cells, strict=True))))
    return dict.fromkeys(columns, 1), rows


def _read_jsonl(path: Path) -> tuple[dict[str, int], list[Row]]:
    rows: list[Row] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(str(path), number, f"not JSON ({error}); write one object per line") from error
        if not isinstance(cells, dict):
            raise ManifestError(str(path), number, "not an object; write one {...} per line")
        rows.append(Row(str(path), number, cells))
    return {column: row.line for row in reversed(rows) for column in row.cells}, rows


def _read_parquet(path: Path) -> tuple[dict[str, int], list[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(str(path), None, f"not a Parquet file ({error})") from error
    rows = [Row(str(path), number, cells) for number, cells in enumerate(table.to_pylist(), 1)]
    return dict.fromkeys(table.column_names, 1), rows


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_csv_cell(path, row[column]) for column in columns] for row in rows)


def _csv_cell(path: Path, value: Any) -> Any:
    if not isinstance(value, list):
        return "" if value is None else value
    if any(SEPARATOR in item for item in value):
        raise ManifestError(str(path), None, f"{value} cannot be told apart by {SEPARATOR!r}; write .jsonl or .parquet")
    return SEPARATOR.join(value)


def _write_jsonl(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            cells = {column: row[column] for column in columns if row[column] not in (None, "")}
            file.write(json.dumps(cells, ensure_ascii=False) + "\n")


def _write_parquet(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({column: [row[column] for row in rows] for column in columns}), path)
