"""RandAugment (Cubuk et al., 2020) on uint8 clips, one draw and one set of statistics for all frames.

The operations and their strengths are those of the TensorFlow models, which the released ViViT and MTV code uses
without the geometric ones; each is what Pillow computes on one image. Strength is on a scale from 0 to 10 and may go
beyond it. Tables do the work where an operation is a function of one channel's level.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tubelet.data.color import grayscale

Clip = UInt8[Tensor, "T 3 H W"]
_LEVELS = np.arange(256)


def randaugment(clip: Clip, layers: int, magnitude: float, random: Random) -> Clip:
    """``layers`` operations, each drawn uniformly from the eleven and "leave it as it is"."""
    for _ in range(layers):
        index = random.randrange(len(OPERATIONS) + 1)
        center = random.random(), random.random()
        if index < len(OPERATIONS):
            clip = OPERATIONS[index](clip, magnitude, center)
    return clip


def auto_contrast(clip: Clip) -> Clip:
    """Each channel stretched so that its smallest and largest level become 0 and 255."""
    tables: list[np.ndarray] = []
    for histogram in _histograms(clip):
        used = np.flatnonzero(histogram)
        low, high = int(used[0]), int(used[-1])
        scale = 255 / (high - low) if high > low else 0.0
        tables.append((_LEVELS * scale - low * scale).clip(0, 255) if scale else _LEVELS)
    return _look_up(clip, tables)


def equalize(clip: Clip) -> Clip:
    """Each channel mapped so that its histogram becomes flat."""
    tables: list[np.ndarray] = []
    for histogram in _histograms(clip):
        used = histogram[histogram > 0]
        step = (used.sum() - used[-1]) // 255
        before = np.cumsum(histogram) - histogram
        tables.append(((before + step // 2) // step).clip(0, 255) if step else _LEVELS)
    return _look_up(clip, tables)


def invert(clip: Clip) -> Clip:
    return 255 - clip


def posterize(clip: Clip, bits: int) -> Clip:
    """Only the ``bits`` highest bits of every level."""
    return clip & (0xFF << max(0, 8 - bits) & 0xFF)


def solarize(clip: Clip, threshold: int) -> Clip:
    """Levels at or above ``threshold`` inverted."""
    return _look_up(clip, [np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS)] * 3)


def solarize_add(clip: Clip, addition: int) -> Clip:
    """``addition`` added to the levels below 128."""
    return _look_up(clip, [np.where(_LEVELS < 128, (_LEVELS + addition).clip(0, 255), _LEVELS)] * 3)


def color(clip: Clip, factor: float) -> Clip:
    """Between the gray clip (0) and the clip itself (1), or beyond."""
    return _blend(grayscale(clip), clip, factor)


def contrast(clip: Clip, factor: float) -> Clip:
    """Distances to the mean gray of the clip times ``factor``."""
    gray = grayscale(clip)[:, 0]
    mean = int(int(gray.sum()) / gray.numel() + 0.5)
    return _look_up(clip, [(mean + factor * (_LEVELS - mean)).clip(0, 255)] * 3)


def brightness(clip: Clip, factor: float) -> Clip:
    """Levels times ``factor``."""
    return _look_up(clip, [(factor * _LEVELS).clip(0, 255)] * 3)


def sharpness(clip: Clip, factor: float) -> Clip:
    """Between the smoothed clip (0) and the clip itself (1), or beyond; the outermost pixels stay."""
    smooth = clip.clone()
    for frame, target in zip(clip.short(), smooth, strict=True):
        rows = frame[:, :-2] + frame[:, 1:-1] + frame[:, 2:]
        total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * frame[:, 1:-1, 1:-1]
        target[:, 1:-1, 1:-1] = total.float().div_(13).add_(0.5)
    return _blend(smooth, clip, factor)


def cutout(clip: Clip, half: int, center: tuple[float, float]) -> Clip:
    """A square of up to 2 ``half`` pixels a side around ``center`` (fractions of height and width) made gray.

    The released code stacks the frames to one tall image, and so cuts one or two of them; here all, alike.
    """
    height, width = clip.shape[-2:]
    y, x = int(center[0] * height), int(center[1] * width)
    clip = clip.clone()
    clip[..., max(0, y - half) : y + half, max(0, x - half) : x + half] = 128
    return clip


def _enhancement(magnitude: float) -> float:
    return magnitude / 10 * 1.8 + 0.1


OPERATIONS: tuple[Callable[[Clip, float, tuple[float, float]], Clip], ...] = (
    lambda clip, m, center: auto_contrast(clip),
    lambda clip, m, center: equalize(clip),
    lambda clip, m, center: invert(clip),
    lambda clip, m, center: posterize(clip, int(m / 10 * 4)),
    lambda clip, m, center: solarize(clip, int(m / 10 * 256)),
    lambda clip, m, center: color(clip, _enhancement(m)),
    lambda clip, m, center: contrast(clip, _enhancement(m)),
    lambda clip, m, center: brightness(clip, _enhancement(m)),
    lambda clip, m, center: sharpness(clip, _enhancement(m)),
    lambda clip, m, center: cutout(clip, int(m / 10 * 40), center),
    lambda clip, m, center: solarize_add(clip, int(m / 10 * 110)),
)


def _histograms(clip: Clip) -> list[np.ndarray]:
    return [np.bincount(clip[:, c].reshape(-1).numpy(), minlength=256) for c in range(3)]


def _look_up(clip: Clip, tables: list[np.ndarray]) -> Clip:
    """Every level of channel c replaced by ``tables[c]`` of it (values in [0, 255], rounded down)."""
    out = torch.empty_like(clip, memory_format=torch.contiguous_format)
    for c, table in enumerate(tables):
        levels = bytearray(clip[:, c].reshape(-1).numpy()).translate(table.astype(np.uint8).tobytes())
        out[:, c] = torch.frombuffer(levels, dtype=torch.uint8).view_as(out[:, c])
    return out


def _blend(start: Clip, end: Clip, factor: float) -> Clip:
    out = torch.empty_like(end)
    for a, b, target in zip(start, end, out, strict=True):
        target.copy_(torch.lerp(a.float(), b.float(), factor).clamp_(0, 255))
    return out
