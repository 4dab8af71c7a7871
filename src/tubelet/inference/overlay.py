"""A heat map laid over the frames it explains, and sound as a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

_COLORS = ((0.00, 0.00, 0.20), (0.45, 0.05, 0.45), (0.95, 0.35, 0.15), (1.00, 0.95, 0.35))  # dark to bright


def overlay(
    frames: UInt8[Tensor, "T 3 H W"], shares: Float[Tensor, "t h w"], strength: float = 0.65
) -> UInt8[Tensor, "T 3 H W"]:
    """The frames grayed, with the largest shares bright: the map is stretched in time and space to fit the frames.

    One scale serves all frames, from no share to the largest, so that frames which matter more are brighter.
    """
    heat = F.interpolate(shares[None, None].float(), size=(len(frames), *frames.shape[-2:]), mode="trilinear")[0, 0]
    heat = (heat / heat.amax().clamp_min(torch.finfo(heat.dtype).tiny)).unsqueeze(1)
    gray = frames.float().mean(dim=1, keepdim=True) / 255
    mixed = gray * (1 - strength * heat) + strength * heat * _color(heat)
    return (mixed * 255).round().clamp(0, 255).to(torch.uint8)


def spectrogram_picture(spectrogram: Float[Tensor, "T M"]) -> UInt8[Tensor, "3 M T"]:
    """Time rightwards, frequency upwards, the loudest bright; a sound of one loudness everywhere is dark."""
    low, high = spectrogram.amin(), spectrogram.amax()
    shade = (spectrogram - low) / (high - low).clamp_min(torch.finfo(spectrogram.dtype).tiny)
    return (_color(shade.mT.flip(0)[None, None])[0] * 255).round().to(torch.uint8)


def _color(heat: Float[Tensor, "T 1 H W"]) -> Float[Tensor, "T 3 H W"]:
    """Linear between the colors of the scale."""
    scale = torch.tensor(_COLORS, device=heat.device)
    place = heat[:, 0] * (len(scale) - 1)
    below = place.long().clamp(max=len(scale) - 2)
    part = (place - below)[..., None]
    return (scale[below] * (1 - part) + scale[below + 1] * part).movedim(-1, 1)
