"""Multi-head dot-product attention (ViViT Eq. 7)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.compiling import constant_result
from tubelet.nn.initializers import init_attention_

# Queries per matrix product of the chunked path: the scores of one chunk stay in the cache.
_CHUNK = 1024


def attend(
    q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h M d"], v: Float[Tensor, "B h M d"], dropout: float = 0.0
) -> Float[Tensor, "B h N d"]:
    """Softmax(q k^T / sqrt(d)) v, by the fused kernel.

    One exception: bfloat16 inference on a CPU, where the fused kernel is nearly three times as fast as plain matrix
    products over chunks of queries on some CPUs, and nearly three times as slow on others. For long sequences the
    faster one is taken, measured once per process. Training keeps the fused kernel, which stores no attention matrix.
    """
    slow_kernel = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] >= _CHUNK
    if slow_kernel and not torch.is_grad_enabled() and _chunks_are_faster():
        return attend_in_chunks(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def attend_in_chunks(
    q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h M d"], v: Float[Tensor, "B h M d"]
) -> Float[Tensor, "B h N d"]:
    """What :func:`attend` computes, head by head and 1,024 queries at a time, as plain matrix products."""
    y = torch.empty_like(q, memory_format=torch.contiguous_format)  # its heads are then views to write into
    scale = 1 / math.sqrt(q.shape[-1])
    for y_Nd, q_Nd, k_Md, v_Md in zip(*(x.flatten(0, 1) for x in (y, q, k, v)), strict=True):
        keys_dM = (k_Md * scale).t()
        for out, queries in zip(y_Nd.split(_CHUNK), q_Nd.split(_CHUNK), strict=True):
            torch.matmul((queries @ keys_dM).softmax(-1), v_Md, out=out)
    return y


@constant_result
@cache
def _chunks_are_faster() -> bool:
    """Whether chunks beat the fused kernel on this CPU in bfloat16: the best of three on two heads of 2,048 tokens."""
    x = torch.ones(1, 2, 2048, 64, dtype=torch.bfloat16)  # no draw: the caller's random numbers stay as they are

    def seconds(attention: Callable[..., Tensor]) -> float:
        times: list[float] = []
        for _ in range(4):
            start = time.perf_counter()
            attention(x, x, x)
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return seconds(attend_in_chunks) < seconds(F.scaled_dot_product_attention)


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
        q, k, v = self._project(x, source)
        y = attend(q, k, v, self.dropout if self.training else 0.0)
        return self.out(rearrange(y, "B h N d -> B N (h d)"))

    def weights(self, x: Float[Tensor, "B N D"], source: Float[Tensor, "B M E"]) -> Float[Tensor, "B h N M"]:
        q, k, _ = self._project(x, source)
        return attention_weights(q, k)

    def _project(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = rearrange(self.q(x), "B N (h d) -> B h N d", h=self.heads)
        k, v = rearrange(self.kv(source), "B M (two h d) -> two B h M d", two=2, h=self.heads).unbind(0)
        return q, k, v
