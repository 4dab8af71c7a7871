"""Pictures, videos and sounds that are in memory already, cut as a model wants them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tubelet.data.readers import SoundInputReader, reader_of
from tubelet.data.transforms import view_crops
from tubelet.media.clips import clip_times, spread_starts
from tubelet.specs import ImageSpec, InputSpec, RasterSpec, SoundSpec

Array = NDArray[Any] | Tensor


def view_of(x: Array, spec: InputSpec, *, fps: float = 0.0, rate: int = 0) -> Tensor:
    """The middle view of each example of ``x``: (B, ...), uint8 of pictures and videos, normalized floats of sound.

    Pictures and videos: uint8, arrays with the channels last and tensors with the channels first, one example or a
    batch: (H, W, 3), (T, H, W, 3) and (B, T, H, W, 3) of arrays. ``fps``: the frames per second of a video; 0: it has
    the rate that the model wants. Sound: (S,) or (B, S) floats in [-1, 1] at ``rate`` samples per second, which must be
    the model's. Raises ValueError with what is expected.
    """
    tensor = torch.from_numpy(np.require(x, requirements=["C", "W"])) if isinstance(x, np.ndarray) else x
    if isinstance(spec, SoundSpec):
        return _sound(tensor, spec, rate)
    if not isinstance(spec, RasterSpec):
        raise ValueError(f"arrays are read for pictures, videos and sound, not for {type(spec).__name__}; give a file")
    rasters = _rasters(tensor.movedim(-1, -3) if isinstance(x, np.ndarray) else tensor, spec)
    views = torch.cat([view_crops(_clip(frames, spec, fps), spec, 1) for frames in rasters])
    return views[:, 0] if isinstance(spec, ImageSpec) else views


def is_batch(x: Array, spec: InputSpec) -> bool:
    """Whether ``x`` holds several examples."""
    return x.ndim > (1 if isinstance(spec, SoundSpec) else len(spec.shape))


def _rasters(x: Tensor, spec: RasterSpec) -> Tensor:
    """(B, T, C, H, W) of one example or of several."""
    one = len(spec.shape)
    if x.dtype != torch.uint8:
        raise ValueError(
            f"pixels must be uint8, 0 to 255, not {x.dtype}: floats are taken as normalized already, so give them to "
            "the model itself, or convert pixels in [0, 1] by (255 * x).to(torch.uint8)"
        )
    if x.ndim not in (one, one + 1) or x.shape[-3] != spec.channels:
        layout = spec.layout.removeprefix("(B, ").removesuffix(")")
        raise ValueError(
            f"a {type(spec).__name__.removesuffix('Spec').lower()} is a tensor ({layout}) or an array with its "
            f"{spec.channels} channels last, or a batch of them; this has the shape {tuple(x.shape)} (channels first)"
        )
    batch = x if x.ndim == one + 1 else x[None]
    return batch[:, None] if batch.ndim == 4 else batch


def _clip(frames: Tensor, spec: RasterSpec, fps: float) -> Tensor:
    if isinstance(spec, ImageSpec) or (not fps and len(frames) == spec.frames):
        return frames
    rate = fps or spec.fps or 1.0
    step, length = spec.step(rate), len(frames) / rate
    (start,) = spread_starts(length, spec.frames * step, 1)
    times = clip_times(start, spec.frames, step, length)
    return frames[[min(len(frames) - 1, int(time * rate + 1e-6)) for time in times]]


def _sound(x: Tensor, spec: SoundSpec, rate: int) -> Tensor:
    if not x.is_floating_point() or x.ndim not in (1, 2):
        raise ValueError(
            f"sound must be floats in [-1, 1], (S,) or (B, S), not {x.dtype} of the shape {tuple(x.shape)}"
        )
    if rate != spec.rate:
        raise ValueError(f"{rate=} must be the {spec.rate} samples per second of the model: say so, or resample")
    waves = (x if x.ndim == 2 else x[None]).float()
    if waves.shape[-1] < spec.samples and spec.repeats:
        waves = waves.repeat(1, -(-spec.samples // waves.shape[-1]))
    first = max(0, waves.shape[-1] - spec.samples) // 2
    return cast("SoundInputReader[Any]", reader_of(spec)).heard(waves[:, first : first + spec.samples])
