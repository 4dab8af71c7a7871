"""A long video or sound by sliding windows, read from front to back in bounded memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from tubelet.data.geometry import crop_size, cut, place
from tubelet.data.manifest import Record
from tubelet.data.sound import Waveforms
from tubelet.data.timeline import Timelines
from tubelet.media.audio import SoundTrack
from tubelet.media.clips import spread_starts
from tubelet.media.video import Decoder, in_batches
from tubelet.specs import SoundSpec, VideoSpec


class Grid(NamedTuple):
    """The frames of a model's clip: how many, the seconds between two, and the seconds that the clip spans."""

    frames: int
    step: float
    seconds: float


@dataclass(frozen=True)
class Window:
    """A stretch of time (seconds), and the clips that look at it: the first frame of each on the grid of frames."""

    start: float
    end: float
    clips: tuple[int, ...]


class Windows(Sequence[Window]):
    """Windows that are made when they are asked for: a damaged file may claim to last for days."""

    def __init__(self, count: int, at: Callable[[int], Window]) -> None:
        self._places, self._at = range(count), at

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Window: ...

    @overload
    def __getitem__(self, place: slice) -> list[Window]: ...

    def __getitem__(self, place: int | slice) -> Window | list[Window]:
        found = self._places[place]
        return self._at(found) if isinstance(found, int) else [self._at(i) for i in found]


@dataclass(frozen=True)
class Plan:
    """What a timeline looks at: a grid of ``frames`` frames, ``step`` seconds apart, in clips of ``length`` frames."""

    step: float
    frames: int
    length: int
    windows: Windows


def plan_windows(grid: Grid, duration: float, window: float = 0.0, stride: float = 0.0) -> Plan:
    """Windows of ``window`` seconds, ``stride`` seconds apart; 0: the span of a clip, and one window after another.

    Clips keep the frame rate that the model learned with. A window longer than a clip is covered by several, a shorter
    one lies in the middle of its clip. Clips start on a grid of frames, so that windows that overlap share theirs; at
    the edges of the video a clip is moved inside, and a clip longer than the video sees it again from the beginning.
    """
    length, step, span = grid
    window = window or span
    stride = stride or window
    if min(window, stride) < step:
        raise ValueError(f"{window=:g} and {stride=:g} s must be at least {step:g} s, the time between a clip's frames")
    frames = max(1, math.ceil(duration / step - 1e-6))
    clips = max(1, math.ceil(window / span - 1e-6))

    def first_frame(start: float) -> int:
        return min(max(0, round(start / step)), max(0, frames - length))

    def at(place: int) -> Window:
        start = place * stride
        starts = spread_starts(window, span, clips) if window >= span else ((window - span) / 2,)
        return Window(start, min(start + window, duration), tuple(first_frame(start + s) for s in starts))

    count = max(1, math.ceil((duration - step / 2) / stride))
    return Plan(step, frames, length, Windows(count, at))


def window_clips(video: Decoder, spec: VideoSpec, plan: Plan) -> Iterator[UInt8[Tensor, "V T C H W"]]:
    """The clips of each window, center crops; every frame is decoded once, and kept as long as a window needs it.

    The video is asked for ever later times. Raises MediaError, with the time, where it cannot be read; the windows
    before have been given out by then.
    """
    kept: deque[Tensor] = deque()
    first = 0  # the grid index of kept[0]
    for window in plan.windows:
        start, end = window.clips[0], min(window.clips[-1] + plan.length, plan.frames)
        while kept and first < start:
            kept.popleft()
            first += 1
        if not kept:
            first = start
        for batch in in_batches(video, [i * plan.step for i in range(first + len(kept), end)]):
            kept.extend(center_crop(batch.frames, spec))
        yield torch.stack([_clip(kept, clip - first, plan) for clip in window.clips])


def window_sounds(record: Record, spec: SoundSpec, plan: Plan) -> Iterator[Float32[Tensor, "V S"]]:
    """The samples of the clips of each window of a file's sound, which is decoded once.

    Raises MediaError, with the time, where the sound cannot be read.
    """
    timelines = Timelines()
    with SoundTrack(record.path) as track:
        for window in plan.windows:
            yield Waveforms(record, timelines, track.span).at([clip * plan.step for clip in window.clips], spec)


def center_crop(frames: UInt8[Tensor, "T 3 H W"], spec: VideoSpec) -> UInt8[Tensor, "T C h w"]:
    """The frames as the model sees them: short side and center crop of its spec."""
    picture = (frames.shape[-2], frames.shape[-1])
    box = place(picture, crop_size(picture, spec), 0.5, 0.5)
    return cut(frames[:, : spec.channels], box, spec.size, spec.resample)


def _clip(kept: Sequence[Tensor], start: int, plan: Plan) -> UInt8[Tensor, "T C H W"]:
    return torch.stack([kept[start + i if plan.frames >= plan.length else i % plan.frames] for i in range(plan.length)])
