"""Sound by time, on the same clock as the pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from jaxtyping import Float32
from torch import Tensor

from tubelet.media.containers import FFMPEG_ERRORS, describe, moving_picture, open_container, require_codec
from tubelet.media.errors import MediaError, NoTrackError
from tubelet.media.samples import mono

_LEAD = 0.5  # seconds decoded before a span: AAC needs frames before, and the resampler's filter samples around
_JITTER = 0.02  # seconds: smaller gaps between frames come from rounded timestamps


def read_audio(
    path: str | Path, start: float, end: float, rate: int, zero: float | None = None
) -> Float32[Tensor, " S"]:
    """``round((end - start) * rate)`` samples between two times in seconds, the mean of all channels.

    Where the channels cancel out, one of them is taken. ``zero``: where time 0 lies on the container's clock; by
    default at the first picture, or at the first sound of a file without pictures. Gaps in the track become silence.
    Raises :class:`NoTrackError` if there is no audio track, or if the whole span lies outside it, and
    :class:`MediaError` where it cannot be read, or samples are not finite or far beyond 1.
    """
    if not (0 <= start < end < math.inf) or rate < 1:
        raise ValueError(f"{start=} must be at least 0, {end=} after it, {rate=} positive")
    with open_container(path) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None:
            raise NoTrackError(
                str(path), None, "there is no audio track in this file; use a model or task without sound"
            )
        require_codec(stream, path)
        zero = _time_zero(container, stream) if zero is None else zero
        native = stream.rate
        grid = native // math.gcd(native, rate)  # every so many samples of the track meet one of the result
        lead = math.floor((start - _LEAD) * native / grid) * grid
        samples = np.zeros(math.ceil((end + _LEAD) * native) - lead, np.float32)
        track_end = _fill(samples, path, container, stream, zero, lead, start)
    if track_end is None or track_end <= start * native:
        last = "before that time" if track_end is None else f"at {track_end / native:.3f} s"
        raise NoTrackError(str(path), start, f"the sound ends {last}; ask for an earlier span")
    resampled = _resample(samples, native, rate)
    first = round(start * rate) - lead * rate // native
    return torch.from_numpy(resampled[first : first + round((end - start) * rate)].copy())


def _time_zero(container: InputContainer, stream: AudioStream) -> float:
    timed = moving_picture(container) or stream
    return float((timed.start_time or 0) * (timed.time_base or 0))


def _fill(
    samples: np.ndarray,
    path: str | Path,
    container: InputContainer,
    stream: AudioStream,
    zero: float,
    lead: int,
    start: float,
) -> int | None:
    """Put the track into ``samples``, whose first is native sample number ``lead``; return the last one's end."""
    native = stream.rate
    if lead > 0 and stream.time_base:
        container.seek(max(0, math.floor((lead / native + zero) / stream.time_base)), stream=stream)
    end: int | None = None
    try:
        for sound, time in _mono(path, container, stream, start, zero):
            at = None if time is None else round((time - zero) * native)
            if end is not None and (at is None or abs(at - end) <= _JITTER * native):
                at = end
            at = at or 0
            end = at + len(sound)
            low, high = max(at, lead), min(end, lead + len(samples))
            if low < high:
                samples[low - lead : high - lead] = sound[low - at : high - at]
            if end >= lead + len(samples):
                break
    except FFMPEG_ERRORS as error:
        if end is None or end < lead + len(samples):
            at = None if end is None else end / native
            raise MediaError(str(path), at, f"the sound cannot be decoded ({describe(error)})") from error
    return end


def _mono(
    path: str | Path, container: InputContainer, stream: AudioStream, start: float, zero: float
) -> Iterator[tuple[np.ndarray, float | None]]:
    """Decoded stretches of the track at its own rate, each with its time on the container's clock.

    Errors before ``start`` are ignored: a seek in MPEG may land inside a frame.
    """
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except FFMPEG_ERRORS:
            if packet.pts is None or packet.pts * (stream.time_base or 0) >= start + zero:
                raise
            continue
        for frame in frames:
            sound = mono(frame, path, None if frame.time is None else frame.time - zero)
            yield _resample(sound, frame.sample_rate, stream.rate), frame.time  # the rate changes in broadcasts


def _resample(samples: np.ndarray, native: int, rate: int) -> np.ndarray:
    if native == rate:
        return samples
    frame: AudioFrame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = native
    resampler = AudioResampler(format="fltp", layout="mono", rate=rate)
    parts = [part.to_ndarray()[0] for step in (frame, None) for part in resampler.resample(step)]
    return np.concatenate(parts)
