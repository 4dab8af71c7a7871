"""The interface of all objectives, and what several of them share: mixup, and fitting a linear head."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tubelet.cards import TaskCard
from tubelet.data.batch import Batch
from tubelet.data.manifest import Manifest
from tubelet.models.model import Encoder, Model
from tubelet.nn.heads import LinearHead
from tubelet.training.ranks import Ranks


@dataclass(frozen=True)
class Linear:
    """A linear map of features: ``weight`` (K, D), ``bias`` (K,), and the ``cost`` it was fitted with."""

    weight: Tensor
    bias: Tensor
    cost: float


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """What a task optimizes: its head, its loss, and the card that says what the head answers and how it is scored.

    A kind of objective is a frozen dataclass below this one; ``tubelet.configs.register(Objective, "name", TheClass)``
    lets experiments hold it.
    """

    summed: ClassVar[bool] = True
    """Whether the loss is a mean over examples, so that a minibatch's gradient is the sum of its micro-batches'."""

    by_class: ClassVar[bool] = True
    """Whether labels name classes, of each of which validation examples are held out."""

    @abstractmethod
    def resolved(self, manifest: Manifest, split: str) -> Objective:
        """The objective with what only the training ``split`` can say, such as its classes. Raises ManifestError."""

    @abstractmethod
    def card(self, inputs: tuple[str, ...] = ()) -> TaskCard:
        """What the model's folder keeps, once the objective is resolved. ``inputs``: the task's."""

    @abstractmethod
    def __call__(self, model: Model, batch: Batch, ranks: Ranks) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a minibatch, and detached tensors to log; neither waits for the device."""

    @property
    def metric(self) -> str:
        """The metric that is reported first."""
        return self.card().metric

    @property
    def mixes(self) -> bool:
        """Whether it mixes pairs of examples."""
        return False

    def head(self, encoder: Encoder) -> nn.Module:
        """A head for the features of ``encoder``, as training starts it."""
        return self.card().head(encoder)

    def linear_heads(self, head: nn.Module) -> dict[str, LinearHead]:
        """The linear maps that the ``head`` consists of, by the names of their targets, if :meth:`fit` can set them."""
        return {}

    def fit(self, name: str, pooled: Tensor, targets: Tensor, held_out: tuple[Tensor, Tensor] | None) -> Linear | None:
        """The linear map of features (N, D) to the ``targets`` called ``name`` that suits those ``held_out`` best; None
        where there is none."""
        return None


@dataclass(frozen=True)
class Mixup:
    """Convex combinations of the examples of a minibatch (ViViT Appendix A.1); ``alpha`` 0 does nothing.

    One weight, drawn from Beta(alpha, alpha), for the whole minibatch; the partner of an example is the one as far from
    the end as it is from the start. Both as the released code has them. With micro-batches or several ranks the partner
    lies in the same part; the weight is the same for all micro-batches, and differs between ranks.

    ``per_example``: each example has a weight of its own, and partners by a random permutation, as the released VATT
    code does for AudioSet.
    """

    alpha: float = 0.0
    per_example: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"mixup {self.alpha=} must be at least 0, and finite")

    def weight(self, seed: int) -> float:
        """The share of the example itself, the rest being its partner's: 1 where mixup does nothing."""
        return random.Random(seed).betavariate(self.alpha, self.alpha) if self.alpha else 1.0

    def drawn(self, seed: int, examples: int) -> Mix:
        """The weights and partners of a minibatch."""
        if not self.per_example:
            return Mix(self.weight(seed))
        draw = random.Random(seed)
        weights = [draw.betavariate(self.alpha, self.alpha) if self.alpha else 1.0 for _ in range(examples)]
        return Mix(torch.tensor(weights), torch.tensor(draw.sample(range(examples), examples)))


class Mix(NamedTuple):
    """``weight``: one, or one for each example. ``partner``: the places of the partners; None: in reverse order."""

    weight: float | Float[Tensor, " B"]
    partner: Int64[Tensor, " B"] | None = None


def mixup(x: Tensor, weight: float | Float[Tensor, " B"], partner: Int64[Tensor, " B"] | None = None) -> Tensor:
    """weight x + (1 - weight) x of the partners, as :class:`Mix` gives both. Raises ValueError for ids of words."""
    if not x.is_floating_point():
        raise ValueError(
            "ids of words have nothing between them that could be mixed; set the objective's mixup.alpha to 0"
        )
    if isinstance(weight, Tensor):
        weight = weight.to(x).view(-1, *[1] * (x.ndim - 1))
    other = x.flip(0) if partner is None else x[partner.to(x.device)]
    return weight * x + (1 - weight) * other


def only_linear(head: nn.Module) -> bool:
    """Whether a head is a linear map and nothing more."""
    return type(head) is LinearHead
