"""Numbers as colors, and sound as a picture."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

_COLORS = ((0.00, 0.00, 0.20), (0.45, 0.05, 0.45), (0.95, 0.35, 0.15), (1.00, 0.95, 0.35))  # dark to bright


def spectrogram_picture(spectrogram: Float[Tensor, "T M"]) -> UInt8[Tensor, "3 M T"]:
    """Time rightwards, frequency upwards, the loudest bright; a sound of one loudness everywhere is dark."""
    low, high = spectrogram.amin(), spectrogram.amax()
    shade = (spectrogram - low) / (high - low).clamp_min(torch.finfo(spectrogram.dtype).tiny)
    return (heat_colors(shade.mT.flip(0)[None, None])[0] * 255).round().to(torch.uint8)


def heat_colors(heat: Float[Tensor, "T 1 H W"]) -> Float[Tensor, "T 3 H W"]:
    """Linear between the colors of the scale."""
    scale = torch.tensor(_COLORS, device=heat.device)
    place = heat[:, 0] * (len(scale) - 1)
    below = place.long().clamp(max=len(scale) - 2)
    part = (place - below)[..., None]
    return (scale[below] * (1 - part) + scale[below + 1] * part).movedim(-1, 1)
