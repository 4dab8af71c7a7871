"""The times at which clips are cut, as pure functions of seconds. Random numbers are arguments."""

from __future__ import annotations

import math

_ROUNDING = 1e-6  # seconds: a time this close to the end of the video is float noise of its start


def clip_times(start: float, frames: int, step: float, duration: float) -> tuple[float, ...]:
    """The times of ``frames`` frames, ``step`` seconds apart from ``start``, all in ``[0, duration)``.

    Times past the end wrap around: a clip longer than its video starts again from the beginning.
    """
    if frames < 1 or step < 0:
        raise ValueError(f"{frames=} must be at least 1 and {step=} at least 0")
    if not (math.isfinite(start) and start >= 0 and duration > 0):
        raise ValueError(f"{start=} must be a time of a video and {duration=} positive")
    return tuple(_wrap(start + i * step, duration) for i in range(frames))


def _wrap(time: float, duration: float) -> float:
    time = math.fmod(time, duration)
    return time if duration - time > min(_ROUNDING, duration / 2) else 0.0


def random_start(duration: float, span: float, u: float) -> float:
    """Where a clip of ``span`` seconds starts, uniform over the places where it fits; ``u`` is drawn from [0, 1).

    0 where the clip is longer than the video.
    """
    return u * max(0.0, duration - span)


def spread_starts(duration: float, span: float, clips: int) -> tuple[float, ...]:
    """Starts of ``clips`` test clips spread evenly, the first at 0 and the last ending with the video.

    As the released code does (``linspace``); a single clip sits in the middle.
    """
    if clips < 1:
        raise ValueError(f"{clips=} must be at least 1")
    room = max(0.0, duration - span)
    return (room / 2,) if clips == 1 else tuple(room * i / (clips - 1) for i in range(clips))
