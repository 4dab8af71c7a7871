"""The decoder that is always available: PyAV, with the FFmpeg inside its wheel."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float32
from torch import Tensor

from tubelet.media.audio import read_audio
from tubelet.media.containers import FFMPEG_ERRORS, WAY_OUT, demuxing, describe, open_input, reading
from tubelet.media.damage import LONGEST_REORDER, DamageTracker
from tubelet.media.errors import MediaError
from tubelet.media.info import MediaInfo, probe, rotation_of
from tubelet.media.streams import display_size, frame_ticks, stores_no_pts, video_stream
from tubelet.media.video import FrameBatch

_LONG_GAP = 10.0  # seconds: where a file has no index, a wanted time this far ahead is worth a seek
_LARGEST = 4096 * 2304  # pixels of the frames that are given: 4K; larger ones are halved until they are not
_GUESSED_AFTER_SEEK = ("mpeg",)  # program streams store few times; the others FFmpeg counts from where it starts


@dataclass(frozen=True)
class _Frame:
    """A decoded frame on the stream's clock, in ticks."""

    start: int
    end: int
    picture: VideoFrame
    whole: bool  # neither this frame nor one it may refer to was damaged


class _WrongPtsError(Exception):
    """Presentation times fell while frames came out in presentation order: the file's pts are wrong."""


