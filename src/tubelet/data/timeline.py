"""The part of a file that an example is, in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from tubelet.data.manifest import Record
from tubelet.media.errors import MediaError
from tubelet.media.info import probe


@dataclass(frozen=True)
class Timeline:
    """``start`` and ``length`` of the example, ``duration`` and frames per second of its file."""

    start: float
    length: float
    duration: float
    fps: float


class Timelines:
    """Timelines of records: from the manifest where an index has cached the file's facts, else by probing it once."""

    def __init__(self) -> None:
        self._probed: dict[str, tuple[float, float]] = {}

    def of(self, record: Record) -> Timeline:
        """Raises :class:`MediaError` where the file cannot be read, or ends before the example begins."""
        duration, fps = (record.duration, record.fps) if record.duration and record.fps else self._probe(record.path)
        end = duration if record.end is None else min(record.end, duration)
        if record.start >= end:
            raise MediaError(
                record.path,
                record.start,
                f"the example begins here, but the video ends at {duration:.3f} s; mend start",
            )
        return Timeline(record.start, end - record.start, duration, fps)

    def _probe(self, path: str) -> tuple[float, float]:
        if path not in self._probed:
            info = probe(path)
            if info.kind != "video":
                raise MediaError(path, None, f"a file of kind {info.kind!r}, where a video is needed")
            self._probed[path] = info.duration, info.fps
        return self._probed[path]
