"""From an experiment to a run: trained, evaluated on its test data, and told in a report."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from tubelet.data.dataset import ViewSet
from tubelet.data.manifest import read_manifest
from tubelet.evaluation.run import evaluator
from tubelet.training.experiment import Experiment
from tubelet.training.resolve import resolve
from tubelet.training.run import RunResult, train


def run(experiment: Experiment, out: str | Path, *, progress: bool = True) -> RunResult:
    """Train and evaluate in ``out``, going on with what stands there, and write the report.

    The test data are looked at first: a missing split or an unknown label ends the run before the training, not after.
    """
    check_test_data(experiment)
    result = train(experiment, out, evaluate=evaluator(out, progress=progress), progress=progress)
    if os.environ.get("RANK", "0") == "0":  # torchrun's; the ranks have parted by now
        report(out)
    return result


def report(folder: str | Path) -> Path | None:
    """Write the report of a run that has results; None where matplotlib, which draws it, is not installed."""
    if not find_spec("matplotlib"):
        return None
    from tubelet.evaluation.report import write_report

    return write_report(folder)


def check_test_data(experiment: Experiment) -> None:
    """Raises ManifestError or ValueError where a task's test split is missing or shows what its training never did."""
    for task in resolve(experiment).resolved.experiment.tasks.values():
        records = read_manifest(task.source.path).split(task.source.test)
        specs = {name: experiment.model.inputs[name] for name in task.inputs}
        several = task.objective.labels == "several"
        may_miss = experiment.model.may_miss and len(specs) > 1
        ViewSet(records, task.objective.classes, specs, task.views, several=several, may_miss=may_miss)
