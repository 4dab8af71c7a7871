"""Classes: one or any number per example, from one label set or several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tubelet.cards.card import Answer, Answers, Arrays, ClassTables, Panel, TaskCard
from tubelet.data.labels import Classes, ClassLabels
from tubelet.data.records import LABEL
from tubelet.metrics import average_precisions, confusion_matrix, measure, per_class, share_error, softmax
from tubelet.models.model import Encoder
from tubelet.nn.heads import LinearHead, MultiHead, build_head

_CONFUSION_CLASSES = 100  # a larger matrix cannot be read as a picture, and makes a large file
_TINY = 1e-12  # a probability whose logarithm is still a number


@dataclass(frozen=True, kw_only=True)
class ClassCard(TaskCard):
    """``classes``: their names in the order of the logits; by label set where there are several.

    ``multilabel``: an example may have several of the classes (the scores are sigmoids), or exactly one (softmax).
    """

    classes: Classes
    multilabel: bool = False

    @property
    def panel(self) -> Panel:
        return "" if self.multilabel or self.names != (LABEL,) else "classifiers"

    @property
    def metric(self) -> str:
        return "map" if self.multilabel else "action_top1" if len(self.names) > 1 else "top1"

    @property
    def by_set(self) -> dict[str, tuple[str, ...]]:
        """The names of the classes by label set; the only one of most tasks is "label"."""
        return dict(self.classes) if isinstance(self.classes, Mapping) else {LABEL: tuple(self.classes)}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.by_set)

    @property
    def label_sets(self) -> tuple[str, ...]:
        return self.names

    def head(self, encoder: Encoder) -> LinearHead | MultiHead:
        if not self.by_set or not all(self.by_set.values()):
            raise ValueError("classes must name at least one, in every label set")
        heads = {name: build_head(encoder.width, len(names), hidden=self.hidden) for name, names in self.by_set.items()}
        return MultiHead(heads) if len(heads) > 1 else next(iter(heads.values()))

    def targets(self) -> ClassLabels:
        return ClassLabels(self.classes, self.multilabel)

    def measure(self, outputs: Arrays, targets: Arrays) -> dict[str, float]:
        """As :func:`tubelet.metrics.measure`."""
        if len(outputs) > 1:
            return measure(outputs, targets)
        return measure(next(iter(outputs.values())), next(iter(targets.values())))

    def standard_error(self, value: float, examples: int) -> float:
        return share_error(value, examples)

    def probabilities(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """Of logits (..., K): softmax, or sigmoid where an example may have several labels."""
        return 1 / (1 + np.exp(-logits.astype(np.float64))) if self.multilabel else softmax(logits)

    def answers(self, outputs: Arrays, top: int) -> Answers:
        if top < 1:
            raise ValueError(f"{top=} must be at least 1")
        sets: dict[str, tuple[Answer, ...]] = {}
        for name, classes in self.by_set.items():
            values = self.probabilities(outputs[name])
            best = np.argsort(-values, kind="stable")[:top]
            sets[name] = tuple(Answer(str(classes[i]), float(values[i])) for i in best.tolist())
        if len(sets) == 1:
            return Answers(labels=next(iter(sets.values())), sets=sets)
        # The best combinations are of the best of each set, for a combination's probability is their product.
        pairs = [(" ".join(a.label for a in parts), parts) for parts in product(*sets.values())]
        joint = [Answer(label, math.prod(a.probability for a in parts)) for label, parts in pairs]
        return Answers(labels=tuple(sorted(joint, key=lambda answer: -answer.probability)[:top]), sets=sets)

    def averaged(self, members: Sequence[tuple[TaskCard, Arrays]]) -> dict[str, NDArray[Any]]:
        """Logits whose probabilities are the members' mean: logits of separate models share no scale."""
        mean: dict[str, NDArray[Any]] = {}
        for name, classes in self.by_set.items():
            aligned: list[NDArray[Any]] = []
            for card, logits in members:
                assert isinstance(card, ClassCard)
                order = [card.by_set[name].index(label) for label in classes]
                aligned.append(card.probabilities(logits[name])[order])
            p = np.clip(np.mean(aligned, axis=0), _TINY, 1 - _TINY)
            mean[name] = np.log(p) - np.log1p(-p) if self.multilabel else np.log(p)
        return mean

    def same_question(self, other: TaskCard) -> bool:
        if not isinstance(other, ClassCard) or self.multilabel != other.multilabel or self.names != other.names:
            return False
        return all(sorted(self.by_set[name]) == sorted(other.by_set[name]) for name in self.names)

    def same_head(self, other: TaskCard) -> bool:
        return isinstance(other, ClassCard) and self.classes == other.classes

    def tables(self, outputs: Arrays, targets: Arrays) -> ClassTables:
        """A table per label set and, where every example has one class of at most 100, the confusion matrix."""
        found = ClassTables()
        for name, truth in targets.items():
            classes = self.by_set[name]
            if truth.ndim == 1:
                confusion = confusion_matrix(outputs[name], truth)
                found.classes[name] = [asdict(row) for row in per_class(confusion, classes)]
                if len(confusion) <= _CONFUSION_CLASSES:
                    found.confusion[name] = confusion.tolist()
            else:
                values = average_precisions(outputs[name], truth)
                found.classes[name] = [
                    {"name": label, "examples": int(count), "average_precision": float(value)}
                    for label, count, value in zip(classes, truth.sum(axis=0), values, strict=True)
                ]
        return found

    def describe(self) -> list[str]:
        several = len(self.by_set) > 1
        return [f"- {len(names)} classes{f' of {name}' if several else ''}" for name, names in self.by_set.items()]
