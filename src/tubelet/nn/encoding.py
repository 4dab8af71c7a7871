"""Tokens with places to features: what ViT, ViViT's Model 1 and both halves of Model 2 are made of."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.attention_pool import AttentionPool
from tubelet.nn.blocks import Block, Stack, Transformer, TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.positions import FixedPositions, Grid, LearnedPositions, Resize, grid_boxes
from tubelet.nn.rotary import RotaryBlock, RotaryPositions, SpaceTimeRotaryPositions

Pool = Literal["token", "mean"]
VideoPool = Literal["token", "mean", "attention"]
ImagePool = Literal["token", "mean", "token+mean", "tokens", "tokens-mean", "attention"]
Positions = Literal["learned", "sinusoids", "none"]


class TokenSequence(nn.Module):
    """z = [z_cls, E x_1, ..., E x_N] + p (ViViT Eq. 1).

    ``pool`` "token": a class token is prepended and its output is the pooled feature; "mean": no class token, the mean
    of all tokens; "token+mean": both, one after the other (DINOv2's classifiers); "tokens": the class token and all
    registers, one after the other (DeiT's distillation token is a register); "tokens-mean": their mean (AST's);
    "attention": no class token, an :class:`~tubelet.nn.attention_pool.AttentionPool` of the size ``pool_config``, by
    default the sequence's own, without blocks. ``registers``: tokens without a place that stand behind the class token
    and leave with it. ``pre_norm``: a norm before the first block.
    ``positions``: learned ones; "sinusoids", which are fixed and need ``pool`` "mean"; or none here. ``resize``: see
    :class:`~tubelet.nn.positions.LearnedPositions`.
    """

    def __init__(
        self,
        config: TransformerConfig,
        grid: Grid,
        pool: ImagePool,
        *,
        registers: int = 0,
        pre_norm: bool = False,
        positions: Positions = "learned",
        resize: Resize = "linear",
        pool_config: TransformerConfig | None = None,
    ) -> None:
        super().__init__()
        self.pool = pool
        token = pool not in ("mean", "attention")
        self.cls = nn.Parameter(torch.zeros(1, config.width)) if token else None
        special = int(token)
        self.positions = _positions(config, grid, special, positions, resize)
        self.registers = nn.Parameter(torch.empty(registers, config.width).normal_(std=0.02)) if registers else None
        self.norm_tokens = config.norm() if pre_norm else None
        self.attention_pool = AttentionPool(pool_config or replace(config, depth=0)) if pool == "attention" else None
        self.special = special + registers
        self.dropout = nn.Dropout(config.dropout)

    def sequence(self, tokens: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B N D"]:
        z = tokens.flatten(1, 3)
        if self.cls is not None:
            z = torch.cat([self.cls.expand(z.shape[0], 1, -1).to(z.dtype), z], dim=1)
        if self.positions is not None:
            z = z + self.positions(_grid(tokens))
        if self.registers is not None:
            before = 0 if self.cls is None else 1
            registers = self.registers.expand(z.shape[0], -1, -1).to(z.dtype)
            z = torch.cat([z[:, :before], registers, z[:, before:]], dim=1)
        z = self.dropout(z)
        return z if self.norm_tokens is None else self.norm_tokens(z)

    def features(self, z: Float[Tensor, "B N D"], grid: Grid) -> Features:
        """The features that a transformer made of the sequence of a (t, h, w) grid."""
        tokens = z[:, self.special :]
        return Features(tokens, self._pooled(z, tokens), grid_boxes(grid))

    def _pooled(self, z: Tensor, tokens: Tensor) -> Tensor:
        if self.attention_pool is not None:
            return self.attention_pool(tokens)
        match self.pool:
            case "token":
                return z[:, 0]
            case "token+mean":
                return torch.cat([z[:, 0], tokens.mean(1)], dim=-1)
            case "tokens":
                return z[:, : self.special].flatten(1)
            case "tokens-mean":
                return z[:, : self.special].mean(1)
            case _:
                return tokens.mean(1)


class TokenEncoder(TokenSequence):
    """A sequence of tokens, then L blocks and, where ``norm`` is true, the final norm.

    ``rotary``: rotary positions, instead of the others.
    """

    def __init__(
        self,
        config: TransformerConfig,
        grid: Grid,
        pool: ImagePool,
        *,
        registers: int = 0,
        pre_norm: bool = False,
        rotary: RotaryPositions | SpaceTimeRotaryPositions | None = None,
        positions: Positions = "learned",
        resize: Resize = "linear",
        norm: bool = True,
        pool_config: TransformerConfig | None = None,
    ) -> None:
        super().__init__(
            config,
            grid,
            pool,
            registers=registers,
            pre_norm=pre_norm,
            positions=positions if rotary is None else "none",
            resize=resize,
            pool_config=pool_config,
        )
        self.rotary = rotary
        block = Block if rotary is None else partial(RotaryBlock, pairs=rotary.pairs)
        self.transformer = (Transformer if norm else Stack)(config, block)

    def forward(self, tokens: Float[Tensor, "B t h w D"]) -> Features:
        grid = _grid(tokens)
        turns = () if self.rotary is None else self.rotary(grid)
        return self.features(self.transformer(self.sequence(tokens), *turns), grid)


def _positions(
    config: TransformerConfig, grid: Grid, special: int, positions: Positions, resize: Resize
) -> LearnedPositions | None:
    match positions:
        case "learned":
            start = "sinusoids" if config.start == "mimetic" else "normal"
            return LearnedPositions(grid, config.width, special=special, start=start, resize=resize)
        case "sinusoids":
            return FixedPositions(grid, config.width)
        case "none":
            return None


def _grid(tokens: Tensor) -> Grid:
    return tokens.shape[1], tokens.shape[2], tokens.shape[3]
