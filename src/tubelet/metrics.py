"""Metrics: pure functions of scores and targets, to be called on results gathered from all ranks, one row per example.

Scores are (N, K): logits or probabilities, only their order (and, for joint scores, their softmax) matters. Targets are
class indices (N,), or multi-hot (N, K). Metrics are fractions in [0, 1] unless they say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_JOINT_ROWS = 256  # examples whose joint scores (EPIC: 97 x 300 pairs each) are in memory at a time


def ranks(scores: Array, targets: Array) -> NDArray[np.int64]:
    """How many classes come before the target (N,): 0 where it is the best one.

    Equal scores are ordered by class index, so that a model that answers the same for every class is at chance.
    """
    _check(scores, targets, dimensions=1)
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None] < targets[:, None]
    return np.asarray(((scores > own) | ((scores == own) & earlier)).sum(axis=1), dtype=np.int64)


def top_k(scores: Array, targets: Array, k: int) -> float:
    """The share of examples whose target is among the ``k`` best classes."""
    return float((ranks(scores, targets) < k).mean())


def mean_class_accuracy(scores: Array, targets: Array) -> float:
    """The mean over the classes that occur of the share of their examples that are right."""
    right = ranks(scores, targets) == 0
    return float(np.mean([right[targets == c].mean() for c in np.unique(targets)]))


def average_precisions(scores: Array, targets: Array) -> NDArray[np.float64]:
    """Average precision per class (K,), for multi-hot targets (N, K); NaN for a class without positives."""
    from sklearn.metrics import average_precision_score  # a second of imports

    _check(scores, targets, dimensions=2)
    return np.array(
        [
            average_precision_score(targets[:, c], scores[:, c]) if targets[:, c].any() else np.nan
            for c in range(targets.shape[1])
        ],
        dtype=np.float64,
    )


def confusion_matrix(scores: Array, targets: Array) -> NDArray[np.int64]:
    """Counts (K, K): rows are the true classes, columns the predicted ones."""
    _check(scores, targets, dimensions=1)
    classes = scores.shape[1]
    cells = targets.astype(np.int64) * classes + scores.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassRow:
    """One line of the per-class table; ``mistaken_for`` is the commonest wrong answer, None without mistakes."""

    name: str
    examples: int
    accuracy: float
    precision: float
    mistaken_for: str | None


def per_class(confusion: NDArray[np.int64], names: Sequence[str]) -> list[ClassRow]:
    """The per-class table of a confusion matrix (K, K); NaN where a class has no examples, or no predictions."""
    rows: list[ClassRow] = []
    for c, name in enumerate(names):
        true, predicted, right = int(confusion[c].sum()), int(confusion[:, c].sum()), int(confusion[c, c])
        wrong = confusion[c].copy()
        wrong[c] = 0
        rows.append(
            ClassRow(
                name=name,
                examples=true,
                accuracy=right / true if true else float("nan"),
                precision=right / predicted if predicted else float("nan"),
                mistaken_for=names[int(wrong.argmax())] if wrong.any() else None,
            )
        )
    return rows


def share_error(share: float, examples: int) -> float:
    """The standard error of a share of so many examples, to which one success and one failure are added: ten right of
    ten is not certain."""
    share = (share * examples + 1) / (examples + 2)
    return math.sqrt(share * (1 - share) / max(1, examples))


def retrieval(similarities: Array, own: NDArray[np.int64]) -> dict[str, float]:
    """How well M queries find the candidate ``own`` (M,) of each, by their ``similarities`` (M, N) to N candidates.

    ``r1``, ``r5``, ``r10``: the shares that have it among the first so many; ``median_rank``, from 1; ``pool``: N.
    Equal candidates come in their order, so that a model that says the same of all is at chance.
    """
    place = ranks(similarities, own)
    shares = {f"r{k}": float((place < k).mean()) for k in (1, 5, 10)}
    return shares | {"median_rank": float(np.median(place)) + 1, "pool": float(similarities.shape[1])}


def cosine(queries: Array, candidates: Array) -> NDArray[np.float32]:
    """The cosine (M, N) of every query (M, C) with every candidate (N, C); 0 for rows of zeros."""
    return _unit(queries) @ _unit(candidates).T


def dual_softmax(similarities: Array, temperature: float = 0.07) -> NDArray[np.float64]:
    """Logarithms (M, N), but for a constant in each row, of softmax over candidates times softmax over queries.

    A candidate that many queries are near to counts less for each of them (Cheng et al. 2021, arXiv:2109.04290, whose
    factor is the similarity in the place of the first softmax). What a query finds then depends on the others, so that
    the result is not to be compared with one of queries that come alone. ``temperature``: VATT's.
    """
    s = similarities.astype(np.float64) / temperature
    highest = s.max(0)
    return 2 * s - (highest + np.log(np.exp(s - highest).sum(0)))


def _unit(x: Array) -> NDArray[np.float32]:
    x = x.astype(np.float32)
    return x / np.sqrt(np.maximum((x * x).sum(-1, keepdims=True), 1e-12))


def joint_targets(targets: Mapping[str, Array], sizes: Mapping[str, int]) -> NDArray[np.int64]:
    """The index (N,) of each example's combination of labels among the columns of :func:`joint_logits`."""
    names = list(targets)
    return np.asarray(np.ravel_multi_index([targets[n] for n in names], [sizes[n] for n in names]), dtype=np.int64)


