"""How large a picture, or a frame of a video, may be, so that no file takes all memory."""

from __future__ import annotations

import os
from pathlib import Path

from tubelet.media.errors import MediaError

MAX_PIXELS = "TUBELET_MAX_PIXELS"  # the environment variable
_USUAL = 2**26  # 8192 x 8192; a frame of 8K has half of it


def max_pixels() -> int:
    """The most pixels that a picture or a frame may be decoded to. Raises ValueError for a setting that is none."""
    setting = os.environ.get(MAX_PIXELS, "")
    if setting and not (setting.isdecimal() and int(setting)):
        raise ValueError(f"{MAX_PIXELS}={setting!r} must be a number of pixels, such as {_USUAL}")
    return int(setting or _USUAL)


def check_pixels(path: str | Path, width: int, height: int, share: int = 1) -> None:
    """Raises :class:`MediaError` for a picture or frame of so many pixels that it is not decoded.

    ``share``: the part of the limit that it may have, 1 / ``share``, as its pixels take more memory than others.
    """
    most = max_pixels() // share
    if width * height > most:
        reason = f"too large: {width}x{height} pixels, more than {most:,}; scale it down, or set {MAX_PIXELS}"
        raise MediaError(str(path), None, reason)
