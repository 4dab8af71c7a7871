"""T5's relative positions: a learned bias of attention by the distance of two tokens (Raffel et al. 2020, Sec. 2.1)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """A number for each head and each bucket of distances, added to the scores of attention.

    ``buckets`` of both directions together; all distances from ``farthest`` on share the last one.
    """

    def __init__(self, heads: int, buckets: int = 32, farthest: int = 64) -> None:
        super().__init__()
        self.buckets, self.farthest = buckets, farthest
        self.table = nn.Parameter(torch.empty(buckets, heads))
        nn.init.uniform_(self.table, -0.05, 0.05)

    def forward(self, length: int) -> Float[Tensor, "1 h N N"]:
        places = torch.arange(length, device=self.table.device)
        bucket = relative_buckets(places - places[:, None], self.buckets, self.farthest)
        return self.table[bucket].permute(2, 0, 1)[None]


def relative_buckets(
    distance: Int[Tensor, "*any"], buckets: int, farthest: int, both: bool = True
) -> Int[Tensor, "*any"]:
    """The bucket of every key's place less its query's.

    With ``both``, keys after the query have the upper half of the buckets; without, they count as distance 0. Half of
    the buckets of a direction hold one distance each, the others as many as grow logarithmically up to ``farthest``.
    """
    behind = -distance
    first = torch.zeros_like(behind)
    if both:
        buckets //= 2
        first = (behind < 0) * buckets
        behind = behind.abs()
    behind = behind.clamp(min=0)
    exact = buckets // 2
    ratio = torch.log(behind.clamp(min=1).float() / exact) / math.log(farthest / exact)
    far = (exact + (ratio * (buckets - exact)).to(behind.dtype)).clamp(max=buckets - 1)
    return first + torch.where(behind < exact, behind, far)
