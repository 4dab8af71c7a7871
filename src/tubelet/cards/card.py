"""The interface of all cards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tubelet.data.dataset import VideoViews
from tubelet.data.labels import Labels
from tubelet.models.model import Encoder

T = TypeVar("T")
Panel = Literal["classifiers", "regressors", ""]
Arrays = Mapping[str, NDArray[Any]]
"""What a head says of N examples, or their targets, by the names of its outputs: (N, ...)."""


class Answer(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model says of one example.

    ``labels``: the most probable classes, best first; of a task with several label sets (verb and noun), their best
    combinations. ``sets``: the answers by label set. ``numbers``: by name, in the unit of the labels.
    """

    labels: tuple[Answer, ...] = ()
    sets: dict[str, tuple[Answer, ...]] = field(default_factory=dict[str, tuple[Answer, ...]])
    numbers: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, kw_only=True)
class ClassTables:
    """Details of a result, by label set: a row per class, and the confusion matrix (rows: truth)."""

    classes: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])
    confusion: dict[str, list[list[int]]] = field(default_factory=dict[str, list[list[int]]])


@dataclass(frozen=True, kw_only=True)
class TaskCard(ABC):
    """What a head answers, how it is built, and how it is scored: everything about a task but how it is trained.

    ``inputs``: those of the model's inputs that it takes; empty: all of them. ``hidden``: the widths of the head's
    hidden layers. ``metrics``: what the task reached under the test ``views`` (such as "4x3"). ``coverage``: how many
    of how many test examples could be scored ("398/400").

    A kind of card is a frozen dataclass below this one; ``tubelet.configs.register(TaskCard, "name", TheCard)`` lets
    model folders keep it.
    """

    inputs: tuple[str, ...] = ()
    hidden: tuple[int, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    views: str = ""
    coverage: str = ""

    @property
    def panel(self) -> Panel:
        """The simple models that a result can be compared with; "" for none."""
        return ""

    @property
    def predicts(self) -> bool:
        """Whether it says something of a single example."""
        return True

    @property
    @abstractmethod
    def metric(self) -> str:
        """The name of the metric that is reported first: higher is better, and 1 is perfect."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the head's outputs and of their targets."""

    @property
    @abstractmethod
    def label_sets(self) -> tuple[str, ...]:
        """The label sets of the manifest that hold the truth."""

    @abstractmethod
    def head(self, encoder: Encoder) -> nn.Module:
        """A fresh head for the features of ``encoder``."""

    @abstractmethod
    def targets(self) -> Labels | None:
        """What makes targets of a record's labels; None where no labels are needed."""

    @abstractmethod
    def measure(self, outputs: Arrays, targets: Arrays) -> dict[str, float]:
        """The metrics of N examples, :attr:`metric` first."""

    @abstractmethod
    def standard_error(self, value: float, examples: int) -> float:
        """How far chance may move :attr:`metric` where so many examples give this ``value``."""

    @abstractmethod
    def answers(self, outputs: Arrays, top: int) -> Answers:
        """What the outputs for one example mean; the ``top`` best, where there are many classes."""

    @abstractmethod
    def describe(self) -> list[str]:
        """Lines for the README of a model folder."""

    @abstractmethod
    def averaged(self, members: Sequence[tuple[TaskCard, Arrays]]) -> dict[str, NDArray[Any]]:
        """The outputs of one example that say the mean of what several models say, who answer the same question."""

    def truth(self, example: VideoViews) -> dict[str, NDArray[Any]]:
        """The targets of an example, by :attr:`names`. Raises ValueError where it has none."""
        if example.target is None:
            raise ValueError(
                f"{example.key} has no label to compare with: give it one in the manifest, or predict instead"
            )
        return {name: np.asarray(target) for name, target in self.named(example.target).items()}

    def protocol(self, targets: Arrays, views: str) -> str:
        """How the metrics of these targets were measured, where their names do not say it; a clause or several."""
        return ""

    def tables(self, outputs: Arrays, targets: Arrays) -> ClassTables:
        """Details of the result, where there are any."""
        return ClassTables()

    def measured(self, result: Mapping[str, Any]) -> TaskCard:
        """The card with what the task reached: its entry of ``results.json``, which may be empty."""
        counts = result.get("coverage", {})
        return replace(
            self,
            metrics=dict(result.get("metrics", {})),
            views=result.get("views", ""),
            coverage=f"{counts['scored']}/{counts['expected']}" if counts else "",
        )

    def same_question(self, other: TaskCard) -> bool:
        """Whether both are answers to one question, so that they can be averaged."""
        return self.same_head(other)

    def same_head(self, other: TaskCard) -> bool:
        """Whether heads of the two mean the same by each of their outputs, so that one may start from the other."""
        return type(self) is type(other) and self.names == other.names

    def named(self, outputs: Mapping[str, T] | T) -> dict[str, T]:
        """What a head returns, or targets, by :attr:`names`: a single output does not know its name."""
        if not isinstance(outputs, Mapping):
            return dict.fromkeys(self.names, outputs)
        if len(self.names) == 1:
            return dict(zip(self.names, outputs.values(), strict=True))
        return {name: outputs[name] for name in self.names}


def stacked(examples: Sequence[Arrays], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of N examples, by name, as (N, ...)."""
    return {name: np.stack([example[name] for example in examples]) for name in names}
