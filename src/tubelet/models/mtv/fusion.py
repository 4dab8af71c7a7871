"""What MTV's streams tell each other: one layer of all of them at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.mtv.config import BOTTLENECK
from tubelet.nn.attention import CrossAttention
from tubelet.nn.blocks import Block, TransformerConfig
from tubelet.nn.depth import Layers
from tubelet.nn.inflation import Inflation
from tubelet.nn.initializers import init_attention_, lecun_normal_
from tubelet.nn.positions import interpolate_grid

Streams = dict[str, Tensor]
"""(b, r, n, D) by name: r frames of n tokens each, that attend to one another."""


class TokensInTime(nn.Module):
    """Learned tokens for each of T time indices; for another number of them, interpolated as the released code does."""

    def __init__(self, times: int, count: int, width: int, std: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(times, count, width))
        if std:
            nn.init.normal_(self.table, std=std)

    def forward(self, times: int) -> Float[Tensor, "t n D"]:
        return at_times(self.table, times)

    def resample(self, name: str, value: Tensor, theirs: nn.Module, how: Inflation) -> Tensor:
        """``value``, the tokens of each of other time indices, for these; those of an image (n, D) serve for all."""
        times = len(self.table)
        return value.expand(times, -1, -1) if value.ndim == 2 else at_times(value, times)


def at_times(tokens: Float[Tensor, "T n D"], times: int) -> Float[Tensor, "t n D"]:
    T, n, _ = tokens.shape
    if times == T:
        return tokens
    return interpolate_grid(tokens.flatten(1), (T, 1, 1), (times, 1, 1)).unflatten(-1, (n, -1))


class Lateral(nn.Module):
    """A layer of all streams. This one lets each go its own way (late fusion); a stream with fewer layers is done."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Streams, blocks: Mapping[str, Block]) -> Streams:
        """``blocks``: those of this layer, by the name of the stream."""
        return x | {name: self.step(block, x[name]) for name, block in blocks.items()}

    def step(self, block: Block, x: Tensor) -> Float[Tensor, "b r n D"]:
        return block(x.flatten(1, 2)).view_as(x)


class CrossView(nn.Module):
    """What one stream takes from another: cross-attention, zero at the start of training."""

    def __init__(
        self, query: TransformerConfig, source: TransformerConfig, width: Literal["query", "source"], layer: int
    ) -> None:
        super().__init__()
        inner = query if width == "query" else source
        self.attention = CrossAttention(query.width, source.width, inner.width, inner.heads, query.attention_dropout)
        self.dropout = nn.Dropout(query.dropout)
        self.layers = Layers(layer, layer + 1, source.depth)
        self.drop = query.drop(*self.layers.depth_rates(query.stochastic_depth))
        lecun_normal_(self.attention.q.weight)
        lecun_normal_(self.attention.kv.weight)
        nn.init.zeros_(self.attention.out.weight)

    def forward(self, query: Float[Tensor, "b N D"], source: Float[Tensor, "b M E"]) -> Float[Tensor, "b N D"]:
        return self.drop(self.dropout(self.attention(query, source)))


class CrossViewLayer(Lateral):
    """Cross-view attention, then every stream's own block: ``reads`` names the stream that each one takes from.

    All streams take at once, from the tokens that entered the layer: what one receives is not passed on before the next
    such layer. A stream whose blocks have ended still takes.
    """

    def __init__(
        self,
        layer: int,
        sizes: Mapping[str, TransformerConfig],
        reads: Mapping[str, str],
        width: Literal["query", "source"],
    ) -> None:
        super().__init__(layer)
        self.reads = dict(reads)
        self.norms = nn.ModuleDict({name: size.norm() for name, size in sizes.items()})
        self.cross = nn.ModuleDict({q: CrossView(sizes[q], sizes[kv], width, layer) for q, kv in reads.items()})

    def forward(self, x: Streams, blocks: Mapping[str, Block]) -> Streams:
        normed = {name: norm(x[name]).flatten(1, 2) for name, norm in self.norms.items()}
        taken: Streams = {}
        for query, source in self.reads.items():
            cross = cast("CrossView", self.cross[query])
            taken[query] = x[query] + cross(normed[query], normed[source]).view_as(x[query])
        return super().forward(x | taken, blocks)


class MLPLayer(Lateral):
    """The MLP of each stream also reads what the next finer stream's MLP reads at the same place.

    The finer stream's frames that fall into one of the stream's own are averaged. The released code has no such fusion;
    this reading meets its printed cost. ``expand`` is the part of the MLP's first layer that reads the other stream: it
    stands apart so that an image ViT's MLP fits the rest, and is zero at the start of training.
    """

    def __init__(self, layer: int, sizes: Mapping[str, TransformerConfig], reads: Mapping[str, str]) -> None:
        super().__init__(layer)
        self.reads = dict(reads)
        self.expand = nn.ModuleDict(
            {name: nn.Linear(sizes[other].width, sizes[name].mlp, bias=False) for name, other in reads.items()}
        )
        for linear in self.expand.values():
            nn.init.zeros_(cast("nn.Linear", linear).weight)

    def forward(self, x: Streams, blocks: Mapping[str, Block]) -> Streams:
        y: Streams = dict(x)
        read: Streams = {}
        for name, block in blocks.items():
            tokens = x[name].flatten(1, 2)
            y[name] = block.attend(tokens).view_as(x[name])
            read[name] = block.norm_mlp(y[name])
        for name, block in blocks.items():
            first, *rest = block.mlp
            hidden = first(read[name])
            if (other := self.reads.get(name)) in read:
                k = read[other].shape[1] // read[name].shape[1]
                frames = rearrange(read[other], "b (r k) n D -> b r k n D", k=k).mean(2)
                hidden = hidden + self.expand[name](frames)
            for layer in rest:
                hidden = layer(hidden)
            y[name] = y[name] + block.drop(hidden)
        return y


class BottleneckLayer(Lateral):
    """Streams take turns in ``order`` at the same few tokens: what one wrote there is read by the next, and at the next
    such layer by the first again. Where widths differ the tokens are projected (``width``: theirs at the beginning)."""

    def __init__(self, layer: int, sizes: Mapping[str, TransformerConfig], order: tuple[str, ...], width: int) -> None:
        super().__init__(layer)
        self.order = tuple(name for name in order if layer < sizes[name].depth)
        self.project = nn.ModuleDict()
        for name in self.order:
            if width != sizes[name].width:
                linear = nn.Linear(width, sizes[name].width)
                init_attention_(linear)
                self.project[name] = linear
            width = sizes[name].width
        self.width = width

    def forward(self, x: Streams, blocks: Mapping[str, Block]) -> Streams:
        y = dict(x)
        for name in self.order:
            bottleneck = self.project[name](y[BOTTLENECK]) if name in self.project else y[BOTTLENECK]
            tokens = torch.cat([x[name].flatten(1, 2), bottleneck], dim=1)
            out, y[BOTTLENECK] = blocks[name](tokens).split(
                [tokens.shape[1] - bottleneck.shape[1], bottleneck.shape[1]], 1
            )
            y[name] = out.view_as(x[name])
        return y
