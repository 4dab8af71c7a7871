"""The transformer block and stacks of it (ViViT Eq. 2-3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.attention import Attention, Bias, BiasedAttention
from tubelet.nn.depth import Layers, StochasticDepth
from tubelet.nn.initializers import init_mlp_, mimetic_attention_
from tubelet.nn.layer_scale import branch_end

_DEEPEST = 1000


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The size of a stack of blocks, and its regularizers.

    ``gelu`` "tanh" and ``norm_eps`` 1e-6 are the released JAX code's; weights of other origin may want others.
    ``rescale_depth``: see :class:`~tubelet.nn.depth.StochasticDepth`. ``start``: what attention and positions start as;
    "released" is the released code's random numbers, "mimetic" what trained models look like (see
    :func:`~tubelet.nn.initializers.mimetic_attention_` and :class:`~tubelet.nn.positions.LearnedPositions`), from which
    a model learns a small data set in a fraction of the updates. ``head_width``: the channels of each head's queries,
    keys and values; ``width`` / ``heads``, if 0. ``gelu`` "quick" is CLIP's x sigmoid(1.702 x). ``gated``: MLPs are
    SwiGLUs, silu(W1 x) W2 x, in which ``mlp`` is the width of each factor. ``layer_scale``: what the learned factors of
    each branch's channels start as (CaiT, DINOv2); there are none, if 0.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0
    rescale_depth: bool = False
    gelu: Literal["tanh", "exact", "quick"] = "tanh"
    norm_eps: float = 1e-6
    start: Literal["released", "mimetic"] = "released"
    head_width: int = 0
    gated: bool = False
    layer_scale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "heads", "mlp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.head_width < 0 or self.norm_eps < 0:
            raise ValueError(f"{self.head_width=} and {self.norm_eps=} must not be negative")
        if self.layer_scale < 0:
            raise ValueError(f"{self.layer_scale=} must not be negative")
        if not self.head_width and self.width % self.heads:
            raise ValueError(f"{self.width=} must be a multiple of {self.heads=}")
        if self.start == "mimetic" and self.inner != self.width:
            raise ValueError(f'start="mimetic" needs heads of {self.width=} / {self.heads=} channels each')
        if not 0 <= self.depth <= _DEEPEST:
            raise ValueError(f"{self.depth=} must be from 0 to {_DEEPEST:,}")
        for name in ("dropout", "attention_dropout", "stochastic_depth"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1)")

    @property
    def inner(self) -> int:
        """The width of queries, keys and values, all heads together."""
        return self.heads * self.head_width or self.width

    def norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.width, eps=self.norm_eps)

    def drop(self, rate: float) -> StochasticDepth:
        return StochasticDepth(rate, self.rescale_depth)


# Tokens that go through an MLP at a time where no gradient is kept: what lies between its layers stays in memory that
# the allocator keeps, instead of pages that a CPU's kernel hands out and clears anew for every block.
_ROWS = 1024


class MLP(nn.Sequential):
    """Two linear maps, with or without biases, and a GELU or a SwiGLU's product between them."""

    def __init__(self, config: TransformerConfig, bias: bool = True) -> None:
        expand = nn.Linear(config.width, config.mlp * (2 if config.gated else 1), bias=bias)
        reduce = branch_end(config.mlp, config.width, config.layer_scale, bias)
        init_mlp_(expand, reduce)
        super().__init__(expand, _activation(config), nn.Dropout(config.dropout), reduce, nn.Dropout(config.dropout))

    def forward(self, input: Float[Tensor, "*tokens D"]) -> Float[Tensor, "*tokens D"]:
        if torch.is_grad_enabled() or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        rows = input.flatten(0, -2).split(_ROWS)
        return torch.cat([super(MLP, self).forward(part) for part in rows]).view_as(input)


def _activation(config: TransformerConfig) -> nn.Module:
    if config.gated:
        return Gate()
    return QuickGELU() if config.gelu == "quick" else nn.GELU("tanh" if config.gelu == "tanh" else "none")


class Gate(nn.Module):
    """silu(a) b, of channels [a, b]."""

    def forward(self, x: Float[Tensor, "*tokens two_D"]) -> Float[Tensor, "*tokens D"]:
        a, b = x.chunk(2, dim=-1)
        return F.silu(a) * b


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), the GELU of the released CLIP."""

    def forward(self, x: Float[Tensor, "*tokens D"]) -> Float[Tensor, "*tokens D"]:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """y = x + MSA(LN(x)), z = y + MLP(LN(y)) (Eq. 2-3)."""

    def __init__(self, config: TransformerConfig, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.norm_attention = config.norm()
        self.attention = Attention(
            config.width, config.heads, config.attention_dropout, inner=config.inner, layer_scale=config.layer_scale
        )
        if config.start == "mimetic":
            mimetic_attention_(self.attention.qkv, self.attention.out, config.heads)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_mlp = config.norm()
        self.mlp = MLP(config)
        self.drop = config.drop(drop_rate)

    def forward(self, x: Float[Tensor, "B ... D"]) -> Float[Tensor, "B ... D"]:
        y = self.attend(x)
        return y + self.drop(self.mlp(self.norm_mlp(y)))

    def attend(self, x: Float[Tensor, "B ... D"]) -> Float[Tensor, "B ... D"]:
        """The first half (Eq. 2)."""
        return x + self.drop(self.dropout(self.attention(self.norm_attention(x))))


class BiasedBlock(Block):
    """A block whose attention adds a bias to its scores: a mask of keys, or relative positions."""

    def __init__(self, config: TransformerConfig, drop_rate: float = 0.0) -> None:
        super().__init__(config, drop_rate)
        self.attention = BiasedAttention(
            config.width, config.heads, config.attention_dropout, inner=config.inner, layer_scale=config.layer_scale
        )

    def forward(self, x: Float[Tensor, "B N D"], bias: Bias = None) -> Float[Tensor, "B N D"]:
        y = x + self.drop(self.dropout(self.attention(self.norm_attention(x), bias)))
        return y + self.drop(self.mlp(self.norm_mlp(y)))


class Stack(nn.Module):
    """The blocks ``first`` to ``end`` of a transformer of ``config.depth`` blocks; all of them, unless told otherwise.

    ``block`` makes a block of the size and its rate of stochastic depth: the factorized models bring their own.
    """

    def __init__(
        self,
        config: TransformerConfig,
        block: Callable[[TransformerConfig, float], Block] = Block,
        *,
        first: int = 0,
        end: int | None = None,
    ) -> None:
        super().__init__()
        self.layers = Layers(first, config.depth if end is None else end, config.depth)
        self.blocks = nn.ModuleList(block(config, rate) for rate in self.layers.depth_rates(config.stochastic_depth))

    def forward(self, x: Tensor, *bias: Tensor) -> Tensor:
        """``bias``: that of each :class:`BiasedBlock`, the same for all."""
        for block in self.blocks:
            x = block(x, *bias)
        return x


class Transformer(Stack):
    """L blocks and a final norm."""

    def __init__(
        self, config: TransformerConfig, block: Callable[[TransformerConfig, float], Block] = Block, *, first: int = 0
    ) -> None:
        super().__init__(config, block, first=first)
        self.norm = config.norm()

    def forward(self, x: Tensor, *bias: Tensor) -> Tensor:
        return self.norm(super().forward(x, *bias))
