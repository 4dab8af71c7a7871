"""Kernels of one tokenizer for another: an image's for a video (ViViT Sec. 3.4, PolyViT App. D), back, and resized."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Inflation = Literal["central", "average", "rank", "repeat"]
Tubelet = tuple[int, int, int]


def resample_kernel(
    weight: Float[Tensor, "D values"], source: Tubelet, target: Tubelet, how: Inflation
) -> Float[Tensor, "D others"]:
    """The kernel of ``source`` tubelets (t, h, w) for ``target`` ones; rows hold (channels, t, h, w).

    Inflated for more frames, as ``how`` says; summed over its frames for an image or a spectrogram; resized for patches
    of another size.
    """
    if source == target:
        return weight
    (t, h, w), (frames, *sides) = source, target
    kernel = rearrange(weight, "D (C t h w) -> D C t h w", t=t, h=h, w=w)
    size = (frames if min(t, frames) > 1 else t, sides[0], sides[1])
    if size != source:
        kernel = resize(kernel, size)
    if size[0] > frames:
        kernel = flatten(kernel)
    elif size[0] < frames:
        kernel = inflate(kernel[:, :, 0], frames, how)
    return kernel.flatten(1)


def inflate(kernel: Float[Tensor, "D C h w"], frames: int, how: Inflation) -> Float[Tensor, "D C t h w"]:
    """The kernel over ``frames`` frames that starts from an image kernel.

    "central": the image kernel at frame t // 2, zeros elsewhere (Eq. 9). "average": every frame has kernel / t
    (Eq. 8). "rank": every frame has kernel * alpha_i / t, with the weights alpha of approximate rank pooling. "repeat":
    every frame has the kernel (App. D).
    """
    weights = frame_weights(frames, how).to(kernel)
    return kernel[:, :, None] * weights[:, None, None]


def flatten(kernel: Float[Tensor, "D C t h w"]) -> Float[Tensor, "D C h w"]:
    """The image kernel of a tubelet kernel: the sum over its frames (App. D). A still video looks the same to both."""
    return kernel.sum(2)


def resize(kernel: Float[Tensor, "D C t h w"], size: tuple[int, int, int]) -> Float[Tensor, "D C T H W"]:
    """The kernel for tubelets of another ``size``: linear, corners aligned, and not rescaled, as MTV's released code
    has it; so twice the side answers to a still picture about four times as strongly."""
    return F.interpolate(kernel.double(), size=size, mode="trilinear", align_corners=True).to(kernel)


def frame_weights(frames: int, how: Inflation) -> Float[Tensor, " t"]:
    """What each frame's copy of the image kernel is multiplied by."""
    if how == "central":
        return torch.eye(frames, dtype=torch.float64)[frames // 2]
    if how == "repeat":
        return torch.ones(frames, dtype=torch.float64)
    if how == "average":
        return torch.full((frames,), 1 / frames, dtype=torch.float64)
    return rank_pooling(frames) / frames


def rank_pooling(frames: int) -> Float[Tensor, " t"]:
    """2 (t - i + 1) - (t + 1) (H_t - H_{i-1}) for i = 1..t, H the harmonic numbers (Bilen et al. 2017, Eq. 3)."""
    i = torch.arange(1, frames + 1, dtype=torch.float64)
    harmonic = torch.cat([torch.zeros(1, dtype=torch.float64), (1 / i).cumsum(0)])
    return 2 * (frames - i + 1) - (frames + 1) * (harmonic[-1] - harmonic[:-1])
