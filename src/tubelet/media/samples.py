"""A decoded stretch of sound as one channel of samples that are numbers between -1 and 1, or hardly beyond."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from jaxtyping import Float32

from tubelet.media.errors import MediaError

_LOUDEST = 100.0  # 40 dB above full scale: louder samples were never scaled to it
_PLANES = 8  # of so many channels that lie apart, PyAV reads beyond the last
_CANCELED = 1e-4  # 40 dB: by how much less power than its channels a mean has where they cancel out


def mono(frame: AudioFrame, path: str | Path, time: float | None) -> Float32[np.ndarray, " S"]:
    """The mean of a frame's channels; where they cancel out, the first of them that is about as loud as any.

    Raises :class:`MediaError`, which names ``path`` and ``time``, where samples are not finite, or far too large.
    """
    channels = _channels(frame)
    if channels.dtype.kind == "f" and channels.size:
        largest = max(channels.max(), -channels.min())
        if not largest <= _LOUDEST:
            what = f"as large as {largest:.3g}" if np.isfinite(largest) else "not finite (NaN or infinity)"
            reason = f"samples of the sound are {what}; mend them (sound lies between -1 and 1) or leave the file out"
            raise MediaError(str(path), time, reason)
    if len(channels) == 1:
        return channels[0].astype(np.float32, copy=False)
    mean = channels.mean(axis=0, dtype=np.float32)
    power = np.square(channels, dtype=np.float32).mean(axis=1)
    if np.square(mean).mean() < _CANCELED * power.mean():
        return channels[np.argmax(power >= power.max() / 2)].astype(np.float32)
    return mean


def _channels(frame: AudioFrame) -> np.ndarray:
    """(channels, samples) between -1 and 1."""
    if frame.format.is_planar and frame.layout.nb_channels >= _PLANES:
        (frame,) = AudioResampler(format="flt", layout=frame.layout).resample(frame)
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype.kind == "f":
        return values
    half = 2 ** (8 * values.dtype.itemsize - 1)
    return (values.astype(np.float32) - (half if values.dtype.kind == "u" else 0)) / half
