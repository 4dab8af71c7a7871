"""Attention rollout (Abnar & Zuidema 2020): how much of each token reaches the pooled feature.

A block's attention, averaged over its heads and mixed half and half with the residual connection, moves shares of the
result from tokens to the tokens that they were made of. Starting at what reads the result (the class token, or the mean
of all tokens) and going backwards costs a product of a vector and a matrix per block, not of two matrices. Each family
puts these steps together as it computes attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from tubelet.nn.positions import Grid

Maps = Mapping[str, Tensor]
Shares = Float[Tensor, "B t h w"]


def back(
    shares: Float[Tensor, "... N"], weights: Float[Tensor, "... heads N N"], keep: float = 0.5
) -> Float[Tensor, "... N"]:
    """One step back through a block: ``keep`` stays where it is, by the residual connection."""
    return keep * shares + (1 - keep) * moved(shares, weights)


def moved(shares: Float[Tensor, "... N"], weights: Float[Tensor, "... heads N M"]) -> Float[Tensor, "... M"]:
    """What each token gives to those that it attends to, by the mean over heads."""
    return einsum(shares, weights.mean(-3), "... n, ... n m -> ... m")


def sequence(layers: Sequence[Float[Tensor, "... heads _ M"]], tokens: int) -> Float[Tensor, "... N"]:
    """Shares of ``tokens`` tokens, before which a class token may stand: then it reads the result, else the mean; or
    the query of a pool by attention, whose weights are the last."""
    length = layers[0].shape[-1]
    special = length - tokens
    if layers[-1].shape[-2] == 1 < length:
        *layers, pool = layers
        shares = F.pad(pool.mean(-3)[..., 0, :], (length - pool.shape[-1], 0))
    else:
        shares = layers[0].new_zeros(*layers[0].shape[:-3], length)
        shares[..., : special or length] = 1 / (special or length)
    for weights in reversed(layers):
        shares = back(shares, weights)
    shares = shares[..., special:]
    return shares / shares.sum(-1, keepdim=True)


def plain(maps: Maps, grid: Grid) -> Shares:
    """Attention among all tokens of the grid, (B, heads, N, N) per layer: ViT, AST, PolyViT, ViViT's Model 1."""
    t, h, w = grid
    return sequence(list(maps.values()), t * h * w).unflatten(-1, grid)


def below(maps: Maps, prefix: str) -> list[Tensor]:
    """The maps of the layers inside the module ``prefix``, in order."""
    return [weights for name, weights in maps.items() if name.startswith(f"{prefix}.")]


def spread(spans: Float[Tensor, "N 2"], size: int, cell: int) -> Float[Tensor, "N cells"]:
    """How much of each [start, end) lies in each cell; rows sum to 1."""
    starts = torch.arange(0, size, cell)
    inside = torch.minimum(spans[:, 1:], starts + cell) - torch.maximum(spans[:, :1], starts)
    return inside.clamp(min=0) / inside.clamp(min=0).sum(1, keepdim=True)


def over_places(
    shares: Float[Tensor, "B N"], boxes: Float[Tensor, "N 3 2"], extent: Grid, cell: Grid
) -> Float[Tensor, "B t h w"]:
    """Shares of tokens that cover ``boxes`` (frames, rows, columns) of an ``extent``, spread evenly over its cells."""
    axes: Iterable[tuple[Tensor, int, int]] = zip(boxes.unbind(1), extent, cell, strict=True)
    time, height, width = (spread(*axis).to(shares) for axis in axes)
    return einsum(shares, time, height, width, "B n, n t, n h, n w -> B t h w")
