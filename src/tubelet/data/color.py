"""Color jitter on uint8 clips, in 8 and 16-bit integers: each step within two levels of the same step on real numbers.

Brightness, saturation, contrast and hue are those of the released code (``tf.image``): saturation and hue are changed
in HSV, contrast about the mean of each channel. Every step gives a picture again (values in [0, 255]), and contrast
takes the mean over the whole clip, so that one color becomes the same color in every frame.

The arithmetic is numpy's, a frame at a time, as its calls cost half of torch's on arrays of this size. Its minimum and
maximum are fast between arrays alone, so a limit that is one number is written out for a row of pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

_BITS = 7  # fractional bits of a factor: 255 << 7 is the largest product that 16 bits hold
_ONE = 1 << _BITS
_LUMA = (0.299, 0.587, 0.114)

Bytes = NDArray[np.uint8]  # (3, pixels)
Shorts = NDArray[np.int16]


def jitter(
    clip: UInt8[Tensor, "T 3 H W"],
    brightness: float = 0.0,
    saturation: float = 1.0,
    contrast: float = 1.0,
    hue: float = 0.0,
) -> UInt8[Tensor, "T 3 H W"]:
    """Add ``brightness`` (in levels), scale saturation and contrast, turn the hue by ``hue`` turns; in this order.

    The mean that contrast keeps is measured on every fourth pixel of every fourth row.
    """
    levels = round(brightness)
    sample = clip[..., ::4, ::4].movedim(1, 0).flatten(1).numpy()
    mean = _saturated(_brightened(sample, levels), saturation).sum(1, dtype=np.int64) / sample.shape[1]
    out = torch.empty_like(clip, memory_format=torch.contiguous_format)
    for frame, target in zip(clip.flatten(2).numpy(), out.flatten(2).numpy(), strict=True):
        rgb = _contrasted(_saturated(_brightened(frame, levels), saturation), contrast, mean)
        _turn(rgb, hue, target)
    return out


def grayscale(clip: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 H W"]:
    """Three equal channels: the luma of ITU-R BT.601, as ``tf.image.rgb_to_grayscale``."""
    red, green, blue = (round(weight * 2**16) for weight in _LUMA)
    out = torch.empty_like(clip, memory_format=torch.contiguous_format)
    for frame, target in zip(clip, out, strict=True):
        r, g, b = frame.int()
        target.copy_(r.mul_(red).add_(g, alpha=green).add_(b, alpha=blue).add_(2**15).bitwise_right_shift_(16))
    return out


def _brightened(rgb: Bytes, levels: int) -> Bytes:
    if levels >= 0:
        rgb = np.minimum(rgb, _row(rgb, 255 - levels))
        rgb += np.uint8(levels)
    else:
        rgb = np.maximum(rgb, _row(rgb, -levels))
        rgb -= np.uint8(-levels)
    return rgb


def _saturated(rgb: Bytes, factor: float) -> Shorts:
    """HSV saturation times ``factor``, at most 1: the distances to the largest channel are scaled."""
    top = np.maximum(np.maximum(rgb[0], rgb[1]), rgb[2])
    below = top - rgb
    if factor <= 1:
        scale = np.int16(round(factor * _ONE))
    else:
        real = top.astype(np.float32)
        real /= np.maximum(np.maximum(below[0], below[1]), below[2]) + np.float32(1e-6)
        real *= np.float32(_ONE)
        scale = np.rint(np.minimum(real, _row(real, factor * _ONE), out=real), out=real).astype(np.int16)
    scaled = below.astype(np.int16)
    scaled *= scale
    scaled >>= _BITS
    return np.subtract(top.astype(np.int16), scaled, out=scaled)


def _contrasted(rgb: Shorts, factor: float, mean: NDArray[np.float64]) -> Shorts:
    """Distances to ``mean`` times ``factor``; in place."""
    scaled = rgb.view(np.uint16)  # a factor of up to 2 overflows the sign, and levels have none
    scaled *= np.uint16(round(factor * _ONE))
    scaled >>= _BITS
    rgb += np.rint(mean * (1 - factor) + 0.5).astype(np.int16)[:, None]  # the half level that the shift rounds down
    return np.clip(rgb, 0, 255, out=rgb)


def _turn(rgb: Shorts, turn: float, out: Bytes) -> None:
    """The hue moved by ``turn`` (1 is the whole circle), value and chroma kept.

    On the hexagon of hues, with V, M, m the largest, middle and smallest channel and C = V - m, a turn by p sextants,
    -1/2 <= p <= 1/2, makes red clamp(2 R - M - p clamp(2 (G - B), -C, C), m, V), and cyclically green and blue. A whole
    sextant is the complement x -> V + m - x (three sextants) and a cyclic shift of the channels (two each).
    """
    sextants = round(6 * turn)
    part = round((6 * turn - sextants) * _ONE)
    r, g, b = rgb
    low, top = np.minimum(r, g), np.maximum(r, g)
    middle = np.maximum(low, np.minimum(top, b))
    low, top = np.minimum(low, b, out=low), np.maximum(top, b, out=top)
    bound = top - low
    bound *= np.int16(abs(part))
    change = np.empty_like(rgb)
    for difference, plus, minus in zip(change, (b, r, g), (g, b, r), strict=True):
        np.subtract(plus, minus, out=difference)
    change *= np.int16(2 * part)
    np.maximum(np.minimum(change, bound, out=change), -bound, out=change)
    change >>= _BITS
    change += rgb
    change += rgb
    change -= middle
    np.maximum(np.minimum(change, top, out=change), low, out=change)
    if sextants % 2:
        low += top
        np.subtract(low, change, out=change)
        sextants += 3
    for c in range(3):
        out[(c + sextants // 2) % 3] = change[c]


def _row(like: NDArray[np.generic], value: float) -> NDArray[np.generic]:
    return np.full(like.shape[-1], value, like.dtype)
