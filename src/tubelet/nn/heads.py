"""Features to logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.features import Features
from tubelet.nn.initialisers import lecun_normal_


class LinearHead(nn.Module):
    """A linear classifier on the pooled features. ``bias`` is the value its biases start from."""

    def __init__(self, width: int, classes: int, init: Literal["zeros", "lecun"] = "zeros", bias: float = 0.0) -> None:
        super().__init__()
        self.projection = nn.Linear(width, classes)
        nn.init.constant_(self.projection.bias, bias)
        if init == "zeros":
            nn.init.zeros_(self.projection.weight)
        else:
            lecun_normal_(self.projection.weight)

    def forward(self, features: Features) -> Float[Tensor, "B K"]:
        return self.projection(features.pooled)


class MultiHead(nn.Module):
    """One head per label set, on the same features: EPIC's verbs and nouns (ViViT Sec. 4.1)."""

    def __init__(self, heads: Mapping[str, LinearHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)

    def forward(self, features: Features) -> dict[str, Tensor]:
        return {name: head(features) for name, head in self.heads.items()}
