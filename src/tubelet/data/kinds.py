"""What kind of media a file is, by its suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute

from tubelet.data.records import FILE, Codes, Record, Records

pc: Any = pyarrow.compute  # its functions are made when it is imported, which type checkers cannot see

Kind = Literal["image", "video", "audio"]

_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "video": (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".gif"),
    "image": (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".avif", ".webp", ".bmp", ".tif", ".tiff"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"),
}
_KINDS: dict[str, Kind] = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes}


def kind_of_file(path: str | Path) -> Kind | None:
    """None for a suffix that says nothing."""
    return _KINDS.get(Path(path).suffix.lower())


def kinds_of(records: Sequence[Record], file: str = "") -> dict[Kind | None, Record]:
    """The kinds of a data set's files by suffix, each with the first record of it; or of the second files ``file``."""
    records = Records.of(records)
    paths = records.column(FILE + file if file else "path")
    suffixes = Codes.of(pc.replace_substring_regex(paths, r"(?s)^.*?(\.[^./]*)?$", r"\1"))
    codes, first = np.unique(suffixes.codes, return_index=True)
    found: dict[Kind | None, Record] = {}
    for place, code in sorted(zip(first.tolist(), codes.tolist(), strict=True)):
        found.setdefault(_KINDS.get(suffixes.names[code].lower()), records[place])
    return found


def kind_of(records: Sequence[Record]) -> Kind:
    """The kind that all files of a data set are. Raises ValueError for a mixture, or where no suffix tells."""
    first: dict[Kind, str] = {kind: record.path for kind, record in kinds_of(records).items() if kind is not None}
    if len(first) > 1:
        found = ", ".join(f"{kind} ({path})" for kind, path in first.items())
        raise ValueError(
            f"files of several kinds: {found}; keep one kind in a folder or manifest, and train on several of them "
            "together if you want them all"
        )
    if not first:
        example = f", such as {records[0].path}" if records else ""
        raise ValueError(f"no file whose suffix tells its kind{example}; those known are {' '.join(_KINDS)}")
    return next(iter(first))
