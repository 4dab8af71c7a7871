"""A heat map laid over the frames it explains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from tubelet.media.heat import heat_colors


def overlay(
    frames: UInt8[Tensor, "T 3 H W"], shares: Float[Tensor, "t h w"], strength: float = 0.65
) -> UInt8[Tensor, "T 3 H W"]:
    """The frames grayed, with the largest shares bright: the map is stretched in time and space to fit the frames.

    One scale serves all frames, from no share to the largest, so that frames which matter more are brighter.
    """
    heat = F.interpolate(shares[None, None].float(), size=(len(frames), *frames.shape[-2:]), mode="trilinear")[0, 0]
    heat = (heat / heat.amax().clamp_min(torch.finfo(heat.dtype).tiny)).unsqueeze(1)
    gray = frames.float().mean(dim=1, keepdim=True) / 255
    mixed = gray * (1 - strength * heat) + strength * heat * heat_colors(heat)
    return (mixed * 255).round().clamp(0, 255).to(torch.uint8)
