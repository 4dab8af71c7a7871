"""Numbers: scores, counts, ages, angles; one or several per example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tubelet.cards.card import Answers, Arrays, Panel, TaskCard
from tubelet.data.labels import NumberLabels
from tubelet.models.model import Encoder
from tubelet.nn.heads import LinearHead, build_head

_OUTPUT = "numbers"


@dataclass(frozen=True, kw_only=True)
class NumberCard(TaskCard):
    """``numbers``: the label sets that hold them, in the order of the head's outputs (B, n).

    ``mean`` and ``std`` of each: an output is a number's distance from the mean in standard deviations.
    """

    numbers: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.numbers) == len(self.mean) == len(self.std) > 0:
            raise ValueError(f"{self.numbers=} must name at least one number, with a {self.mean=} and {self.std=} each")
        if min(self.std) <= 0:
            raise ValueError(f"{self.std=} must be positive")

    @property
    def panel(self) -> Panel:
        return "regressors" if len(self.numbers) == 1 else ""

    @property
    def metric(self) -> str:
        return "r2"

    @property
    def names(self) -> tuple[str, ...]:
        return (_OUTPUT,)

    @property
    def label_sets(self) -> tuple[str, ...]:
        return self.numbers

    def head(self, encoder: Encoder) -> LinearHead:
        return build_head(encoder.width, len(self.numbers), hidden=self.hidden)

    def targets(self) -> NumberLabels:
        return NumberLabels(self.numbers)

    def values(self, outputs: Arrays) -> NDArray[np.float64]:
        """The numbers (..., n) that outputs stand for, in the unit of the labels."""
        return outputs[_OUTPUT].astype(np.float64) * self.std + self.mean

    def measure(self, outputs: Arrays, targets: Arrays) -> dict[str, float]:
        """``r2``, the share of the numbers' variance that is explained, and ``mae``, the mean absolute error.

        R2 is 0 for whoever answers the mean of these examples, and negative for worse. Of several numbers, ``r2`` is
        the mean, and each has its own ``NAME_r2`` and ``NAME_mae``. Raises ValueError for fewer than two examples.
        """
        from sklearn.metrics import mean_absolute_error, r2_score  # a second of imports

        values, truth = self.values(outputs), targets[_OUTPUT].astype(np.float64)
        if len(truth) < 2:
            raise ValueError(f"R2 needs two examples or more that can be read; here is {len(truth)}")
        r2 = np.asarray(r2_score(truth, values, multioutput="raw_values"))
        mae = np.asarray(mean_absolute_error(truth, values, multioutput="raw_values"))
        if len(self.numbers) == 1:
            return {"r2": float(r2[0]), "mae": float(mae[0])}
        each = {
            f"{name}_{metric}": float(values[i])
            for i, name in enumerate(self.numbers)
            for metric, values in (("r2", r2), ("mae", mae))
        }
        return {"r2": float(r2.mean()), **each}

    def standard_error(self, value: float, examples: int) -> float:
        """The large-sample error of R2, for numbers that are distributed normally: 2 (1 - R2) R / sqrt(n)."""
        r = math.sqrt(max(value, 1 / max(1, examples)))
        return 2 * (1 - value) * r / math.sqrt(max(1, examples))

    def answers(self, outputs: Arrays, top: int) -> Answers:
        return Answers(numbers=dict(zip(self.numbers, self.values(outputs).tolist(), strict=True)))

    def averaged(self, members: Sequence[tuple[TaskCard, Arrays]]) -> dict[str, NDArray[Any]]:
        values: list[NDArray[np.float64]] = []
        for card, outputs in members:
            assert isinstance(card, NumberCard)
            values.append(card.values(outputs))
        return {_OUTPUT: (np.mean(values, axis=0) - self.mean) / self.std}

    def same_question(self, other: TaskCard) -> bool:
        return isinstance(other, NumberCard) and self.numbers == other.numbers

    def same_head(self, other: TaskCard) -> bool:
        return isinstance(other, NumberCard) and (self.numbers, self.mean, self.std) == (
            other.numbers,
            other.mean,
            other.std,
        )

    def describe(self) -> list[str]:
        spread = zip(self.numbers, self.mean, self.std, strict=True)
        return [f"- the number {name!r}: {mean:.4g} ± {std:.4g} in training" for name, mean, std in spread]
