"""The lines that a run adds to its files as it goes: JSON, each whole by its line end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class DamagedRunError(RuntimeError):
    """A file of a run's folder is not as the run wrote it."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of a run, one per line; none where there is no file.

    A last line without its end, which a kill or a full disk leaves, is left out. Raises DamagedRunError, naming the
    line, for one that is no object.
    """
    return list(_records(path)) if path.exists() else []


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise DamagedRunError(
                f"{path}:{number}: is damaged (no JSON object): remove the line, and run the same command again"
            )
        yield record


def cut_unfinished(path: Path) -> None:
    """Remove a last line without its end, before more lines are added."""
    if path.exists():
        text = path.read_bytes()
        if not text.endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)


def as_line(record: dict[str, Any]) -> str:
    """A record as it stands in a file."""
    return json.dumps(record) + "\n"
