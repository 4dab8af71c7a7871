"""What files are, beside what a manifest says of them."""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np

from tubelet.data.records import Record, Records
from tubelet.media.errors import MediaError
from tubelet.media.info import MediaInfo, probe

FACTS = ("duration", "fps", "width", "height")
"""The columns that an index caches, so that training need not look."""
SLACK = 0.05  # seconds by which a manifest may miss the length of a sound
_LARGE = 1 << 26  # bytes; to look at a file is to read all of it
_COMPARED = 4  # files


@lru_cache(maxsize=1024)
def glance(path: str) -> MediaInfo | None:
    """The facts of a file; None where it cannot be read, or is too large for a glance."""
    try:
        return probe(path) if os.path.getsize(path) <= _LARGE else None
    except (MediaError, OSError):
        return None


def contradiction(record: Record, info: MediaInfo) -> str:
    """What the record says of its file that isn't so, and how it is; "" where all is as it says."""
    slack = 1 / info.fps if info.fps else SLACK
    limits = {"duration": slack, "fps": 0.01 * info.fps, "width": 0, "height": 0}
    for name in FACTS:
        said, found = getattr(record, name), getattr(info, name)
        if said and abs(said - found) > limits[name]:
            return f"{name}={said:g}, but the file has {found:.6g}"
    return ""


def believed(path: str, records: Records) -> tuple[Records, list[str]]:
    """The records of the manifest ``path``, and a note where some of their files, spread over all, aren't as it says.

    Then nothing that it says of files is kept, and each is looked at when it is needed.
    """
    columns = [name for name in FACTS if name in records.table.column_names]
    if not columns:
        return records, []
    for place in np.unique(np.linspace(0, len(records) - 1, _COMPARED).astype(int)).tolist():
        record = records[place]
        info = glance(record.path)
        if info is not None and (wrong := contradiction(record, info)):
            note = (
                f"{path} says of {record.name} {wrong}: its columns {', '.join(columns)} are not used, and every file "
                f"is looked at, which takes longer; `tubelet data index {path}` mends it"
            )
            return Records(records.table.drop_columns(columns), records.rows, records.folder), [note]
    return records, []
