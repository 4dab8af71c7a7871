"""Which of a training's weights are kept, by examples held out of it, and when nothing moves any more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tubelet.training.average import set_weights
from tubelet.training.loop import Update


@dataclass(frozen=True)
class Score:
    """The mean over the tasks of their first metrics, a fraction, and its standard error."""

    value: float
    error: float

    @classmethod
    def mean(cls, metrics: Sequence[float], errors: Sequence[float]) -> Score:
        """Of each task's metric and its standard error."""
        return cls(sum(metrics) / len(metrics), math.hypot(*errors) / len(metrics))


class Validation:
    """A hook that measures the model every ``every`` updates and after the last, and keeps the weights to use.

    These are the latest whose score is no more than a standard error below the best. A single lucky evaluation on few
    examples therefore decides nothing, and real overfitting does: the later weights then fall behind.
    ``measure`` scores the model as it would be exported, ``weights`` are the tensors that it would be exported with.
    """

    def __init__(
        self,
        measure: Callable[[], Score],
        weights: Mapping[str, Tensor],
        *,
        every: int,
        patience: int,
        total: int,
        tell: Callable[[int, Validation], None],
    ) -> None:
        self.measure, self.weights, self.every, self.patience = measure, weights, every, patience
        self.total, self.tell = total, tell
        self.curve: list[tuple[int, Score]] = []
        self.kept_step = 0
        self.kept = {name: tensor.detach().clone() for name, tensor in weights.items()}

    def __call__(self, update: Update) -> None:
        if update.step % self.every == 0 or update.step == self.total:
            self.look(update.step)

    def look(self, step: int) -> None:
        """Measure the weights after ``step`` updates, which may be none; keep them if they deserve it."""
        score = self.measure()
        self.curve.append((step, score))
        best = self.best
        if score.value >= best.value - best.error:
            self.kept_step = step
            set_weights(self.kept, self.weights)
        self.tell(step, self)

    @property
    def best(self) -> Score:
        return max((score for _, score in self.curve), key=lambda score: score.value)

    @property
    def kept_score(self) -> Score:
        return dict(self.curve)[self.kept_step]

    def enough(self) -> bool:
        """Whether the last ``patience`` evaluations brought no new best."""
        if not self.patience or not self.curve:
            return False
        values = [score.value for _, score in self.curve]
        return len(values) - 1 - values.index(max(values)) >= self.patience

    def state(self) -> dict[str, Any]:
        """The numbers that a checkpoint keeps beside the tensors ``kept``."""
        return {"curve": [[step, score.value, score.error] for step, score in self.curve], "kept": self.kept_step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's numbers; its tensors are put into ``kept`` by whoever reads it."""
        self.curve = [(step, Score(value, error)) for step, value, error in state["curve"]]
        self.kept_step = state["kept"]
