"""Where a crop lies in the picture as it was decoded, and cutting it: crop first, then resize, always on uint8."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from tubelet.specs import RasterSpec, Resample


@dataclass(frozen=True)
class Box:
    """A rectangle of the decoded picture, in whole pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_size(picture: tuple[int, int], spec: RasterSpec, jitter: tuple[float, float] = (1.0, 1.0)) -> tuple[int, int]:
    """The (height, width) in pixels of ``picture`` that become ``spec.size`` once its short side is as the spec says.

    The whole picture where it is stretched, unless it is cropped then. ``jitter``: further factors of the picture's
    height and width. A picture that would then be too small for the crop is enlarged until the crop fits, in the
    direction where it does not.
    """
    scales = [need / have for need, have in zip(spec.size, picture, strict=True)]
    if spec.fit == "crop":
        scales = [max(spec.short_side / min(picture), *scales)] * 2
    elif spec.fit == "stretch_crop":
        scales = [spec.short_side / have for have in picture]
    return tuple(  # pyright: ignore[reportReturnType]
        max(1, min(have, round(need / (scale * factor))))
        for need, have, scale, factor in zip(spec.size, picture, scales, jitter, strict=True)
    )


def pixels_needed(spec: RasterSpec) -> int:
    """The pixels that each side of a picture should have, where it is decoded smaller than it is."""
    return max(spec.size) if spec.fit == "stretch" else max(spec.short_side, *spec.size)


def place(picture: tuple[int, int], crop: tuple[int, int], y: float, x: float) -> Box:
    """The crop at the fractions ``y`` and ``x`` of its room to move; 0.5 rounds up, as the released code's center."""
    top, left = (math.ceil(f * (have - cut)) for f, have, cut in zip((y, x), picture, crop, strict=True))
    return Box(top, left, *crop)


def cut(
    frames: UInt8[Tensor, "T C H W"], box: Box, size: tuple[int, int], resample: Resample = "bilinear"
) -> UInt8[Tensor, "T C h w"]:
    """The pixels in ``box`` resized to ``size``, averaged over the covered area where they shrink.

    The released code does not average, as its videos were stored at about the size it needed; files of any size would
    alias.
    """
    part = frames[..., box.top : box.top + box.height, box.left : box.left + box.width]
    if tuple(part.shape[-2:]) == size:
        return part
    return F.interpolate(part, size=size, mode=resample, antialias=True)
