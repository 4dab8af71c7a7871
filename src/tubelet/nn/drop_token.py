"""DropToken: a random share of the tokens is left out in training (VATT Sec. 3.3)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class DropToken(nn.Module):
    """Chooses the tokens that training keeps: the first int(``kept`` x ``places``) of a random permutation.

    One permutation serves the whole minibatch of a rank, and the tokens stay in its order, as released. The count is
    that of the tables' ``places``, whatever the length of the input. Nothing is left out at test.
    """

    def __init__(self, kept: float, places: int) -> None:
        super().__init__()
        self.count, self.active = int(kept * places), kept < 1

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Int[Tensor, " K"] | None:
        """The places of the tokens to keep; None for all of them."""
        if not (self.training and self.active):
            return None
        return torch.randperm(tokens.shape[1], device=tokens.device)[: self.count]
