"""Sound by time, on the same clock as the pictures."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet
from jaxtyping import Float32
from torch import Tensor

from tubelet.media.containers import FFMPEG_ERRORS, demuxing, describe, open_input, reading
from tubelet.media.errors import MediaError, NoTrackError
from tubelet.media.samples import mono
from tubelet.media.streams import film, sound_stream

_LEAD = 0.5  # seconds decoded before a span: AAC needs frames before, and the resampler's filter samples around
_JITTER = 0.02  # seconds: smaller gaps between frames come from rounded timestamps
_LONG_GAP = 10.0  # seconds: a span this far ahead of what was read last is worth a seek


def read_audio(
    path: str | Path, start: float, end: float, rate: int, zero: float | None = None
) -> Float32[Tensor, " S"]:
    """One span of a file's sound; see :class:`SoundTrack`."""
    _check(start, end, rate)
    with SoundTrack(path, zero) as track:
        return track.span(start, end, rate)


class SoundTrack:
    """The sound of a file, open to be read by time; spans that follow each other are decoded in one pass.

    Where the channels cancel out, one of them is taken. ``zero``: where time 0 lies on the container's clock; by
    default at the first picture, or at the first sound of a file without pictures. Raises :class:`NoTrackError` if
    there is no audio track, and :class:`MediaError` where it cannot be read, or samples are not finite or far beyond 1.
    Close it, or use it as a context manager.
    """

    def __init__(self, path: str | Path, zero: float | None = None) -> None:
        self.path = str(path)
        with reading(path):
            self._open()
            try:
                timed = film(self._container) or self._stream
                start = float((timed.start_time or 0) * (timed.time_base or 0))
                self._zero = start if zero is None else zero
            except BaseException:
                self.close()
                raise

    def span(self, start: float, end: float, rate: int) -> Float32[Tensor, " S"]:
        """``round((end - start) * rate)`` samples between two times in seconds, the mean of all channels.

        Gaps in the track become silence. Raises :class:`NoTrackError` if the whole span lies outside the track.
        """
        _check(start, end, rate)
        with reading(self.path):
            return self._span(start, end, rate)

    def close(self) -> None:
        self._kept.clear()
        self._coming.close()
        self._container.close()

    def __enter__(self) -> SoundTrack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Stand at the beginning. Positions are samples at the track's own rate, from time 0 on."""
        self._container = open_input(self.path)
        self._kept: deque[tuple[int, np.ndarray]] = deque()
        self._coming = self._decode()
        try:
            self._stream = sound_stream(self._container, self.path)
        except BaseException:
            self.close()
            raise
        self._at_start = True
        self._first: float = -math.inf  # from where on everything is kept or still to come
        self._end: int | None = None  # of what has been decoded

    def _span(self, start: float, end: float, rate: int) -> Float32[Tensor, " S"]:
        native: int = self._stream.rate
        grid = native // math.gcd(native, rate)  # every so many samples of the track meet one of the result
        lead = math.floor((start - _LEAD) * native / grid) * grid
        samples = np.zeros(math.ceil((end + _LEAD) * native) - lead, np.float32)
        self._wanted_from = start
        self._go_to(lead)
        self._first = math.inf  # nothing builds on a read that fails
        track_end = self._fill(samples, lead)
        self._first = lead
        if track_end is None or track_end <= start * native:
            last = "before that time" if track_end is None else f"at {track_end / native:.3f} s"
            raise NoTrackError(self.path, start, f"the sound ends {last}; ask for an earlier span")
        resampled = _resample(samples, native, rate)
        first = round(start * rate) - lead * rate // native
        return torch.from_numpy(resampled[first : first + round((end - start) * rate)].copy())

    def _go_to(self, lead: int) -> None:
        """Keep what comes from ``lead`` on, and stand before it."""
        here = 0 if self._end is None else self._end
        if lead < self._first or lead > here + _LONG_GAP * self._stream.rate or (self._at_start and lead > 0):
            self._seek(lead)
        while self._kept and self._kept[0][0] + len(self._kept[0][1]) <= lead:
            self._kept.popleft()

    def _seek(self, lead: int) -> None:
        if not self._at_start:
            self.close()
            self._open()
        base = self._stream.time_base
        if lead > 0 and base:
            try:
                self._container.seek(
                    max(0, math.floor((lead / self._stream.rate + self._zero) / base)), stream=self._stream
                )
            except FFMPEG_ERRORS:  # then everything before is decoded, too
                self.close()
                self._open()

    def _fill(self, samples: np.ndarray, lead: int) -> int | None:
        """Put the track into ``samples``, whose first is sample number ``lead``; return the end of what was decoded."""
        last = lead + len(samples)
        for at, sound in self._kept:
            _put(sound, at, samples, lead)
        try:
            while (self._end is None or self._end < last) and (piece := next(self._coming, None)) is not None:
                self._kept.append(piece)
                _put(piece[1], piece[0], samples, lead)
        except FFMPEG_ERRORS as error:
            at = None if self._end is None else self._end / self._stream.rate
            raise MediaError(self.path, at, f"the sound cannot be decoded ({describe(error)})") from error
        return self._end

    def _decode(self) -> Generator[tuple[int, np.ndarray]]:
        """Stretches of the track at its own rate, each with the position of its first sample."""
        with demuxing(self._container, self._stream) as packets:
            for packet in packets:
                self._at_start = False
                for frame in self._frames(packet):
                    time = None if frame.time is None else frame.time - self._zero
                    sound = mono(frame, self.path, time)
                    sound = _resample(sound, frame.sample_rate, self._stream.rate)  # the rate changes in broadcasts
                    at = self._position(frame.time)
                    self._end = at + len(sound)
                    yield at, sound

    def _frames(self, packet: Packet[AudioStream]) -> list[AudioFrame]:
        """Errors before the span that is wanted are ignored: a seek in MPEG may land inside a frame."""
        try:
            return packet.decode()
        except FFMPEG_ERRORS:
            if packet.pts is None or packet.pts * (self._stream.time_base or 0) >= self._wanted_from + self._zero:
                raise
            return []

    def _position(self, time: float | None) -> int:
        native = self._stream.rate
        at = None if time is None else round((time - self._zero) * native)
        if self._end is not None and (at is None or abs(at - self._end) <= _JITTER * native):
            return self._end
        return at or 0


def _check(start: float, end: float, rate: int) -> None:
    if not (0 <= start < end < math.inf) or rate < 1:
        raise ValueError(f"{start=} must be at least 0, {end=} after it, {rate=} positive")


def _put(sound: np.ndarray, at: int, samples: np.ndarray, lead: int) -> None:
    low, high = max(at, lead), min(at + len(sound), lead + len(samples))
    if low < high:
        samples[low - lead : high - lead] = sound[low - at : high - at]


def _resample(samples: np.ndarray, native: int, rate: int) -> np.ndarray:
    if native == rate:
        return samples
    frame: AudioFrame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = native
    resampler = AudioResampler(format="fltp", layout="mono", rate=rate)
    parts = [part.to_ndarray()[0] for step in (frame, None) for part in resampler.resample(step)]
    return np.concatenate(parts)
