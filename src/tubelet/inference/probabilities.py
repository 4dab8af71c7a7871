"""From logits to the names that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tubelet.weights.loaded import TaskCard

T = TypeVar("T")
Array = NDArray[Any]
Answers = tuple[tuple[str, float], ...]
"""Labels with their probabilities, best first."""


def label_sets(card: TaskCard) -> dict[str, tuple[str, ...]]:
    """The class names of a task by label set; the only one of most tasks is "label"."""
    return dict(card.classes) if isinstance(card.classes, Mapping) else {"label": card.classes}


def by_label_set(logits: Mapping[str, T], card: TaskCard) -> dict[str, T]:
    """Logits under the names of the task's label sets: a head with a single one does not know its name."""
    names = label_sets(card)
    return dict(zip(names, logits.values(), strict=True)) if len(names) == 1 else {n: logits[n] for n in names}


def probabilities(logits: NDArray[Any], card: TaskCard) -> NDArray[np.float64]:
    """Logits (..., K) as probabilities: softmax, or sigmoid where an example may have several labels."""
    return 1 / (1 + np.exp(-logits.astype(np.float64))) if card.multilabel else softmax(logits)


def top_answers(values: NDArray[np.float64], names: Sequence[str], count: int) -> Answers:
    """The ``count`` most probable classes of (K,) probabilities."""
    best = np.argsort(-values, kind="stable")[:count]
    return tuple((str(names[i]), float(values[i])) for i in best.tolist())


def top_combinations(logits: Mapping[str, NDArray[Any]], card: TaskCard, count: int) -> Answers:
    """The ``count`` most probable combinations of one label per set, each written as one: "cut onion"."""
    names = label_sets(card)
    joint = joint_logits({name: logits[name][None] for name in names})[0]
    best = set(np.argsort(-joint, kind="stable")[:count].tolist())
    written = {i: " ".join(labels) for i, labels in enumerate(product(*names.values())) if i in best}
    return tuple((written[i], float(joint[i])) for i in sorted(best, key=lambda i: -joint[i]))


def softmax(scores: Array) -> NDArray[np.float64]:
    """Softmax over the last axis, in float64."""
    e = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def joint_logits(logits: Mapping[str, Array]) -> NDArray[np.float64]:
    """Scores of every combination of labels (N, K1 * K2 * ...): the outer product of the label sets' softmaxes.

    The first label set varies slowest. EPIC-Kitchens' actions, as the released code pairs them, are
    ``joint_logits({"noun": ..., "verb": ...})``.
    """
    return reduce(
        lambda a, b: (a[:, :, None] * b[:, None, :]).reshape(len(a), -1), (softmax(x) for x in logits.values())
    )
