"""From an experiment to a run: training, evaluation on its test data, and a report."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from tubelet.cards import RetrievalCard
from tubelet.configs import ConfigError
from tubelet.data.dataset import ViewSet
from tubelet.data.kinds import kind_of
from tubelet.evaluation.results import BASELINES
from tubelet.evaluation.run import evaluator, validator
from tubelet.recipes.describe import describe
from tubelet.recipes.search import with_chosen_rate
from tubelet.training.experiment import Experiment
from tubelet.training.resolve import Prepared, read_run, resolve
from tubelet.training.run import MODEL, RunResult, train
from tubelet.writing import write_json


def chosen_before(out: str | Path) -> Mapping[str, float | str]:
    """What the training in ``out`` measured when it began (see ``Experiment.chosen``); empty if there is none."""
    with suppress(ConfigError):
        return read_run(out).experiment.chosen
    return {}


def run(experiment: Experiment, out: str | Path, *, changed: Collection[str] = (), progress: bool = True) -> RunResult:
    """Train and evaluate in ``out``, or continue the run that is there, and write the report.

    The test data are checked first: a missing split or an unknown label stops the run before the training, not after
    it. What will happen is printed before it begins; ``changed`` are the fields that flags set after the recipe had
    planned. Of several ``learning_rates`` the one that validates best is taken first.
    """
    check_test_data(experiment)
    if experiment.learning_rates:
        experiment, told = with_chosen_rate(experiment, out, progress=progress)
        experiment = replace(experiment, notes="\n".join(filter(None, [experiment.notes, told])))

    def first(prepared: Prepared) -> str:
        if progress:
            print("\n".join([*filter(None, [experiment.notes]), *describe(prepared, changed)]), file=sys.stderr)
        return compare(prepared, Path(out), progress=progress) if experiment.baseline else ""

    evaluate = evaluator(out, progress=progress)
    result = train(experiment, out, evaluate=evaluate, validate=validator(), first=first, progress=progress)
    if os.environ.get("RANK", "0") == "0":  # torchrun's; the ranks have parted by now
        if result.problem:
            print(
                f"tubelet: the model is in {Path(out) / MODEL}, but its evaluation failed ({result.problem}). The same "
                "command, once that is mended, evaluates it without training again; tubelet eval takes other data.",
                file=sys.stderr,
            )
        else:
            draw(out, progress=progress)
            report(out)
    return result


def compare(prepared: Prepared, folder: Path, *, progress: bool = True) -> str:
    """Fit simple models on the examples of every task, once per run, and keep the best; says what it does.

    Tasks that no panel is for, such as those whose examples have several labels, are left out.
    """
    from tubelet.evaluation.baselines import fit_baselines  # a second of scikit-learn

    path = folder / BASELINES
    if not path.exists():
        found: dict[str, Any] = {}
        for name, task in prepared.resolved.experiment.tasks.items():
            card = task.objective.card()
            if not card.panel:
                continue
            test = task.source.read().split(task.source.test)
            train, validation = prepared.training[name], prepared.validation.get(name, [])
            console = Console(stderr=True, quiet=not progress)
            try:
                with console.status(f"fitting simple {card.panel} on {name}"):
                    best = fit_baselines(
                        kind_of(test), train, validation, test, panel=card.panel, label_set=card.label_sets[0]
                    )
                found[name] = best.as_json()
            except Exception as error:  # a comparison is no reason to lose a training
                console.print(f"No simple {card.panel[:-1]} to compare with: {error}", markup=False, soft_wrap=True)
        write_json(path, found)
    baselines = json.loads(path.read_text(encoding="utf-8"))
    return "; ".join(f"baseline {baseline['validation']:.1%}" for baseline in baselines.values())


def draw(folder: str | Path, *, progress: bool = True) -> None:
    """Draw for the report what a run has learned that compares video with sound or captions; once, and no other run.

    Nothing is drawn without matplotlib. If it fails, the reason is printed on stderr, and nothing else is lost.
    """
    tasks = read_run(folder).experiment.tasks
    compared = [name for name, task in tasks.items() if isinstance(task.objective.card(), RetrievalCard)]
    if not compared or not find_spec("matplotlib"):
        return
    from tubelet.reports.learned import PICTURES, learn, read_learned, write_learned

    try:
        if read_learned(Path(folder, PICTURES)) is None:
            write_learned(learn(folder, task=compared[0], progress=progress), Path(folder, PICTURES))
    except Exception as error:
        print(f"tubelet: {folder}: no pictures of what it learned ({type(error).__name__}: {error})", file=sys.stderr)


def report(folder: str | Path) -> Path | None:
    """Write the report of a run that has results; None if matplotlib, which draws it, is not installed.

    If the report fails, the reason is printed on stderr, and nothing else is lost.
    """
    if not find_spec("matplotlib"):
        return None
    from tubelet.reports.report import write_report

    try:
        return write_report(folder)
    except Exception as error:
        print(f"tubelet: {folder}: the report cannot be written ({type(error).__name__}: {error})", file=sys.stderr)
        return None


def check_test_data(experiment: Experiment) -> None:
    """Raises ManifestError or ValueError where a task's test split is missing or shows what its training never did."""
    for task in resolve(experiment).resolved.experiment.tasks.values():
        records = task.source.read().split(task.source.test)
        specs = {name: experiment.model.inputs[name] for name in task.inputs}
        may_miss = experiment.model.may_miss and len(specs) > 1
        ViewSet(records, task.objective.card().targets(), specs, task.views, may_miss=may_miss)