class PyAVDecoder:
    """See :class:`tubelet.media.video.Decoder`. One seek to the keyframe before, then forward.

    FFmpeg conceals damage; here a damaged frame, and every frame after it up to the next whole keyframe, is an error.
    Where pts fall in presentation order (AVI stores none, and some muxers write decoding times), dts are the clock.

    ``format``: FFmpeg's name of the container; ``by_dts``: that dts are the clock; ``zero``: time 0 in seconds on the
    container's clock; ``slack``: what "at" forgives, half a tick or half a millisecond; ``scaled``: that frames are
    given in another size than they are stored in, as pixels are not square or too many.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        self.path = str(path)
        self._threads = threads
        self._info: MediaInfo | None = None
        self._rgb = VideoReformatter()
        self._decoded = self._decode()
        with reading(path):
            self._container = open_input(path)
            try:
                self._stream = video_stream(self._container, path, threads)
                self.by_dts = stores_no_pts(self._container)
                self.format: str = self._container.format.name
                self._start()
                self._check_pts()
            except BaseException:
                self.close()
                raise

    @property
    def size(self) -> tuple[int, int]:
        return (self._width, self._height) if self._rotation % 180 else (self._height, self._width)

    def probe(self) -> MediaInfo:
        self._info = self._info or probe(self.path)
        return self._info

    def frames_at(self, times: Sequence[float]) -> FrameBatch:
        if not len(times):
            raise ValueError("frames_at needs at least one time")
        with reading(self.path):
            try:
                return self._frames_at(times)
            except _WrongPtsError:
                self.by_dts = True
                self._reopen()
                return self._frames_at(times)

    def audio(self, start: float, end: float, rate: int) -> Float32[Tensor, " S"]:
        return read_audio(self.path, start, end, rate, zero=self.zero)

    def close(self) -> None:
        self._shown = self._ahead = None
        self._decoded.close()
        self._container.close()

    def __enter__(self) -> PyAVDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _frames_at(self, times: Sequence[float]) -> FrameBatch:
        order = sorted(range(len(times)), key=times.__getitem__)
        frames: np.ndarray | None = None
        pts = torch.empty(len(times), dtype=torch.float64)
        last: _Frame | None = None
        row = 0
        for index in order:
            frame = self._frame_at(times[index])
            pts[index] = self._seconds(frame.start)
            if frame is last and frames is not None:
                frames[index] = frames[row]
            else:
                picture = self._upright_rgb(frame.picture)
                if frames is None:
                    frames = np.empty((len(times), *picture.shape), np.uint8)
                frames[index] = picture
            last, row = frame, index
        return FrameBatch(torch.from_numpy(frames).permute(0, 3, 1, 2), pts)

    def _upright_rgb(self, picture: VideoFrame) -> np.ndarray:
        """(H, W, 3) of one size, whatever the size of the frame, which may change within a stream."""
        size = {"width": self._width, "height": self._height}
        rgb = self._rgb.reformat(picture, **size, format="rgb24", threads=self._threads).to_ndarray()
        return np.rot90(rgb, -self._rotation // 90) if self._rotation else rgb

    def _frame_at(self, time: float) -> _Frame:
        if not (math.isfinite(time) and time >= 0):
            raise MediaError(self.path, time, "not a time of this video; its first frame is at 0 s")
        target = self._zero + math.floor((time + self.slack) / float(self._tick))
        if self._must_seek(target):
            self._seek(target)
        while self._ahead is None or self._ahead.start <= target:
            self._shown = self._ahead or self._shown
            self._ahead = next(self._decoded, None)
            if self._ahead is None:
                break
        return self._checked(self._shown, target, time)

    def _checked(self, frame: _Frame | None, target: int, time: float) -> _Frame:
        if frame is None:
            raise MediaError(self.path, time, f"the data up to this time cannot be decoded; {WAY_OUT}")
        if not frame.whole or any(frame.start < hole <= target for hole in self._holes):
            raise MediaError(self.path, time, f"the data of this frame, or of one it builds on, are damaged; {WAY_OUT}")
        asked = self._zero + math.floor(time / float(self._tick))  # without the slack, which may reach past the end
        if self._ahead is None and min(target, asked) >= frame.end:
            raise MediaError(self.path, time, self._why_over(self._seconds(frame.end)))
        return frame

    def _seconds(self, ticks: int) -> float:
        return (ticks - self._zero) * float(self._tick)

    def _why_over(self, end: float) -> str:
        promised = float((self._stream.duration or 0) * self._tick)
        if self._failure is not None:
            return f"the file cannot be read past {end:.3f} s ({self._failure}); {WAY_OUT}"
        if promised > end + 1 and not self.by_dts:
            return f"the pictures end at {end:.3f} s though the header promises {promised:.3f} s; {WAY_OUT}"
        return f"the video ends at {end:.3f} s; ask for earlier times (probe() gives the duration)"

    def _must_seek(self, target: int) -> bool:
        here = self._shown or self._ahead
        if here is None or target < here.start:
            return True
        if self._ahead is None or target <= self._ahead.start or self.format in _GUESSED_AFTER_SEEK:
            return False
        index = self._stream.index_entries
        if len(index) and index[-1].timestamp >= target:
            entry = index.search_timestamp(target - LONGEST_REORDER * self._usual)  # the index counts in dts
            return entry >= 0 and index[entry].timestamp > self._ahead.start
        return (target - self._ahead.start) * float(self._tick) > _LONG_GAP

    def _seek(self, target: int) -> None:
        """Stand at a frame at or before ``target``; containers seek by dts, so a keyframe found may lie after it."""
        back = 0
        while self.format not in _GUESSED_AFTER_SEEK and target - back > self._zero:
            try:
                self._container.seek(target - back, stream=self._stream)
            except FFMPEG_ERRORS:
                break
            self._decoded.close()
            self._decoded = self._decode()
            self._shown, self._ahead = None, next(self._decoded, None)
            if self._ahead is not None and self._ahead.start <= target:
                return
            back = 2 * back + LONGEST_REORDER * self._usual
        self._reopen()

    def _reopen(self) -> None:
        self.close()
        self._container = open_input(self.path)
        self._stream = video_stream(self._container, self.path, self._threads)
        self._start()

    def _start(self) -> None:
        """Stand at the first frame, which sets time 0, the size and the rotation."""
        self._tick = self._stream.time_base or 1
        self.slack = min(float(self._tick) / 2, 5e-4)
        self._usual = frame_ticks(self._stream)
        self._failure: str | None = None
        self._undelayed = True  # so far, every packet was to be presented when it was decoded
        self._stream.codec_context.thread_type = "AUTO"
        self._decoded = self._decode()
        self._shown: _Frame | None = None
        self._ahead: _Frame | None = next(self._decoded, None)
        if self._ahead is None:
            raise MediaError(self.path, None, f"no frame of this video can be decoded; {self._failure or WAY_OUT}")
        first = self._ahead.picture
        self._zero = min([self._ahead.start, *self._holes])
        self.zero = float((self._zero if first.pts is None else first.pts) * self._tick)
        self._rotation = rotation_of(first)
        self._width, self._height = _at_most(_LARGEST, *display_size(first, self._stream))
        self.scaled = (self._width, self._height) != (first.width, first.height)

    def _check_pts(self) -> None:
        """Look at the first frames of a file with B-frames but without the delay that makes room for them."""
        if self.by_dts or not (self._undelayed and self._stream.codec_context.has_b_frames):
            return
        try:
            for _ in zip(range(LONGEST_REORDER), self._decoded, strict=False):
                pass
        except _WrongPtsError:
            self.by_dts = True
        self._reopen()

    def _decode(self) -> Generator[_Frame]:
        """Frames from the container's position on, in presentation order, until the file or its readable part ends."""
        previous: _Frame | None = None
        for picture, whole in self._judged():
            previous = self._placed(picture, previous, whole)
            yield previous

    def _judged(self) -> Iterator[tuple[VideoFrame, bool]]:
        self._holes: list[int] = []
        tracker = DamageTracker(self._threads)
        with demuxing(self._container, self._stream) as packets:
            while (packet := self._next_packet(packets)) is not None:
                tracker.expect(packet)
                self._undelayed &= packet.pts is None or packet.pts == packet.dts
                pictures: list[VideoFrame] = []
                broken = packet.is_corrupt
                try:
                    pictures = packet.decode()
                except FFMPEG_ERRORS as error:
                    self._failure = describe(error)
                    broken = True
                if broken:
                    tracker.failed(packet)
                    start = packet.dts if self.by_dts else packet.pts
                    self._holes += [] if start is None else [start]
                yield from tracker.judge(pictures)
            yield from tracker.rest()

    def _next_packet(self, packets: Iterator[Packet[VideoStream]]) -> Packet[VideoStream] | None:
        try:
            return next(packets, None)
        except FFMPEG_ERRORS as error:
            self._failure = describe(error)
            return None

    def _placed(self, picture: VideoFrame, previous: _Frame | None, whole: bool) -> _Frame:
        start = picture.dts if self.by_dts else picture.pts
        if previous is not None and (start is None or start < previous.start):
            if start is not None and not self.by_dts:
                raise _WrongPtsError
            start = previous.end
        start = start or 0
        return _Frame(start, start + (picture.duration or self._usual), picture, whole)


def _at_most(pixels: int, width: int, height: int) -> tuple[int, int]:
    while width * height > pixels:
        width, height = max(1, width // 2), max(1, height // 2)
    return width, height
