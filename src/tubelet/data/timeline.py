"""The part of a file that an example is, in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from tubelet.data.manifest import Record
from tubelet.media.errors import MediaError, NoTrackError
from tubelet.media.info import MediaInfo, probe


@dataclass(frozen=True)
class Timeline:
    """``start`` and ``length`` of the example, ``duration`` and frames per second (0 without pictures) of its file."""

    start: float
    length: float
    duration: float
    fps: float


class Timelines:
    """Timelines of records: from the manifest where an index has cached the file's facts, else by probing it once."""

    def __init__(self) -> None:
        self._probed: dict[str, MediaInfo] = {}

    def of(self, record: Record) -> Timeline:
        """That of a video. Raises :class:`MediaError` where the file cannot be read, or ends before the example begins,
        or is no video."""
        if record.duration and record.fps:
            return _timeline(record, record.duration, record.fps)
        info = self._probe(record.path)
        if info.kind != "video":
            raise NoTrackError(record.path, None, f"a file of kind {info.kind!r}, where a video is needed")
        return _timeline(record, info.duration, info.fps)

    def of_sound(self, record: Record) -> Timeline:
        """That of a sound file, whose fps are 0, or of a video. Raises as :meth:`of`, for a file that is neither."""
        if record.duration:
            return _timeline(record, record.duration, record.fps)
        info = self._probe(record.path)
        if info.kind == "image":
            raise NoTrackError(record.path, None, "an image, where sound is needed: a sound file, or a video's track")
        return _timeline(record, info.duration, info.fps)

    def _probe(self, path: str) -> MediaInfo:
        if path not in self._probed:
            self._probed[path] = probe(path)
        return self._probed[path]


def _timeline(record: Record, duration: float, fps: float) -> Timeline:
    end = duration if record.end is None else min(record.end, duration)
    if record.start >= end:
        reason = f"the example begins here, but the file ends at {duration:.3f} s; mend start"
        raise MediaError(record.path, record.start, reason)
    return Timeline(record.start, end - record.start, duration, fps)
