"""Multi-head dot-product attention (ViViT Eq. 7)."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.initializers import init_attention_
from tubelet.nn.layer_scale import branch_end

# Queries per matrix product of the chunked kernel: the scores of one chunk stay in the cache.
_CHUNK = 1024

Kernel = Literal["auto", "fused", "chunked"]
_kernel: Kernel = "auto"

Bias = Float[Tensor, "#B #h #N M"] | None
"""What is added to the scores of attention: -1e9 for keys that nothing attends to, or a bias of relative positions."""


def set_attention_kernel(kernel: Kernel) -> None:
    """Choose how attention is computed, in this process.

    "fused": torch's scaled_dot_product_attention. "chunked": plain matrix products over 1,024 queries at a time, where
    no gradient is kept. "auto", the default, is "chunked" for bfloat16 on a CPU with 1,024 queries or more, and "fused"
    everywhere else: there, most CPUs compute chunks two to three times as fast, and some (with AMX units that torch's
    kernel uses) two to three times as slowly. Nothing is timed, so that results are the same from run to run.
    """
    global _kernel
    if kernel not in get_args(Kernel):
        raise ValueError(f"{kernel=} is none of {', '.join(get_args(Kernel))}")
    _kernel = kernel


def attend(
    q: Float[Tensor, "B h N d"],
    k: Float[Tensor, "B h M d"],
    v: Float[Tensor, "B h M d"],
    dropout: float = 0.0,
    *,
    scale: float | None = None,
    bias: Bias = None,
) -> Float[Tensor, "B h N d"]:
    """Softmax(``scale`` q k^T + ``bias``) v, by the kernel that :func:`set_attention_kernel` describes.

    ``scale`` is 1 / sqrt(d) if None. Training, and attention with a bias, always take the fused kernel, which stores no
    attention matrix.
    """
    chunked = _kernel == "chunked" or (_kernel == "auto" and _chunks_are_better(q))
    if chunked and bias is None and not torch.is_grad_enabled():
        return attend_in_chunks(q, k, v, scale)
    return F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=scale)


def _chunks_are_better(q: Tensor) -> bool:
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] >= _CHUNK


def attend_in_chunks(
    q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h M d"], v: Float[Tensor, "B h M d"], scale: float | None = None
) -> Float[Tensor, "B h N d"]:
    """What :func:`attend` computes, head by head and 1,024 queries at a time, as plain matrix products."""
    y = torch.empty_like(q, memory_format=torch.contiguous_format)  # its heads are then views to write into
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    for y_Nd, q_Nd, k_Md, v_Md in zip(*(x.flatten(0, 1) for x in (y, q, k, v)), strict=True):
        keys_dM = (k_Md * scale).t()
        for out, queries in zip(y_Nd.split(_CHUNK), q_Nd.split(_CHUNK), strict=True):
            torch.matmul((queries @ keys_dM).softmax(-1), v_Md, out=out)
    return y


def attention_weights(
    q: Float[Tensor, "B h N d"], k: Float[Tensor, "B h M d"], *, scale: float | None = None, bias: Bias = None
) -> Float[Tensor, "B h N M"]:
    """The weights that :func:`attend` applies, for those who want to look at them."""
    scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    return (scores if bias is None else scores + bias).softmax(-1)


@contextmanager
def capture_attention(model: nn.Module) -> Generator[dict[str, Tensor]]:
    """The attention weights of every forward pass of ``model`` that runs inside::

        with capture_attention(model) as maps:
            model(video)

    ``maps`` is filled by the name of the attention layer in ``model`` ("encoder.transformer.blocks.0.attention"), in
    the order of the computation: (B, heads, queries, keys), detached. Where frames or places attend apart, B counts
    them, too: (B t) for attention within each of t time indices. A layer that has several maps names them
    ("....attention.time"), and one that runs more than once numbers them from the second on ("....attention:1"). The
    weights are computed beside the forward pass, which stays as it is. They are large: 12 layers of 12 heads on 3,137
    tokens (ViViT-B/16x2) take 5.7 GB per video. Layers that torch.compile has compiled are not seen.
    """
    maps: dict[str, Tensor] = {}

    def remember(name: str, module: Any, inputs: tuple[Tensor | None, ...]) -> None:
        for part, weights in module.attention_maps(*inputs).items():
            key = f"{name}.{part}" if part else name
            again = sum(known.partition(":")[0] == key for known in maps)
            maps[f"{key}:{again}" if again else key] = weights.detach()

    handles = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: remember(name, module, inputs))
        for name, module in model.named_modules()
        if hasattr(module, "attention_maps")
    ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


class Attention(nn.Module):
    """Self-attention; queries, keys and values come from one matrix product.

    ``inner``: the width of queries, keys and values, all heads together; ``width``, if 0. ``bias``: whether the linear
    maps have biases. ``scale``: what scores are multiplied by, 1 / sqrt(d) if None; T5's attention has 1.
    ``layer_scale``: see :func:`~tubelet.nn.layer_scale.branch_end`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        *,
        inner: int = 0,
        bias: bool = True,
        scale: float | None = None,
        layer_scale: float = 0.0,
    ) -> None:
        super().__init__()
        inner = inner or width
        if inner % heads:
            raise ValueError(f"{width=} must be a multiple of {heads=}")
        self.heads, self.dropout, self.scale = heads, dropout, scale
        self.qkv = nn.Linear(width, 3 * inner, bias=bias)
        self.out = branch_end(inner, width, layer_scale, bias)
        init_attention_(self.qkv, parts=3)
        init_attention_(self.out)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(x), "B N (three h d) -> three B h N d", three=3, h=self.heads).unbind(0)
        return q, k, v

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self._attend(x, None)

    def _attend(self, x: Tensor, bias: Bias) -> Tensor:
        q, k, v = self._project(x)
        y = attend(q, k, v, self.dropout if self.training else 0.0, scale=self.scale, bias=bias)
        return self.out(rearrange(y, "B h N d -> B N (h d)"))

    def attention_maps(self, x: Float[Tensor, "B N D"]) -> dict[str, Tensor]:
        """The weights (B, h, N, N); see :func:`capture_attention`."""
        return self._maps(x, None)

    def _maps(self, x: Tensor, bias: Bias) -> dict[str, Tensor]:
        q, k, _ = self._project(x)
        return {"": attention_weights(q, k, scale=self.scale, bias=bias)}


class BiasedAttention(Attention):
    """Self-attention with a bias (B or 1, h or 1, N or 1, N) that is added to the scores."""

    def forward(self, x: Float[Tensor, "B N D"], bias: Bias = None) -> Float[Tensor, "B N D"]:
        return self._attend(x, bias)

    def attention_maps(self, x: Float[Tensor, "B N D"], bias: Bias = None) -> dict[str, Tensor]:
        """The weights (B, h, N, N); see :func:`capture_attention`."""
        return self._maps(x, bias)


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

    def attention_maps(self, x: Float[Tensor, "B N D"], source: Float[Tensor, "B M E"]) -> dict[str, Tensor]:
        """The weights (B, h, N, M); see :func:`capture_attention`."""
        q, k, _ = self._project(x, source)
        return {"": attention_weights(q, k)}

    def _project(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = rearrange(self.q(x), "B N (h d) -> B h N d", h=self.heads)
        k, v = rearrange(self.kv(source), "B M (two h d) -> two B h M d", two=2, h=self.heads).unbind(0)
        return q, k, v
