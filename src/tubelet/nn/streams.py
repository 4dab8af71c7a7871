"""A stream of MTV: tubelets of one size, and their encoder."""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.blocks import Block, Stack, TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.nn.features import Features
from tubelet.nn.fusion import TokensInTime
from tubelet.nn.positions import Grid, LearnedPositions, grid_boxes
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer


class StreamEncoder(nn.Module):
    """Tubelets, a class token per time index, one table of positions for all frames, and blocks; no final norm.

    ``segments``: so many stretches of a spectrogram's time take the place of frames; 0 where there are frames.
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        tubelet: Tubelet,
        grid: Grid,
        pool: Pool,
        *,
        channels: int = 3,
        segments: int = 0,
    ) -> None:
        super().__init__()
        t, h, w = grid
        self.segments = segments
        self.tokenizer = TubeletTokenizer(tubelet, backbone.width, channels)
        self.cls = TokensInTime(t, 1, backbone.width) if pool == "token" else None
        self.positions = LearnedPositions((1, h, w), backbone.width, special=int(pool == "token"))
        self.stack = Stack(backbone)

    def block(self, layer: int) -> Block | None:
        return cast("Block", self.stack.blocks[layer]) if layer < len(self.stack.blocks) else None

    def tokenize(self, x: Tensor) -> Float[Tensor, "B t h w D"]:
        tokens = self.tokenizer(x)
        if not self.segments:
            return tokens
        rows = tokens.shape[2] // self.segments * self.segments
        return rearrange(tokens[:, :, :rows], "B 1 (t h) w D -> B t h w D", t=self.segments)

    def sequence(self, tokens: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B t n D"]:
        B, t, h, w, _ = tokens.shape
        z = tokens.flatten(2, 3)
        if self.cls is not None:
            z = torch.cat([self.cls(t).expand(B, -1, -1, -1).to(z.dtype), z], dim=2)
        return z + self.positions((1, h, w))

    def frame(self, z: Float[Tensor, "B t n D"]) -> Float[Tensor, "B t one D"]:
        """One token per time index: its class token, or the mean."""
        return z[:, :, :1] if self.cls is not None else z.mean(2, keepdim=True)

    def features(self, z: Float[Tensor, "B t n D"], grid: Grid) -> Features:
        tokens = z[:, :, int(self.cls is not None) :]
        return Features(tokens.flatten(1, 2), self.frame(z).flatten(1, 2).mean(1), grid_boxes(grid))
