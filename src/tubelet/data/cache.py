"""Frames, pictures and sound kept in memory. What is read never depends on what is kept, nor on how much fits."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from tubelet.media.audio import read_audio
from tubelet.media.errors import MediaError
from tubelet.media.images import read_image
from tubelet.media.video import Decoder, FrameBatch, frames_at_once, in_batches, open_video

_BEFORE = 1e-3  # seconds before the next frame at which a frame is asked for when a whole video is read


@dataclass
class _Seen:
    """A frame, and the span of time in which it is known to be on screen: from its own to the latest it came for."""

    start: float
    end: float
    frame: UInt8[Tensor, "H W C"]


class VideoReader:
    """Frames of many videos by time, of which up to ``cache_gib`` GiB are kept as they were decoded.

    The cache is filled until it is full, whole videos first come, and answers only where it is certain: where every
    time lies between a frame's own and one for which the decoder gave that frame. Each process has its own.
    """

    def __init__(self, cache_gib: float = 0.0) -> None:
        if cache_gib < 0:
            raise ValueError(f"{cache_gib=} must be at least 0")
        self.room = int(cache_gib * 2**30)  # bytes
        self._videos: dict[str, list[_Seen]] = {}
        self._too_large: set[str] = set()

    def batches(
        self, path: str, times: Sequence[float], duration: float, fps: float
    ) -> Iterator[UInt8[Tensor, "t C H W"]]:
        """The frames on screen at ``times``, a few at once; ``duration`` and ``fps`` are the file's.

        Raises :class:`MediaError`.
        """
        if (kept := self._kept(path, times)) is None:
            with open_video(path) as video:
                if self.room and path not in self._videos and path not in self._too_large:
                    self._read_whole(path, video, duration, fps)
                    kept = self._kept(path, times)
                if kept is None:
                    yield from self._read(path, video, times)
        if kept is not None:
            count = frames_at_once(*kept[0].shape[:2])
            for first in range(0, len(kept), count):
                yield torch.stack(kept[first : first + count]).permute(0, 3, 1, 2)

    def _read(self, path: str, video: Decoder, times: Sequence[float]) -> Iterator[UInt8[Tensor, "t C H W"]]:
        done = 0
        for batch in in_batches(video, times):
            if path in self._videos:
                self._keep(path, times[done : done + len(batch.pts)], batch)
            done += len(batch.pts)
            yield batch.frames

    def _read_whole(self, path: str, video: Decoder, duration: float, fps: float) -> None:
        """Keep all frames of a video, if there is room for as many as its first one says; tried once."""
        height, width = video.size
        if 3 * height * width * fps * duration > self.room:
            self._too_large.add(path)
            return
        self._videos[path] = []
        times = [(i + 1) / fps - _BEFORE for i in range(round(fps * duration))]
        with suppress(MediaError):  # only a part of it can be read, and what is wanted of that is kept
            for _ in self._read(path, video, times):
                pass

    def _kept(self, path: str, times: Sequence[float]) -> list[UInt8[Tensor, "H W C"]] | None:
        seen, frames = self._videos.get(path, []), list[Tensor]()
        for time in times:
            at = bisect_right(seen, time, key=attrgetter("start")) - 1
            if at < 0 or time > seen[at].end:
                return None
            frames.append(seen[at].frame)
        return frames

    def _keep(self, path: str, times: Sequence[float], batch: FrameBatch) -> None:
        seen = self._videos[path]
        for time, start, frame in zip(times, batch.pts.tolist(), batch.frames, strict=True):
            at = bisect_right(seen, start, key=attrgetter("start")) - 1
            if at >= 0 and seen[at].start == start:
                seen[at].end = max(seen[at].end, time)
            elif frame.numel() <= self.room:
                self.room -= frame.numel()
                insort(seen, _Seen(start, time, frame.permute(1, 2, 0).clone()), key=attrgetter("start"))


class _Reader:
    """Whatever is read from files, of which up to ``cache_gib`` GiB are kept. Each process has its own."""

    def __init__(self, cache_gib: float = 0.0) -> None:
        if cache_gib < 0:
            raise ValueError(f"{cache_gib=} must be at least 0")
        self.room = int(cache_gib * 2**30)  # bytes
        self._kept: dict[tuple[str | float, ...], Tensor] = {}

    def _read(self, read: Callable[..., Tensor], *what: str | float) -> Tensor:
        if what in self._kept:
            return self._kept[what]
        found = read(*what)
        if found.nbytes <= self.room:
            self.room -= found.nbytes
            self._kept[what] = found
        return found


class SoundReader(_Reader):
    """Spans of files' sound, of which up to ``cache_gib`` GiB are kept. Each process has its own."""

    def samples(self, path: str, start: float, end: float, rate: int) -> Float32[Tensor, " S"]:
        """What :func:`read_audio` gives."""
        return self._read(read_audio, path, start, end, rate)


class ImageReader(_Reader):
    """Pictures, of which up to ``cache_gib`` GiB are kept as they were decoded. Each process has its own."""

    def image(self, path: str, short_side: int) -> UInt8[Tensor, "3 H W"]:
        """What :func:`read_image` gives."""
        return self._read(read_image, path, short_side)
