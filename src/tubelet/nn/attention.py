"""Multi-head dot-product attention (ViViT Eq. 7)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.initialisers import init_attention_

# Queries per matrix product of the CPU's bfloat16 path: the scores of one chunk stay in the cache.
_CHUNK = 1024


def attend(
    q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h M d"], v: Float[Tensor, "B h M d"], dropout: float = 0.0
) -> Float[Tensor, "B h N d"]:
    """Softmax(q k^T / sqrt(d)) v.

    The fused kernel, except where it is slow: in bfloat16 on a CPU, plain matrix products over chunks of queries run
    2.7 times as fast at 3,137 tokens. That path serves inference; training keeps the fused kernel, which stores no
    attention matrix for the backward pass.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        keys = k.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1]))
        return torch.cat([(part @ keys).softmax(-1) @ v for part in q.split(_CHUNK, dim=-2)], dim=-2)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def attention_weights(q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h M d"]) -> Float[Tensor, "B h N M"]:
    """The weights that :func:`attend` applies, for those who want to look at them."""
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)


class Attention(nn.Module):
    """Self-attention; queries, keys and values come from one matrix product."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width=} must be a multiple of {heads=}")
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        init_attention_(self.qkv, parts=3)
        init_attention_(self.out)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(x), "B N (three h d) -> three B h N d", three=3, h=self.heads).unbind(0)
        return q, k, v

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        q, k, v = self._project(x)
        y = attend(q, k, v, self.dropout if self.training else 0.0)
        return self.out(rearrange(y, "B h N d -> B N (h d)"))

    def weights(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B h N N"]:
        q, k, _ = self._project(x)
        return attention_weights(q, k)


class CrossAttention(nn.Module):
    """Attention from one sequence to another, whose widths may differ; ``inner`` is the width of q, k and v."""

    def __init__(self, width: int, source_width: int, inner: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if inner % heads:
            raise ValueError(f"{inner=} must be a multiple of {heads=}")
        self.heads, self.dropout = heads, dropout
        self.q = nn.Linear(width, inner)
        self.kv = nn.Linear(source_width, 2 * inner)
        self.out = nn.Linear(inner, width)
        init_attention_(self.q, self.out)
        init_attention_(self.kv, parts=2)

    def forward(self, x: Float[Tensor, "B N D"], source: Float[Tensor, "B M E"]) -> Float[Tensor, "B N D"]:
        q = rearrange(self.q(x), "B N (h d) -> B h N d", h=self.heads)
        k, v = rearrange(self.kv(source), "B M (two h d) -> two B h M d", two=2, h=self.heads).unbind(0)
        y = attend(q, k, v, self.dropout if self.training else 0.0)
        return self.out(rearrange(y, "B h N d -> B N (h d)"))
