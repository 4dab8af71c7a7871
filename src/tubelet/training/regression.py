"""Numbers of a video, a picture or a sound: scores, counts, angles, from one label set or several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.cards import NumberCard
from tubelet.data.batch import Batch
from tubelet.data.labels import NumberLabels
from tubelet.data.manifest import LABEL, Manifest
from tubelet.models.model import Encoder, Model
from tubelet.nn.heads import HeadInit, LinearHead, build_head
from tubelet.training.objectives import Linear, Mixup, Objective, mixup, only_linear
from tubelet.training.ranks import Ranks

_COSTS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)  # how much the examples count against small weights
_COST = 0.1  # without held-out examples


@dataclass(frozen=True, kw_only=True)
class Regression(Objective):
    """Numbers from labels that spell them.

    ``numbers``: the manifest's label sets that hold them, "label" or several. ``mean``, ``std``: of each number; the
    head learns distances from the mean in standard deviations. Empty: those of the training split. ``loss`` of the
    distances: "squared", "absolute", or "huber", which is squared below one standard deviation and grows evenly beyond,
    so that a few wrong labels do little harm. ``head_init``: a head of zeros begins by answering the mean.
    ``hidden``: the widths of hidden layers before the numbers.
    """

    by_class = False

    numbers: tuple[str, ...] = (LABEL,)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    loss: Literal["squared", "absolute", "huber"] = "huber"
    mixup: Mixup = Mixup()
    head_init: HeadInit = "zeros"
    hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.numbers:
            raise ValueError("numbers must name at least one label set of the manifest")
        if self.mean or self.std:
            self.card()

    @property
    def mixes(self) -> bool:
        return self.mixup.alpha > 0

    def resolved(self, manifest: Manifest, split: str) -> Regression:
        if self.mean:
            return self
        records = manifest.split(split)
        NumberLabels(self.numbers).check(records)
        columns = [records.labels(name) for name in self.numbers]
        values = [np.array([float(label) for label in column.names])[column.codes] for column in columns]
        return replace(
            self,
            mean=tuple(float(np.mean(x)) for x in values),
            std=tuple(float(np.std(x)) or 1.0 for x in values),
        )

    def card(self, inputs: tuple[str, ...] = ()) -> NumberCard:
        return NumberCard(numbers=self.numbers, mean=self.mean, std=self.std, inputs=inputs, hidden=self.hidden)

    def head(self, encoder: Encoder) -> nn.Module:
        return build_head(encoder.width, len(self.numbers), self.head_init, hidden=self.hidden)

    def __call__(self, model: Model, batch: Batch, ranks: Ranks) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over examples and numbers; ``mae``, of a single number, is in the unit of the labels."""
        inputs = model.preprocess(batch.inputs)
        if not isinstance(batch.targets, Tensor):
            raise ValueError(f"the batch has no numbers, but the objective needs those of {self.numbers}")
        targets = (batch.targets - batch.targets.new_tensor(self.mean)) / batch.targets.new_tensor(self.std)
        if self.mixup.alpha:
            mix = self.mixup.drawn(batch.seed, len(batch))
            inputs = {name: mixup(x, *mix) for name, x in inputs.items()}
            targets = mixup(targets, *mix)
        outputs = model(inputs, batch.task)
        away = (outputs.float() - targets).abs()
        match self.loss:
            case "squared":
                losses = away.square()
            case "absolute":
                losses = away
            case "huber":
                losses = torch.where(away < 1, 0.5 * away.square(), away - 0.5)
        metrics = {"mae": away.detach().mean() * self.std[0]} if len(self.numbers) == 1 else {}
        return losses.mean(), metrics

    def linear_heads(self, head: nn.Module) -> dict[str, LinearHead]:
        (name,) = self.card().names
        return {name: head} if isinstance(head, LinearHead) and only_linear(head) else {}

    def fit(self, name: str, pooled: Tensor, targets: Tensor, held_out: tuple[Tensor, Tensor] | None) -> Linear | None:
        """Ridge regression on standardized features; the held-out examples choose how small the weights are kept."""
        if len(pooled) < 2:
            return None
        x, y = pooled.double(), (targets.double() - torch.tensor(self.mean)) / torch.tensor(self.std)
        mean, std = x.mean(0), x.std(0)
        scale = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
        z, middle = (x - mean) / scale, y.mean(0)
        best: tuple[float, Linear] | None = None
        for cost in _COSTS if held_out else (_COST,):
            gram = z.T @ z + torch.eye(z.shape[1], dtype=z.dtype) / cost
            weight = torch.linalg.solve(gram, z.T @ (y - middle)).T / scale
            linear = Linear(weight.float(), (middle - weight @ mean).float(), cost)
            error = 0.0
            if held_out:
                truth = (held_out[1] - torch.tensor(self.mean)) / torch.tensor(self.std)
                error = (held_out[0] @ linear.weight.T + linear.bias - truth).square().mean().item()
            if best is None or error < best[0]:
                best = error, linear
        return best[1] if best else None
