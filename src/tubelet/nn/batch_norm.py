"""Batch normalization over the examples of all ranks; torch's own has no CPU version."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """(x - mean) / std of each feature, scaled and shifted; over all axes but the last, and in training over all ranks.

    The running statistics move a ``momentum`` of the way at each training step. The variance is the biased one in both
    places, as the released code has it.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        mean, variance = self.mean, self.variance
        if self.training:
            flat = x.float().flatten(0, -2)
            mean = _over_ranks(flat.mean(0))
            variance = _over_ranks((flat - mean).square().mean(0))
            with torch.no_grad():
                self.mean.lerp_(mean.detach(), self.momentum)
                self.variance.lerp_(variance.detach(), self.momentum)
        return ((x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias).to(x.dtype)


def _over_ranks(values: Tensor) -> Tensor:
    """The mean over all ranks, which have as many examples each."""
    if not dist.is_initialized():
        return values
    return cast(Tensor, _Sum.apply(values)) / dist.get_world_size()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
