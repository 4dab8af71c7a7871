"""Tokens with places to features: what ViT, ViViT's Model 1 and both halves of Model 2 are made of."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.blocks import Transformer, TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid, LearnedPositions, grid_boxes

Pool = Literal["token", "mean"]


class TokenSequence(nn.Module):
    """z = [z_cls, E x_1, ..., E x_N] + p (ViViT Eq. 1).

    ``pool`` "token": a class token is prepended and its output is the pooled feature; "mean": no class token, the mean
    of all tokens.
    """

    def __init__(self, config: TransformerConfig, grid: Grid, pool: Pool) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, config.width)) if pool == "token" else None
        start = "sinusoids" if config.start == "mimetic" else "normal"
        self.positions = LearnedPositions(grid, config.width, special=int(pool == "token"), start=start)
        self.dropout = nn.Dropout(config.dropout)

    def sequence(self, tokens: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B N D"]:
        z = tokens.flatten(1, 3)
        if self.cls is not None:
            z = torch.cat([self.cls.expand(z.shape[0], 1, -1).to(z.dtype), z], dim=1)
        return self.dropout(z + self.positions(_grid(tokens)))

    def features(self, z: Float[Tensor, "B N D"], grid: Grid) -> Features:
        """The features that a transformer made of the sequence of a (t, h, w) grid."""
        if self.cls is None:
            return Features(z, z.mean(1), grid_boxes(grid))
        return Features(z[:, 1:], z[:, 0], grid_boxes(grid))


class TokenEncoder(TokenSequence):
    """A sequence of tokens, then L blocks and the final norm."""

    def __init__(self, config: TransformerConfig, grid: Grid, pool: Pool) -> None:
        super().__init__(config, grid, pool)
        self.transformer = Transformer(config)

    def forward(self, tokens: Float[Tensor, "B t h w D"]) -> Features:
        return self.features(self.transformer(self.sequence(tokens)), _grid(tokens))


def _grid(tokens: Tensor) -> Grid:
    return tokens.shape[1], tokens.shape[2], tokens.shape[3]
