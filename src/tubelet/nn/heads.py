"""Features to logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.features import Features
from tubelet.nn.initializers import init_dense_, lecun_normal_


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

    def forward(self, features: Features) -> Float[Tensor, "*modalities B K"]:
        return self.projection(features.pooled)


class MLPHead(LinearHead):
    """Hidden layers of the given widths, each with a ReLU, before the linear classifier, as released PolyViT has."""

    def __init__(
        self,
        width: int,
        classes: int,
        init: Literal["zeros", "lecun"] = "zeros",
        bias: float = 0.0,
        hidden: Sequence[int] = (),
    ) -> None:
        super().__init__([width, *hidden][-1], classes, init, bias)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([width, *hidden]))
        for layer in self.hidden:
            init_dense_(cast("nn.Linear", layer))

    def forward(self, features: Features) -> Float[Tensor, "*modalities B K"]:
        x = features.pooled
        for layer in self.hidden:
            x = layer(x).relu()
        return self.projection(x)


class MultiHead(nn.Module):
    """One head per label set, on the same features: EPIC's verbs and nouns (ViViT Sec. 4.1)."""

    def __init__(self, heads: Mapping[str, LinearHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)

    def forward(self, features: Features) -> dict[str, Tensor]:
        return {name: head(features) for name, head in self.heads.items()}


def build_head(
    width: int, classes: int, init: Literal["zeros", "lecun"] = "zeros", bias: float = 0.0, hidden: Sequence[int] = ()
) -> LinearHead:
    """A linear head, or one with hidden layers where their widths are given."""
    return MLPHead(width, classes, init, bias, hidden) if hidden else LinearHead(width, classes, init, bias)
