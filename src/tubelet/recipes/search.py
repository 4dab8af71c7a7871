"""The learning rate of a single task, chosen on validation examples before the run (PolyViT Tables 6 and 9)."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from tubelet.configs import ConfigError
from tubelet.evaluation.run import evaluator
from tubelet.probing.data import choosing_source
from tubelet.training.experiment import Experiment
from tubelet.training.resolve import resolve, split_training
from tubelet.training.run import CHECKPOINTS, RESULTS, train


def with_chosen_rate(experiment: Experiment, out: str | Path, *, progress: bool = True) -> tuple[Experiment, str]:
    """The experiment at the one of its ``learning_rates`` that did best on the examples that its source holds out, and
    a sentence about it; it then trains on these, too.

    The folder ``out`` with ``_rates`` behind its name gets a run for each rate; the same call goes on with them. Raises
    ConfigError where there is nothing to choose by.
    """
    rates = sorted(experiment.learning_rates)
    experiment = replace(experiment, learning_rates=())
    ((name, task),) = experiment.tasks.items()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("learning_rates: they are tried by one process: start it without torchrun, or give none")
    metric = resolve(experiment).resolved.experiment.tasks[name].objective.card().metric
    fit, validation = split_training(task.source.read(), task)
    if not len(validation):
        raise ConfigError(f"tasks.{name}.source: holds nothing out to choose a learning rate by; set held_out")
    folder = Path(f"{out}_rates")
    folder.mkdir(parents=True, exist_ok=True)
    source = choosing_source(folder, fit, validation)
    found: dict[float, float] = {}
    for rate in rates:
        tried = replace(experiment, tasks={name: replace(task, source=source, learning_rate=rate)})
        run = folder / f"rate_{rate:g}"
        shown = progress and not (run / RESULTS).exists()
        result = train(tried, run, evaluate=evaluator(run, progress=shown), progress=shown)
        if result.problem:
            raise ConfigError(f"{run}: no score, so that no learning rate can be chosen: {result.problem}")
        shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
        found[rate] = result.results["tasks"][name]["metrics"][metric]
    best = max(rates, key=lambda rate: found[rate])
    reached = ", ".join(f"{rate:g}: {score:.1%}" for rate, score in found.items())
    told = (
        f"Learning rate {best:g}, chosen by {len(validation):,} training examples ({reached}); all of them train now."
    )
    trained = replace(task, source=replace(task.source, held_out=0.0), learning_rate=best)
    return replace(experiment, tasks={name: trained}), told
