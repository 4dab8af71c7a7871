"""The steps that attention rollouts are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor


def back(
    shares: Float[Tensor, "... N"], weights: Float[Tensor, "... heads N N"], keep: float = 0.5
) -> Float[Tensor, "... N"]:
    """One step back through a block: ``keep`` stays where it is, by the residual connection."""
    return keep * shares + (1 - keep) * moved(shares, weights)


def moved(shares: Float[Tensor, "... N"], weights: Float[Tensor, "... heads N M"]) -> Float[Tensor, "... M"]:
    """What each token gives to those that it attends to, by the mean over heads."""
    return einsum(shares, weights.mean(-3), "... n, ... n m -> ... m")


def sequence(layers: Sequence[Float[Tensor, "... heads M M"]], tokens: int) -> Float[Tensor, "... N"]:
    """Shares of ``tokens`` tokens, before which a class token may stand: then it reads the result, else the mean."""
    length = layers[0].shape[-1]
    special = length - tokens
    shares = layers[0].new_zeros(*layers[0].shape[:-3], length)
    shares[..., : special or length] = 1 / (special or length)
    for weights in reversed(layers):
        shares = back(shares, weights)
    shares = shares[..., special:]
    return shares / shares.sum(-1, keepdim=True)


def spread(spans: Float[Tensor, "N 2"], size: int, cell: int) -> Float[Tensor, "N cells"]:
    """How much of each [start, end) lies in each cell; rows sum to 1."""
    starts = torch.arange(0, size, cell)
    inside = torch.minimum(spans[:, 1:], starts + cell) - torch.maximum(spans[:, :1], starts)
    return inside.clamp(min=0) / inside.clamp(min=0).sum(1, keepdim=True)
