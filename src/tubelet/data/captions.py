"""The captions of a file, and those that are nearest to a clip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

from tubelet.media.subtitles import SUFFIXES, Caption, has_track, read_subtitles, read_track, subtitles_beside
from tubelet.media.words import words_of

_FILES = 1024  # whose captions a process keeps


def subtitles_of(path: str) -> tuple[Caption, ...]:
    """The captions that have words: of a subtitle file, of the one beside a media file, or of its own track; else none.

    Those of the last files are kept. Raises :class:`MediaError` where a file cannot be read.
    """
    file = path if path.lower().endswith(SUFFIXES) else (subtitles_beside(path) or path)
    return _read(file, os.stat(file).st_mtime_ns if os.path.exists(file) else 0)


def has_subtitles(path: str) -> bool:
    """Whether there is a subtitle file beside a media file, or a track of text in it."""
    return subtitles_beside(path) is not None or has_track(path)


@lru_cache(maxsize=_FILES)
def _read(file: str, changed: int) -> tuple[Caption, ...]:
    """``changed`` tells apart what has the same path."""
    found = read_subtitles(file) if file.lower().endswith(SUFFIXES) else read_track(file)
    return tuple(caption for caption in found.captions if words_of(caption.text))


def nearest(captions: Sequence[Caption], time: float, count: int) -> list[Caption]:
    """The ``count`` captions that are nearest to ``time``, in their order.

    The distance is that to the span in which a caption is shown, which is 0 while it is; of several that are shown,
    those whose middle is nearer.
    """

    def distance(caption: Caption) -> tuple[float, float]:
        start, end, _ = caption
        return max(0.0, start - time, time - end), abs((start + end) / 2 - time)

    return sorted(sorted(captions, key=distance)[:count], key=lambda caption: caption[:2])
