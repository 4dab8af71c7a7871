"""Files that are there whole or not at all: written beside, brought to the disk, and renamed."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def written_beside(path: str | Path) -> Generator[Path]:
    """A path beside ``path``, with its suffix, to write a file or a folder to; it is renamed to ``path`` at the end.

    Until then ``path`` is as it was, whatever happens: after an error what was written is removed, and a kill or a
    power cut leaves the old file, or the whole new one. A link stays, and what it leads to is replaced. A folder cannot
    replace one that has files. Raises OSError, such as on a full disk, that names ``path``.
    """
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".new-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield beside
        bring_to_disk(beside)
        beside.replace(path)
    except BaseException as error:
        remove(beside)
        if isinstance(error, OSError) and error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
    bring_to_disk(path.parent, deep=False)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full, in Python's way or in that of safetensors."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)


def write_text(path: str | Path, text: str) -> None:
    """Write a file of UTF-8 text whole or not at all. Bytes of file names that are no text become JSON's escapes."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, data: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def bring_to_disk(path: Path, *, deep: bool = True) -> None:
    """Wait until a file, or a folder with (``deep``) or without what is in it, would outlast a power cut."""
    if not path.is_dir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        return
    for inner in path.iterdir() if deep else ():
        bring_to_disk(inner)
    with suppress(OSError):  # not every file system can do this for the names in a folder
        names = os.open(path, os.O_RDONLY)
        try:
            os.fsync(names)
        finally:
            os.close(names)


def remove(path: Path) -> None:
    """Remove a file, or a folder with what is in it, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
