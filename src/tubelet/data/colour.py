"""Colour jitter on uint8 clips, in 16-bit integers: each step within two levels of the same step on real numbers.

Brightness, saturation, contrast and hue are those of the released code (``tf.image``): saturation and hue are changed
in HSV, contrast about the mean of each channel. Every step gives a picture again (values in [0, 255]), and contrast
takes the mean over the whole clip, so that one colour becomes the same colour in every frame.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int16, UInt8
from torch import Tensor

_BITS = 7  # fractional bits of a factor: 255 << 7 is the largest product that 16 bits hold
_ONE = 1 << _BITS
_CHUNK = 65_536  # pixels that are worked on at once, so that they stay in the processor's cache
_LUMA = (0.299, 0.587, 0.114)

Planes = Int16[Tensor, "3 H W"]


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
    step = round(brightness)
    mean = _mean(_saturated(_brightened(clip[..., ::4, ::4].movedim(1, 0), step), saturation))
    out = torch.empty_like(clip)
    rows = max(1, _CHUNK // clip.shape[-1])
    for frame, target in zip(clip, out, strict=True):
        for part, result in zip(frame.split(rows, 1), target.split(rows, 1), strict=True):
            rgb = _contrasted(_saturated(_brightened(part, step), saturation), contrast, mean)
            result.copy_(_turned(rgb, hue))
    return out


def greyscale(clip: UInt8[Tensor, "T 3 H W"]) -> UInt8[Tensor, "T 3 H W"]:
    """Three equal channels: the luma of ITU-R BT.601, as ``tf.image.rgb_to_grayscale``."""
    red, green, blue = (round(weight * _ONE * 256) for weight in _LUMA)
    out = torch.empty_like(clip)
    for frame, target in zip(clip, out, strict=True):
        r, g, b = frame.int()
        grey = r.mul_(red).add_(g, alpha=green).add_(b, alpha=blue).add_(_ONE * 128).bitwise_right_shift_(_BITS + 8)
        target.copy_(grey)
    return out


def _brightened(rgb: Tensor, levels: int) -> Planes:
    return rgb.short().add_(levels).clamp_(0, 255)


def _saturated(rgb: Planes, factor: float) -> Planes:
    """HSV saturation times ``factor``, at most 1: the distances to the largest channel are scaled."""
    r, g, b = rgb
    top = torch.maximum(r, g)
    top = torch.maximum(top, b, out=top)
    below = top - rgb
    if factor <= 1:
        below.mul_(round(factor * _ONE))
    else:
        chroma = torch.maximum(below[0], below[1])
        chroma = torch.maximum(chroma, below[2], out=chroma).clamp_(min=1)
        below.mul_((top.float() / chroma).clamp_(max=factor).mul_(_ONE).short())
    return torch.sub(top, below.add_(_ONE // 2).bitwise_right_shift_(_BITS), out=below)


def _mean(rgb: Tensor) -> Float[Tensor, "3 1 1"]:
    levels = rgb.flatten(1)
    return (levels.sum(1) / levels.shape[1]).view(3, 1, 1)


def _contrasted(rgb: Planes, factor: float, mean: Float[Tensor, "3 1 1"]) -> Planes:
    """In place: distances to ``mean`` times ``factor``."""
    offset = (mean - 128) * (1 - factor) + 128.5  # the half level that the shift rounds down
    scaled = rgb.sub_(128).mul_(round(factor * _ONE)).bitwise_right_shift_(_BITS)
    return scaled.add_(offset.round().short()).clamp_(0, 255)


def _turned(rgb: Planes, turn: float) -> Planes:
    """The hue moved by ``turn`` (1 is the whole circle), value and chroma kept.

    On the hexagon of hues, with V, M, m the largest, middle and smallest channel and C = V - m, a turn by p sextants,
    \\|p\\| <= 1/2, makes red clamp(2 R - M - p clamp(2 (G - B), -C, C), m, V), and cyclically green and blue. A whole
    sextant is the complement x -> V + m - x (three sextants) and a cyclic shift of the channels (two each).
    """
    sextants = round(6 * turn)
    part = round((6 * turn - sextants) * _ONE)
    r, g, b = rgb
    low, top = torch.minimum(r, g), torch.maximum(r, g)
    middle = torch.maximum(low, torch.minimum(top, b))
    low, top = torch.minimum(low, b, out=low), torch.maximum(top, b, out=top)
    bound = (top - low).mul_(abs(part))
    change = torch.stack((b - g, r - b, g - r)).mul_(2 * part)
    change = torch.clamp(change, bound.neg(), bound, out=change).bitwise_right_shift_(_BITS)
    turned = change.add_(rgb, alpha=2).sub_(middle)
    turned = torch.clamp(turned, low, top, out=turned)
    if sextants % 2:
        turned = torch.sub(low.add_(top), turned, out=turned)
        sextants += 3
    return turned.roll(sextants // 2 % 3, 0) if sextants % 6 else turned
