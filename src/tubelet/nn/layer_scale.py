"""Layer scale: a learned factor for each channel of what a branch adds to the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaledLinear(nn.Linear):
    """A linear map whose outputs have a learned factor each, ``gamma``, which starts as ``scale`` (CaiT, Sec. 2)."""

    def __init__(self, source: int, width: int, scale: float, bias: bool = True) -> None:
        super().__init__(source, width, bias=bias)
        self.gamma = nn.Parameter(torch.full((width,), scale))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.gamma

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        """The linear map that computes the same, with the factors in its weights."""
        biased = "bias" in dict(self.named_parameters())
        linear = nn.Linear(self.in_features, self.out_features, bias=biased).to(self.weight)
        linear.weight.copy_(self.weight * self.gamma[:, None])
        if biased:
            linear.bias.copy_(self.bias * self.gamma)
        return linear


def branch_end(source: int, width: int, scale: float, bias: bool = True) -> nn.Linear:
    """The last linear map of a branch: with layer scale, unless ``scale`` is 0."""
    return ScaledLinear(source, width, scale, bias) if scale else nn.Linear(source, width, bias=bias)
