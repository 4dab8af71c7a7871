"""Evaluating what is on disk: a run on its own test data, or any model on other data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tubelet.cards import RetrievalCard, TaskCard
from tubelet.configs import ConfigError, override
from tubelet.data.dataset import VideoViews, ViewSet
from tubelet.data.manifest import LABEL, Manifest, ManifestError, Record, read_manifest
from tubelet.data.records import Records
from tubelet.data.views import Views
from tubelet.evaluation.evaluate import evaluate_task
from tubelet.evaluation.results import RESULTS, TaskResult, results_json, write_details
from tubelet.inference.kinds import fitting_views
from tubelet.inference.scoring import Precision
from tubelet.inference.sentences import text_spec, unclear, zero_shot
from tubelet.media.errors import MediaError
from tubelet.models import Model, ModelConfig
from tubelet.training.experiment import Experiment, Task
from tubelet.training.outcome import Evaluate, Validate, cards
from tubelet.training.ranks import Ranks, init_distributed
from tubelet.training.resolve import run_tasks
from tubelet.weights.folder import load_model
from tubelet.weights.loaded import LoadedModel, filled_model
from tubelet.writing import write_json

_TEST_SPLITS = ("val", "test")
_VIEWS_AT_ONCE = 64  # of validation examples, which have one view each


@dataclass(frozen=True, kw_only=True)
class TestData:
    """A task's test data. ``inputs``: the names of the model's inputs that its files give."""

    __test__ = False  # not one of pytest's

    records: Sequence[Record]
    views: Views
    inputs: tuple[str, ...]


def evaluate_run(
    source: str | Path,
    *,
    data: str = "",
    split: str = "",
    task: str = "",
    views: Views | None = None,
    inputs: Sequence[str] = (),
    prompt: str = "",
    dual_softmax: bool = False,
    model: Mapping[str, str] = {},
    out: str | Path | None = None,
    views_per_forward: int = 12,
    precision: Precision = "float32",
    workers: int = 2,
    progress: bool = True,
) -> dict[str, TaskResult]:
    """Evaluate a run, a model folder or ``hf:org/name``; the results by task.

    A run has its own test data and views. These override them: ``data`` (a manifest or a folder of class folders, for
    one task), ``split``, ``views`` (as far as the inputs have them: sound has no crops, an image one clip), ``task``
    (one of the model's) and ``inputs`` (some of the task's, if the model can do without the others). A model without a
    run needs ``data``. ``prompt``: instead of its own tasks, a model that compares video with captions is to tell the
    classes of ``data`` apart by sentences of their names, such as "a video of {}" (task "zero_shot").
    ``dual_softmax``: retrieval is scored with it. ``model``: fields of the model's config to change, by dotted path, as
    far as its weights allow: ``{"tubes.0.stride": "8,32,32"}`` (TubeViT Table 7d). Without overrides the results are
    written into the run: ``results.json``, ``predictions.jsonl``, ``classes.json``; otherwise into ``out``, if given.
    Runs on every rank that torchrun started. Raises ConfigError, WeightsError, ManifestError, and ValueError where a
    label is none of the model's classes.
    """
    loaded = _changed(load_model(source), model, str(source))
    tasks = tasks_of_run(source)
    doubts: list[str] = []
    if prompt:
        if not data or task or inputs:
            raise ConfigError("zero-shot tells the classes of --data apart: give that, and neither --task nor --inputs")
        loaded, doubts = _zero_shot(loaded, read_manifest(data), prompt, str(source))
    names = choose(str(source), tuple(loaded.tasks), task, data)
    asked = {name: with_inputs(name, loaded.tasks[name], loaded.config, tuple(inputs), str(source)) for name in names}
    if dual_softmax:
        asked = {name: _with_dual_softmax(name, card, str(source)) for name, card in asked.items()}
    tests = {
        n: test_data(n, card, loaded.model, tasks.get(n), str(source), data, split, views) for n, card in asked.items()
    }
    if out is None and tasks and not (data or split or task or views or inputs or dual_softmax or model):
        out = source
    with init_distributed() as ranks:
        loaded.model.to(ranks.device)
        results = _evaluate(
            loaded.model,
            asked,
            tests,
            ranks,
            views_per_forward=views_per_forward,
            precision=precision,
            workers=workers,
            progress=progress,
        )
        results = {
            n: replace(result, warnings=(*doubts, *result.warnings), changed=dict(model))
            for n, result in results.items()
        }
        if out is not None and ranks.is_main:
            folder = Path(out)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / RESULTS, results_json(results, None if data or split else Path(source)))
            write_details(folder, results)
        ranks.barrier()
    return results


def _changed(loaded: LoadedModel, changes: Mapping[str, str], source: str) -> LoadedModel:
    """The model with fields of its config changed, and the same weights."""
    if not changes:
        return loaded
    try:
        config = override(loaded.config, changes)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{source}: --model.{error}") from None
    state, told = loaded.model.state_dict(), ", ".join(f"--model.{path} {text}" for path, text in changes.items())
    model = filled_model(config, loaded.tasks, state, f"{source} does not fit {told}")
    return LoadedModel(model, config, loaded.tasks, loaded.provenance, loaded.dropped)


def _zero_shot(loaded: LoadedModel, manifest: Manifest, prompt: str, source: str) -> tuple[LoadedModel, list[str]]:
    """The model that tells the classes of a manifest apart by their names, and what is doubtful about them."""
    classes = manifest.classes()
    several = bool((Records.of(manifest.records).labels(LABEL).counts > 1).any())
    try:
        made = zero_shot(loaded, classes, prompt, several=several)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
    return made, unclear(text_spec(loaded.model), classes, prompt)


def _with_dual_softmax(name: str, card: TaskCard, source: str) -> RetrievalCard:
    if not isinstance(card, RetrievalCard):
        raise ConfigError(f"{source}: dual softmax is of retrieval, which task {name!r} is not; leave it out")
    return replace(card, dual_softmax=True)


def evaluator(folder: str | Path | None = None, *, views_per_forward: int = 12, progress: bool = True) -> Evaluate:
    """The function that :func:`tubelet.training.run.train` takes as ``evaluate``: it scores tasks on their test splits.

    ``folder``: where the details of the latest evaluation are written, for the report; usually the run's.
    """

    def evaluate(model: Model, experiment: Experiment, ranks: Ranks) -> Mapping[str, Any]:
        heads = cards(experiment, {})
        tests = {
            name: test_data(name, heads[name], model, task, task.source.path, "", "", None)
            for name, task in experiment.tasks.items()
        }
        results = _evaluate(
            model,
            heads,
            tests,
            ranks,
            views_per_forward=views_per_forward,
            precision=experiment.training.precision,
            workers=experiment.training.workers,
            progress=progress,
        )
        if folder is not None and ranks.is_main:
            try:
                write_details(Path(folder), results)
            except OSError as error:  # the metrics are worth more than the lists beside them
                print(f"tubelet: the predictions of each file cannot be written: {error}", file=sys.stderr)
        return results_json(results, Path(folder) if folder is not None else None)

    return evaluate


def validator() -> Validate:
    """The function that :func:`tubelet.training.run.train` takes as ``validate``.

    It scores one view of each example; the views are read once and kept in memory.
    """
    sets: dict[str, ViewSet] = {}

    def validate(
        model: Model, experiment: Experiment, examples: Mapping[str, Sequence[Record]], ranks: Ranks
    ) -> Mapping[str, Any]:
        heads = cards(experiment, {})
        for name, records in examples.items():
            if name not in sets:
                test = TestData(records=records, views=Views(), inputs=heads[name].inputs)
                sets[name] = view_set(model, heads[name], test, make=_KeptViews)
        results = {
            name: evaluate_task(
                model,
                name,
                heads[name],
                sets[name],
                ranks=ranks,
                views_per_forward=_VIEWS_AT_ONCE,
                precision=experiment.training.precision,
            )
            for name in examples
        }
        return results_json(results)

    return validate


def _evaluate(
    model: Model, tasks: Mapping[str, TaskCard], tests: Mapping[str, TestData], ranks: Ranks, **options: Any
) -> dict[str, TaskResult]:
    return {
        name: evaluate_task(model, name, card, view_set(model, card, tests[name]), ranks=ranks, **options)
        for name, card in tasks.items()
    }


class _KeptViews(ViewSet):
    """Views that stay in memory after they have been read."""

    def example(self, index: int) -> VideoViews | MediaError:
        if index not in self._kept:
            self._kept[index] = super().example(index)
        return self._kept[index]

    @cached_property
    def _kept(self) -> dict[int, VideoViews | MediaError]:
        return {}


def view_set(model: Model, card: TaskCard, test: TestData, make: type[ViewSet] = ViewSet) -> ViewSet:
    specs = {name: model.encoder.inputs[name] for name in test.inputs}
    may_miss = model.encoder.may_miss and len(specs) > 1
    return make(test.records, card.targets(), specs, test.views, may_miss=may_miss)


def tasks_of_run(source: str | Path) -> Mapping[str, Task]:
    """The tasks of a run; none if it is something else."""
    with suppress(ConfigError):
        return run_tasks(source)
    return {}


def choose(source: str, has: tuple[str, ...], task: str, data: str) -> tuple[str, ...]:
    if not has:
        raise ConfigError(f"{source}: this model has no head, so there is no task to evaluate")
    if task and task not in has:
        raise ConfigError(f"{source}: no task {task!r}; it has {', '.join(has)}")
    if data and not task and len(has) > 1:
        raise ConfigError(f"{source}: {data} is the data of one task; say of which of {', '.join(has)} (--task)")
    return (task,) if task else has


def with_inputs(name: str, card: TaskCard, model: ModelConfig, inputs: tuple[str, ...], source: str) -> TaskCard:
    """The task with only these of its inputs; with all, if none is named."""
    own = set(card.inputs or model.inputs)
    if not inputs or set(inputs) == own:
        return card
    smaller = [s for s in model.input_sets if set(s) < own] if own in map(set, model.input_sets) else []
    chosen = next((s for s in smaller if set(s) == set(inputs)), None)
    if chosen is None:
        takes = ", or ".join(" with ".join(s) for s in [tuple(card.inputs or model.inputs), *smaller])
        raise ConfigError(f"{source}: inputs {' with '.join(inputs)}: task {name!r} takes {takes}")
    return replace(card, inputs=chosen)


def test_data(
    name: str,
    card: TaskCard,
    model: Model,
    task: Task | None,
    source: str,
    data: str,
    split: str,
    views: Views | None,
) -> TestData:
    inputs = card.inputs or tuple(model.encoder.inputs)
    specs = {key: model.encoder.inputs[key] for key in inputs}
    views = fitting_views(views or (task.views if task else ""), specs)
    if data:
        return TestData(records=_records(read_manifest(data), split), views=views, inputs=inputs)
    if task is None:
        raise ConfigError(f"{source}: is no run with test data for task {name!r}; give the data (--data)")
    if not Path(task.source.path).exists():
        raise ConfigError(f"{source}: the run's data {task.source.path} is not here: give it (--data)")
    records = task.source.read().split(split or task.source.test)
    return TestData(records=records, views=views, inputs=inputs)


def _records(manifest: Manifest, split: str) -> Sequence[Record]:
    """The records of ``split``. If it is empty: those of the test split, or all where there are no splits."""
    if split:
        return manifest.split(split)
    for name in _TEST_SPLITS:
        if name in manifest.splits:
            return manifest.split(name)
    if manifest.splits == ("",):
        return manifest.records
    raise ManifestError(manifest.path, None, f"no split {' or '.join(_TEST_SPLITS)}: say which (--split)")
