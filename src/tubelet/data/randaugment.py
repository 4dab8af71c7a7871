"""RandAugment (Cubuk et al., 2020) on uint8 clips, one draw and one set of statistics for all frames.

The operations and their strengths are those of the TensorFlow models; each is what Pillow computes on one image. The
released ViViT and MTV code leaves the geometric ones out, so they are apart. Strength is on a scale from 0 to 10 and
may go beyond it. Tables do the work where an operation is a function of one channel's level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tubelet.data.color import grayscale

Clip = UInt8[Tensor, "T 3 H W"]
_LEVELS = np.arange(256)
_GRAY = 128  # of what an operation leaves without a picture


def randaugment(clip: Clip, layers: int, magnitude: float, random: Random, geometric: bool = False) -> Clip:
    """``layers`` operations, each drawn uniformly from the eleven, the five ``geometric`` ones if they are wanted, and
    "leave it as it is"."""
    operations = (*OPERATIONS, *GEOMETRIC) if geometric else OPERATIONS
    for _ in range(layers):
        index = random.randrange(len(operations) + 1)
        draws = random.random(), random.random()
        if index < len(operations):
            clip = operations[index](clip, magnitude, draws)
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
    clip[..., max(0, y - half) : y + half, max(0, x - half) : x + half] = _GRAY
    return clip


def affine(clip: Clip, matrix: tuple[float, float, float, float, float, float]) -> Clip:
    """Every frame, read at x' = a x + b y + c and y' = d x + e y + f, with ``matrix`` (a, b, c, d, e, f).

    x and y are in pixels, from the picture's left and upper edge. The nearest pixel is taken; what lies outside of the
    picture is gray.
    """
    a, b, c, d, e, f = matrix
    height, width = clip.shape[-2:]
    y, x = torch.arange(height, dtype=torch.float64)[:, None] + 0.5, torch.arange(width, dtype=torch.float64) + 0.5
    column, row = (a * x + b * y + c).floor().long(), (d * x + e * y + f).floor().long()
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    taken = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return clip.flatten(2)[..., taken].masked_fill_(outside, _GRAY)


def rotate(clip: Clip, degrees: float) -> Clip:
    """Turned around the center, counterclockwise for positive ``degrees``."""
    height, width = clip.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return affine(clip, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def shear_x(clip: Clip, slope: float) -> Clip:
    """Rows moved to the left by ``slope`` times their distance from the upper edge."""
    return affine(clip, (1, slope, 0, 0, 1, 0))


def shear_y(clip: Clip, slope: float) -> Clip:
    """Columns moved up by ``slope`` times their distance from the left edge."""
    return affine(clip, (1, 0, 0, slope, 1, 0))


def translate_x(clip: Clip, pixels: float) -> Clip:
    """Moved to the left."""
    return affine(clip, (1, 0, pixels, 0, 1, 0))


def translate_y(clip: Clip, pixels: float) -> Clip:
    """Moved up."""
    return affine(clip, (1, 0, 0, 0, 1, pixels))


def _enhancement(magnitude: float) -> float:
    return magnitude / 10 * 1.8 + 0.1


def _either_way(amount: float, draws: tuple[float, float]) -> float:
    return amount if draws[0] < 0.5 else -amount


Operation = Callable[[Clip, float, tuple[float, float]], Clip]
"""Of a clip, a magnitude, and two numbers drawn from [0, 1): a place, or a direction."""

OPERATIONS: tuple[Operation, ...] = (
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

GEOMETRIC: tuple[Operation, ...] = (
    lambda clip, m, way: rotate(clip, _either_way(m / 10 * 30, way)),
    lambda clip, m, way: shear_x(clip, _either_way(m / 10 * 0.3, way)),
    lambda clip, m, way: shear_y(clip, _either_way(m / 10 * 0.3, way)),
    lambda clip, m, way: translate_x(clip, _either_way(m / 10 * 100, way)),
    lambda clip, m, way: translate_y(clip, _either_way(m / 10 * 100, way)),
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
