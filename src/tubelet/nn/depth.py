"""Stochastic depth (ViViT Appendix A.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Drops a residual branch per example while training.

    ``rescale`` divides the kept branches by 1 - rate: the released MTV and TokenLearner code does, the ViViT, MBT and
    PolyViT code does not (and leaves the test-time branch unscaled too). The rate is a buffer, so that a task can bring
    its own without a recompilation; ``active`` is False where no task drops anything, and the branch passes untouched.
    """

    rate: Tensor

    def __init__(self, rate: float = 0.0, rescale: bool = False) -> None:
        super().__init__()
        self.rescale, self.active = rescale, rate > 0
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def forward(self, branch: Tensor) -> Tensor:
        if not (self.training and self.active):
            return branch
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        keep = (torch.rand(shape, device=branch.device) >= self.rate).to(branch.dtype)
        return branch * (keep / (1 - self.rate) if self.rescale else keep)


def depth_rates(rate: float, layers: int, first: int = 0, end: int | None = None) -> list[float]:
    """p_l = l / (L - 1) * rate: the first layer is never dropped, the last at the full rate, as the released code does.

    The paper's Eq. 10 prints l / L. ``first`` to ``end``: of these layers, all L unless told otherwise.
    """
    return [rate * layer / max(layers - 1, 1) for layer in range(first, layers if end is None else end)]


@dataclass(frozen=True)
class Layers:
    """Which layers of a transformer of ``depth`` layers a stack of blocks is: ``first`` to ``end``."""

    first: int
    end: int
    depth: int

    def depth_rates(self, rate: float) -> list[float]:
        """The stochastic depth of each of them, where the last layer of the whole transformer has ``rate``."""
        return depth_rates(rate, self.depth, self.first, self.end)


def set_stochastic_depth(module: nn.Module, rate: float) -> None:
    """Give every stack of blocks inside ``module`` this rate, growing linearly with depth; for a task with its own.

    What lies between stacks says by its ``layers`` which layer it belongs to.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"stochastic depth {rate=} must be in [0, 1)")
    for part in module.modules():
        if isinstance(layers := getattr(part, "layers", None), Layers):
            blocks = getattr(part, "blocks", [part])
            _set_rates(cast("Iterable[nn.Module]", blocks), layers.depth_rates(rate))


def _set_rates(blocks: Iterable[nn.Module], rates: Sequence[float]) -> None:
    for block, rate in zip(blocks, rates, strict=True):
        for drop in block.modules():
            if isinstance(drop, StochasticDepth):
                drop.active = drop.active or rate > 0
                drop.rate.fill_(rate)
