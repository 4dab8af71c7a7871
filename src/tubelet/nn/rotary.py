"""Rotary positions: queries and keys are turned by angles that their places give (RoFormer; DINOv3 for images; V-JEPA 2
for videos)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.attention import Attention, attend, attention_weights
from tubelet.nn.blocks import Block, TransformerConfig
from tubelet.nn.positions import Grid

Pairs = Literal["halves", "neighbors"]
"""Which channels turn together: j and j + d/2, or 2j and 2j + 1."""


class RotaryPositions(nn.Module):
    """The cosines and sines (N, d) of the tokens of a (t, h, w) grid, over the last ``axes`` of its axes.

    A place is the middle of its cell, from -1 to 1 on each axis, so that any grid covers the same range. Each axis has
    d / 2A frequencies, 2 pi ``theta``^(-j / (d / 2A)); channels j and j + d/2 have the same angle ("halves").
    """

    pairs: Pairs = "halves"

    def __init__(self, head_width: int, axes: int = 2, theta: float = 100.0) -> None:
        super().__init__()
        if not 1 <= axes <= 3 or head_width % (2 * axes):
            raise ValueError(f"{head_width=} must be a multiple of {2 * axes} for rotary positions over {axes} axes")
        if theta <= 0:
            raise ValueError(f"{theta=} must be positive")
        self.axes = axes
        steps = torch.arange(0, 1, 2 * axes / head_width, dtype=torch.float32)
        self.register_buffer("frequencies", 1 / theta**steps, persistent=False)

    def forward(self, grid: Grid) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]]:
        frequencies = self.get_buffer("frequencies")
        ends = [(torch.arange(n, device=frequencies.device) + 0.5) / n * 2 - 1 for n in grid]
        places = torch.stack(torch.meshgrid(*ends, indexing="ij"), -1).flatten(0, 2)[:, -self.axes :]
        angles = (2 * math.pi * places[:, :, None] * frequencies.float()).flatten(1).tile(2)
        return angles.cos().to(frequencies.dtype), angles.sin().to(frequencies.dtype)


class SpaceTimeRotaryPositions(nn.Module):
    """The cosines and sines (N, d) of the tokens of a (t, h, w) grid, as V-JEPA 2 has them.

    A place is its number on each axis, from 0, so that a longer clip or a larger picture goes on where those of the
    training end. Time, height and width have n = 2 floor(d / 6) channels each, in this order; the rest is not turned.
    Channels 2j and 2j + 1 turn together ("neighbors"), and channel c of an axis has the frequency ``theta``^(-2k / n),
    k = c mod n / 2. So the two of a pair have different angles, which is no rotation in the strict sense; the released
    code computes this, and its models are trained with it.
    """

    pairs: Pairs = "neighbors"

    def __init__(self, head_width: int, theta: float = 10_000.0) -> None:
        super().__init__()
        if head_width < 6:
            raise ValueError(f"{head_width=} must be at least 6 for rotary positions over time, height and width")
        if theta <= 0:
            raise ValueError(f"{theta=} must be positive")
        self.rest = head_width % 6
        steps = torch.arange(head_width // 6) / (head_width // 6)
        self.register_buffer("frequencies", theta**-steps, persistent=False)

    def forward(self, grid: Grid) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]]:
        frequencies = self.get_buffer("frequencies")
        steps = [torch.arange(n, device=frequencies.device, dtype=torch.float32) for n in grid]
        places = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).flatten(0, 2)
        angles = (places[:, :, None] * frequencies.float().tile(2)).flatten(1)
        angles = F.pad(angles, (0, self.rest))
        return angles.cos().to(frequencies.dtype), angles.sin().to(frequencies.dtype)


def rotate(
    x: Float[Tensor, "B h N d"], cos: Float[Tensor, "M d"], sin: Float[Tensor, "M d"], pairs: Pairs = "halves"
) -> Float[Tensor, "B h N d"]:
    """The last M tokens turned by their angles; those before them, which have no place, stay as they are."""
    special, places = x.split([x.shape[2] - len(cos), len(cos)], dim=2)
    if pairs == "halves":
        first, second = places.chunk(2, dim=-1)
        partner = torch.cat([-second, first], dim=-1)
    else:
        first, second = places.unflatten(-1, (-1, 2)).unbind(-1)
        partner = torch.stack([-second, first], dim=-1).flatten(-2)
    return torch.cat([special, places * cos + partner * sin], dim=2)


class RotaryAttention(Attention):
    """Self-attention whose queries and keys are turned by their tokens' places.

    ``cos`` and ``sin`` are those of the last tokens; special tokens come first and are not turned.
    """

    pairs: Pairs = "halves"

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B N D"], cos: Float[Tensor, "M d"], sin: Float[Tensor, "M d"]
    ) -> Float[Tensor, "B N D"]:
        q, k, v = self._turned(x, cos, sin)
        y = attend(q, k, v, self.dropout if self.training else 0.0, scale=self.scale)
        return self.out(rearrange(y, "B h N d -> B N (h d)"))

    def attention_maps(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B N D"], cos: Float[Tensor, "M d"], sin: Float[Tensor, "M d"]
    ) -> dict[str, Tensor]:
        """The weights (B, h, N, N); see :func:`~tubelet.nn.attention.capture_attention`."""
        q, k, _ = self._turned(x, cos, sin)
        return {"": attention_weights(q, k, scale=self.scale)}

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self._project(x)
        cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        return rotate(q, cos, sin, self.pairs), rotate(k, cos, sin, self.pairs), v


class RotaryBlock(Block):
    """A block whose attention has rotary positions."""

    def __init__(self, config: TransformerConfig, drop_rate: float = 0.0, *, pairs: Pairs = "halves") -> None:
        super().__init__(config, drop_rate)
        self.attention = RotaryAttention(
            config.width, config.heads, config.attention_dropout, inner=config.inner, layer_scale=config.layer_scale
        )
        self.attention.pairs = pairs

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B N D"], cos: Float[Tensor, "M d"], sin: Float[Tensor, "M d"]
    ) -> Float[Tensor, "B N D"]:
        y = x + self.drop(self.dropout(self.attention(self.norm_attention(x), cos, sin)))
        return y + self.drop(self.mlp(self.norm_mlp(y)))
