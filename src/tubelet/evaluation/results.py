"""The result of evaluating a task, and the files of a run that hold it: every number with its views and coverage."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tubelet.cards import ClassTables
from tubelet.evaluation.predictions import Scored, write_predictions
from tubelet.media.errors import MediaError
from tubelet.writing import write_json

RESULTS, PREDICTIONS, CLASSES = "results.json", "predictions.jsonl", "classes.json"
BASELINES = "baselines.json"
_HEADLINES = ("action_top1", "top1", "map", "r2")


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The result of a task.

    ``kind``: of its card, such as "classes". ``metrics``: those of the card, the model's outputs averaged over
    ``views`` (such as "4x3"). ``single_view``: the same metrics from one view per video, the one nearest to the middle;
    empty where ``views`` is 1x1. ``protocol``: how they were measured, where their names do not say it. ``scored`` of
    ``expected`` examples could be read; ``errors`` lists the others, none of which was replaced. ``warnings``: reasons
    to doubt the numbers. ``inputs``: the names of the model's inputs that were tested. ``changed``: fields of the model
    that were other ones in training, by path, as they were given. ``tables``: details by class.
    ``examples``: the answers to each example.
    """

    kind: str = "classes"
    metrics: dict[str, float]
    views: str
    scored: int
    expected: int
    inputs: tuple[str, ...] = ()
    changed: dict[str, str] = field(default_factory=dict)
    single_view: dict[str, float] = field(default_factory=dict)
    errors: tuple[MediaError, ...] = ()
    warnings: tuple[str, ...] = ()
    protocol: str = ""
    tables: ClassTables = ClassTables()
    examples: tuple[Scored, ...] = field(default=(), repr=False)

    @property
    def coverage(self) -> str:
        return f"{self.scored}/{self.expected}"

    def as_json(self) -> dict[str, Any]:
        """The task's entry in ``results.json``."""
        data: dict[str, Any] = {
            "kind": self.kind,
            "inputs": list(self.inputs),
            "metrics": self.metrics,
            "views": self.views,
            "coverage": {"scored": self.scored, "expected": self.expected},
        }
        if self.changed:
            data["changed"] = self.changed
        if self.protocol:
            data["protocol"] = self.protocol
        if self.single_view:
            data["single_view"] = {"metrics": self.single_view, "views": "1x1"}
        data["warnings"] = list(self.warnings)
        data["errors"] = [{"path": e.path, "time": e.time, "reason": e.reason} for e in self.errors]
        return data


def headline(metrics: Mapping[str, float]) -> str:
    """The name of the metric to report first, as the papers do."""
    return next((name for name in _HEADLINES if name in metrics), next(iter(metrics)))


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
            label_set: {"classes": [_finite(row) for row in rows], "confusion": result.tables.confusion.get(label_set)}
            for label_set, rows in result.tables.classes.items()
        }
        for name, result in tasks.items()
    }
    write_json(folder / CLASSES, classes)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The value, with null for NaN, which JSON does not have."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
