"""Features to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.features import Features
from tubelet.nn.initializers import glorot_normal_, init_dense_, lecun_normal_

HeadInit = Literal["zeros", "lecun", "glorot_normal", "glorot_uniform"]
"""Where the weights of a linear classifier start: "lecun" and "glorot_normal" are truncated at two sigma."""

_INITS: dict[HeadInit, Callable[[Tensor], Tensor]] = {
    "zeros": nn.init.zeros_,
    "lecun": lecun_normal_,
    "glorot_normal": glorot_normal_,
    "glorot_uniform": nn.init.xavier_uniform_,
}


class LinearHead(nn.Module):
    """A linear classifier on the pooled features, of which ``dropout`` drops some in training.

    ``bias`` is the value its biases start from.
    """

    def __init__(
        self, width: int, classes: int, init: HeadInit = "zeros", bias: float = 0.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.projection = nn.Linear(width, classes)
        nn.init.constant_(self.projection.bias, bias)
        _INITS[init](self.projection.weight)

    def forward(self, features: Features) -> Float[Tensor, "*modalities B K"]:
        return self.projection(self.dropout(features.pooled))


class MLPHead(LinearHead):
    """Hidden layers of the given widths, each with a ReLU, before the linear classifier, as released PolyViT has."""

    def __init__(
        self,
        width: int,
        classes: int,
        init: HeadInit = "zeros",
        bias: float = 0.0,
        dropout: float = 0.0,
        hidden: Sequence[int] = (),
    ) -> None:
        super().__init__([width, *hidden][-1], classes, init, bias, dropout)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([width, *hidden]))
        for layer in self.hidden:
            init_dense_(cast("nn.Linear", layer))

    def forward(self, features: Features) -> Float[Tensor, "*modalities B K"]:
        x = features.pooled
        for layer in self.hidden:
            x = layer(x).relu()
        return self.projection(self.dropout(x))


class MultiHead(nn.Module):
    """One head per label set, on the same features: EPIC's verbs and nouns (ViViT Sec. 4.1)."""

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)

    def forward(self, features: Features) -> dict[str, Tensor]:
        return {name: head(features) for name, head in self.heads.items()}


def build_head(
    width: int,
    classes: int,
    init: HeadInit = "zeros",
    bias: float = 0.0,
    dropout: float = 0.0,
    hidden: Sequence[int] = (),
) -> LinearHead:
    """A linear head, or one with hidden layers where their widths are given."""
    if hidden:
        return MLPHead(width, classes, init, bias, dropout, hidden)
    return LinearHead(width, classes, init, bias, dropout)