def single_label(scores: Array, targets: Array) -> dict[str, float]:
    """``top1``, ``top5`` (left out for five classes or fewer, where it says nothing) and ``mean_class_accuracy``."""
    place = ranks(scores, targets)
    result = {"top1": float((place < 1).mean())}
    if scores.shape[1] > 5:
        result["top5"] = float((place < 5).mean())
    return result | {"mean_class_accuracy": mean_class_accuracy(scores, targets)}


def multi_label(scores: Array, targets: Array) -> dict[str, float]:
    """``map``: mean average precision over the classes that have positives; ``classes_scored``: their share of all.

    ``auc`` and ``d_prime``: the mean over the classes that have negatives, too, of the area under the receiver's curve,
    and of sqrt(2) times the normal quantile of it, which separates the two by as many standard deviations. The released
    VATT code averages d' over classes as well; the d' of the mean area is another number. Left out where no class has
    both; d' also where a class is told apart without a mistake, as it is infinite then.
    """
    from scipy.special import ndtri
    from sklearn.metrics import roc_auc_score

    values = average_precisions(scores, targets)
    scored = ~np.isnan(values)
    if not scored.any():
        raise ValueError("no class has a positive example: mean average precision is not defined")
    found = {"map": float(values[scored].mean()), "classes_scored": float(scored.mean())}
    both = np.flatnonzero(scored & ~targets.astype(bool).all(0))
    if not len(both):
        return found
    areas = np.array([roc_auc_score(targets[:, c], scores[:, c]) for c in both])
    found["auc"] = float(areas.mean())
    d_prime = float((math.sqrt(2) * ndtri(areas)).mean())
    return found | ({"d_prime": d_prime} if math.isfinite(d_prime) else {})


def label_sets(scores: Mapping[str, Array], targets: Mapping[str, Array]) -> dict[str, float]:
    """``<set>_top1`` and ``<set>_top5`` of each label set, and of the best combination of them, as ``action``.

    With verbs and nouns this is EPIC-Kitchens' protocol (ViViT Sec. 4.1): the action is the best pair.
    """
    result: dict[str, float] = {}
    for name in targets:
        result |= {f"{name}_{metric}": value for metric, value in single_label(scores[name], targets[name]).items()}
    sizes = {name: scores[name].shape[1] for name in targets}
    place = np.concatenate(
        [
            ranks(joint_logits({n: scores[n][rows] for n in targets}), joint_targets(_rows(targets, rows), sizes))
            for rows in _blocks(len(next(iter(targets.values()))))
        ]
    )
    return result | {"action_top1": float((place < 1).mean()), "action_top5": float((place < 5).mean())}


def measure(scores: Array | Mapping[str, Array], targets: Array | Mapping[str, Array]) -> dict[str, float]:
    """The metrics that fit the targets: class indices, multi-hot, or several label sets."""
    if isinstance(targets, Mapping):
        if not isinstance(scores, Mapping):
            raise ValueError(f"targets have the label sets {list(targets)}, so the scores need them too")
        return label_sets(scores, targets)
    if isinstance(scores, Mapping):
        raise ValueError(f"scores have the label sets {list(scores)}, so the targets need them too")
    return single_label(scores, targets) if targets.ndim == 1 else multi_label(scores, targets)


def _rows(arrays: Mapping[str, Array], rows: slice) -> dict[str, Array]:
    return {name: x[rows] for name, x in arrays.items()}


def _blocks(n: int) -> Iterator[slice]:
    return (slice(i, i + _JOINT_ROWS) for i in range(0, n, _JOINT_ROWS))


def _check(scores: Array, targets: Array, dimensions: int) -> None:
    if len(scores) == 0:
        raise ValueError("no example was scored, so there is nothing to measure")
    if targets.ndim != dimensions or len(targets) != len(scores):
        wanted = "class indices (N,)" if dimensions == 1 else "multi-hot rows (N, K)"
        raise ValueError(f"targets of shape {targets.shape} do not fit scores {scores.shape}: {wanted} are needed")
    if not np.isfinite(scores).all():
        row = int(np.argwhere(~np.isfinite(scores).all(axis=1))[0, 0])
        raise ValueError(f"scores of example {row} are not finite: the model's weights or its input are broken")


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


_PLAIN = ("mae", "d_prime", "median_rank", "pool")  # how names of metrics end that are no fractions


def written(metric: str, value: float, digits: int = 1) -> str:
    """A metric's value for a person: a fraction in per cent, an error in the unit of the labels."""
    return f"{value:.4g}" if metric.endswith(_PLAIN) else f"{value:.{digits}%}"
