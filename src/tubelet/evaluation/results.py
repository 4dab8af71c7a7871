"""The result of evaluating a task, and the files of a run that hold it: every number with its views and coverage."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tubelet.evaluation.metrics import average_precisions, confusion_matrix, per_class
from tubelet.evaluation.predictions import Scored, write_predictions
from tubelet.media.errors import MediaError
from tubelet.training.outcome import write_json

RESULTS, PREDICTIONS, CLASSES = "results.json", "predictions.jsonl", "classes.json"
BASELINES = "baselines.json"
_HEADLINES = ("action_top1", "top1", "map")
_CONFUSION_CLASSES = 100  # a larger matrix cannot be read as a picture, and makes a large file


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The result of a task.

    ``metrics``: fractions in [0, 1], logits averaged over ``views`` (such as "4x3"). ``single_view``: the same metrics
    from one view per video, the one nearest to the middle; empty where ``views`` is 1x1. ``scored`` of ``expected``
    examples could be read; ``errors`` lists the others, none of which was replaced. ``warnings``: reasons to doubt the
    numbers. ``inputs``: the names of the model's inputs that were tested. ``classes``: the per-class table by label
    set. ``confusion``: the matrix (rows: truth), for up to 100 classes. ``examples``: the answers to each example.
    """

    metrics: dict[str, float]
    views: str
    scored: int
    expected: int
    inputs: tuple[str, ...] = ()
    single_view: dict[str, float] = field(default_factory=dict)
    errors: tuple[MediaError, ...] = ()
    warnings: tuple[str, ...] = ()
    classes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    examples: tuple[Scored, ...] = field(default=(), repr=False)

    @property
    def coverage(self) -> str:
        return f"{self.scored}/{self.expected}"

    def as_json(self) -> dict[str, Any]:
        """The task's entry in ``results.json``."""
        data: dict[str, Any] = {
            "inputs": list(self.inputs),
            "metrics": self.metrics,
            "views": self.views,
            "coverage": {"scored": self.scored, "expected": self.expected},
        }
        if self.single_view:
            data["single_view"] = {"metrics": self.single_view, "views": "1x1"}
        data["warnings"] = list(self.warnings)
        data["errors"] = [{"path": e.path, "time": e.time, "reason": e.reason} for e in self.errors]
        return data


def headline(metrics: Mapping[str, float]) -> str:
    """The name of the metric to report first, as the papers do."""
    return next((name for name in _HEADLINES if name in metrics), next(iter(metrics)))


def class_tables(
    scores: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]], names: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[list[int]]]]:
    """The per-class tables and, where every example has one class, the confusion matrices, by label set."""
    tables: dict[str, list[dict[str, Any]]] = {}
    confusions: dict[str, list[list[int]]] = {}
    for label_set, truth in targets.items():
        if truth.ndim == 1:
            confusion = confusion_matrix(scores[label_set], truth)
            tables[label_set] = [asdict(row) for row in per_class(confusion, names[label_set])]
            if len(confusion) <= _CONFUSION_CLASSES:
                confusions[label_set] = confusion.tolist()
        else:
            values = average_precisions(scores[label_set], truth)
            tables[label_set] = [
                {"name": name, "examples": int(count), "average_precision": float(value)}
                for name, count, value in zip(names[label_set], truth.sum(axis=0), values, strict=True)
            ]
    return tables, confusions


def results_json(tasks: Mapping[str, TaskResult], run: Path | None = None) -> dict[str, Any]:
    """The contents of ``results.json``, with the baselines of the ``run`` if it has any."""
    found = {name: result.as_json() for name, result in tasks.items()}
    if run is not None and (run / BASELINES).is_file():
        for name, baseline in json.loads((run / BASELINES).read_text(encoding="utf-8")).items():
            if name in found:
                found[name]["baseline"] = baseline
    return {"tasks": found}


def write_details(folder: Path, tasks: Mapping[str, TaskResult]) -> None:
    """Write the details of the results: ``predictions.jsonl``, a line per example, and ``classes.json``."""
    write_predictions(folder / PREDICTIONS, (example for result in tasks.values() for example in result.examples))
    classes = {
        name: {
            label_set: {"classes": [_finite(row) for row in rows], "confusion": result.confusion.get(label_set)}
            for label_set, rows in result.classes.items()
        }
        for name, result in tasks.items()
    }
    write_json(folder / CLASSES, classes)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The value, with null for NaN, which JSON does not have."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
