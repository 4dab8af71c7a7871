"""A linear probe as a training on the files, which is all that PolyViT does: the trunk frozen, a head learns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tubelet.data.manifest import Record, write_manifest
from tubelet.evaluation.run import evaluator
from tubelet.probing.data import TRAIN, ProbeExamples, absolute
from tubelet.probing.encoder import Trunk
from tubelet.probing.settings import ProbeOptions, Settings
from tubelet.training.experiment import SGD, Experiment, Source, Task, Training
from tubelet.training.run import CHECKPOINTS, train
from tubelet.training.unreadable import QUARANTINE
from tubelet.weights.transfer import Init

FINAL = "final"
_CHOOSING, _FIT, _VALIDATION = "choosing.jsonl", "fit", "validation"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides a probe."""

    trunk: Trunk
    examples: ProbeExamples
    settings: Settings
    options: ProbeOptions

    def experiment(self, rate: float, source: Source | None = None) -> Experiment:
        """The training of the head at a learning rate; on the data set's own splits, unless ``source`` is given."""
        examples, settings = self.examples, self.settings
        task = Task(
            source=source or Source(path=examples.path, train=TRAIN, test=examples.test_split),
            objective=replace(examples.objective, head_init=settings.head_init, mixup=settings.mixup),
            inputs=(self.trunk.input,),
            augment=settings.augment,
            batch_size=settings.batch_size,
            length=settings.length,
            warmup=settings.warmup,
            learning_rate=rate,
            views=settings.views,
        )
        return Experiment(
            model=self.trunk.config,
            tasks={examples.name: task},
            optimizer=SGD(),
            training=Training(workers=self.options.workers),
            init=(Init(source=self.trunk.source),),
            trainable=("heads.*",),
            seed=self.options.seed,
            notes=f"A linear probe of {self.trunk.source}. {self.trunk.note}".strip(),
        )

    def choose(self, tried: Callable[[float, Sequence[Record], Sequence[Record]], float]) -> Choice:
        """The best learning rate by ``tried(rate, fit, validation)``, the smallest of equals.

        Nothing is tried where the settings have one rate alone.
        """
        if len(self.settings.rates) == 1:
            return Choice(rate=self.settings.rates[0])
        fit, validation, told = self.examples.for_choosing(self.options.validation, self.options.seed)
        scores = {rate: tried(rate, fit, validation) for rate in sorted(self.settings.rates)}
        best = max(scores, key=lambda rate: scores[rate])
        said = ", ".join(f"{rate:g}: {value:.1%}" for rate, value in scores.items())
        note = f"learning rate {best:g} chosen by {told} ({said}); then trained on all training examples"
        return Choice(rate=best, scores={f"{rate:g}": value for rate, value in scores.items()}, note=note)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A learning rate, and what each that was tried reached on the validation examples."""

    rate: float
    scores: dict[str, float] = field(default_factory=dict[str, float])
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """What a linear head reached. ``result``: its entry in ``results.json``; ``lost``: unreadable training files."""

    choice: Choice
    result: Mapping[str, Any]
    train: int
    lost: tuple[dict[str, Any], ...]


def train_on_files(plan: Plan, out: Path, progress: bool) -> Linear:
    """Train and test; every run is a folder below ``out``: one per learning rate that is tried, and ``final``.

    The runs that try a rate know a manifest of training examples alone.
    """
    name, metric = plan.examples.name, plan.examples.objective.metric

    def run(folder: Path, experiment: Experiment) -> Mapping[str, Any]:
        found = train(experiment, folder, evaluate=evaluator(folder, progress=progress), progress=progress)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # what is finished is told by its model and results
        return found.results["tasks"][name]

    def tried(rate: float, fit: Sequence[Record], validation: Sequence[Record]) -> float:
        manifest = out / _CHOOSING
        write_manifest(manifest, [*absolute(fit, _FIT), *absolute(validation, _VALIDATION)])
        source = Source(path=str(manifest), train=_FIT, test=_VALIDATION)
        return run(out / f"rate_{rate:g}", plan.experiment(rate, source))["metrics"][metric]

    choice = plan.choose(tried)
    result = run(out / FINAL, plan.experiment(choice.rate))
    lost = _quarantined(out / FINAL / QUARANTINE)
    return Linear(choice=choice, result=result, train=len(plan.examples.train) - len(lost), lost=lost)


def _quarantined(path: Path) -> tuple[dict[str, Any], ...]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return tuple({key: json.loads(line)[key] for key in ("path", "time", "reason")} for line in lines)
