"""A training run: from an experiment to a folder with its log, checkpoints, results and model."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tubelet.configs import ConfigError, to_json
from tubelet.data.batch import Batch
from tubelet.data.dataset import TrainSet
from tubelet.data.loader import train_batches
from tubelet.data.manifest import Record
from tubelet.hardware import require_bfloat16
from tubelet.models import Model
from tubelet.seeds import mix
from tubelet.training.average import MovingAverage
from tubelet.training.checkpoints import Checkpoints, SaveRegularly, last_whole
from tubelet.training.experiment import Experiment
from tubelet.training.interruption import Interrupted, StopOnSignal
from tubelet.training.lock import RunLock
from tubelet.training.logger import MetricLogger, NonFiniteCheck
from tubelet.training.loop import Hook, Loop
from tubelet.training.module import TrainingModule
from tubelet.training.optimizers import build_optimizer, choose_trainable, parameter_groups
from tubelet.training.outcome import EvalAndExport, Evaluate, Validate, cards
from tubelet.training.parallel import parallelize
from tubelet.training.probing import probe_heads
from tubelet.training.ranks import Ranks, init_distributed
from tubelet.training.records import as_line, read_records
from tubelet.training.resolve import Prepared, Resolved, check_same_run, resolve, write_run
from tubelet.training.unreadable import UnreadableExamples
from tubelet.training.validation import Validation
from tubelet.version import __version__
from tubelet.weights.folder import describe_tasks
from tubelet.weights.transfer import initialize
from tubelet.writing import is_full, write_json, write_text

CHECKPOINTS, MODEL, RESULTS, SESSIONS = "checkpoints", "model", "results.json", "sessions.jsonl"
_INITIAL = 4  # keeps the random numbers of the fresh weights apart from the plan's, the model's and the objective's


class DiskFullError(OSError):
    """There is no space for the files of a run."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """``results`` is what the evaluation returned at the end; empty without one, and where it failed: then ``problem``
    says why."""

    folder: Path
    updates: int
    results: Mapping[str, Any]
    problem: str = ""


def train(
    experiment: Experiment,
    out: str | Path,
    *,
    evaluate: Evaluate | None = None,
    validate: Validate | None = None,
    first: Callable[[Prepared], str] | None = None,
    progress: bool = True,
) -> RunResult:
    """Train, or go on training where ``out`` holds this very experiment; export the model at the end, then evaluate it.

    An evaluation that fails loses nothing: the model is there, the result says what the problem was, and the same call
    evaluates again without training.

    ``validate`` is needed where the experiment validates. ``first`` is called, on the first rank,
    when the run's folder is there and before it trains; it returns a few words for the line of progress.

    Runs as one process, or on every rank that torchrun started, all of which must see ``out``. Raises ConfigError
    where ``out`` holds another experiment or its data has changed; RunInUseError where another process writes it;
    DamagedRunError, DamagedCheckpointsError; TrainingDivergedError; TooManyUnreadableError; DiskFullError;
    RankDiedError; Interrupted after SIGTERM or SIGINT, when the state is saved.
    """
    if experiment.learning_rates:
        raise ConfigError("learning_rates: tubelet.recipes.run.run chooses one of them; train() takes none")
    folder = Path(out)
    prepared = resolve(experiment)
    resolved = prepared.resolved
    with init_distributed() as ranks:
        _check_machine(resolved.experiment, ranks)
        if (done := _finished(folder, resolved, evaluate)) is not None:
            if progress and ranks.is_main:
                Console(stderr=True).print(f"{folder} is finished; give another --out to train again", markup=False)
            return done
        with _told_if_full(folder), RunLock(folder, ranks) as lock:
            exists = check_same_run(folder, resolved)
            ranks.barrier()
            if ranks.is_main and not exists:
                write_run(folder, resolved)
            aside = first(prepared) if first and ranks.is_main else ""
            try:
                return _session(prepared, folder, ranks, lock, evaluate, validate, aside, progress)
            except Interrupted as stopped:
                if ranks.is_main:
                    print(f"tubelet: {stopped}", file=sys.stderr)
                raise


@contextmanager
def _told_if_full(folder: Path) -> Generator[None]:
    """An error of a full disk says what is left of the run, and how to go on."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        last, _ = last_whole(folder / CHECKPOINTS)
        go_on = f"the last checkpoint is of update {last}" if last else "there is no checkpoint yet"
        raise DiskFullError(
            f"{getattr(error, 'filename', None) or folder}: no space left on the device; {go_on}: make room, and run "
            f"the same command again to {'go on from it' if last else 'start anew'}"
        ) from error


def _finished(folder: Path, resolved: Resolved, evaluate: Evaluate | None) -> RunResult | None:
    """The result of a run that has come to its end before. Raises ConfigError where it is another run."""
    results = folder / RESULTS
    if not (folder / MODEL).exists() or (evaluate is not None and not results.exists()):
        return None
    check_same_run(folder, resolved)
    saved = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    return RunResult(folder=folder, updates=resolved.updates, results=saved)


def initial_model(experiment: Experiment) -> Model:
    """The model with a head for every task, freshly initialized from the experiment's seed."""
    torch.manual_seed(mix(experiment.seed, _INITIAL))
    encoder = experiment.model.build()
    return Model(encoder, {name: task.objective.head(encoder) for name, task in experiment.tasks.items()})


def _session(
    prepared: Prepared,
    folder: Path,
    ranks: Ranks,
    lock: RunLock,
    evaluate: Evaluate | None,
    validate: Validate | None,
    aside: str,
    progress: bool,
) -> RunResult:
    resolved = prepared.resolved
    experiment, training, total = resolved.experiment, resolved.experiment.training, resolved.updates
    start, damaged = ranks.collect(last_whole(folder / CHECKPOINTS) if ranks.is_main else (0, []))[0]
    with MetricLogger(folder, ranks, training.log_every, start, total, progress, _epoch(resolved), aside) as records:
        for note in (*prepared.notes, *lock.notes, *damaged, *_begin_session(folder, ranks, start)):
            records.say(note)
        model = initial_model(experiment)
        if start == 0:
            reports = initialize(model, experiment.model, experiment.init, cards(experiment, {}))
            for report in reports:
                records.say(str(report))
            loaded = {name.split(".")[1] for r in reports for name in r.loaded if name.startswith("heads.")}
            _check_scored(experiment, loaded)
            if training.probe_first:
                for said in probe_heads(model, prepared, ranks, keep=loaded):
                    records.say(said)
        choose_trainable(model, experiment.trainable)
        for name, task in experiment.tasks.items():
            if not task.trains:
                model.heads[name].requires_grad_(False)
        learner = TrainingModule(model, experiment.tasks, ranks)
        module = parallelize(learner, training, ranks)
        optimizer = build_optimizer(
            experiment.optimizer, model.parameters(), parameter_groups(experiment.optimizer, model, experiment.model)
        )
        average = MovingAverage(model, training.ema) if training.ema else None
        outcome = EvalAndExport(model, experiment, average, evaluate, ranks)
        validation = _validation(outcome, validate, prepared, records) if prepared.validation else None
        others = {"average": average.average if average else {}, "kept": validation.kept if validation else {}}
        checkpoints = Checkpoints(folder / CHECKPOINTS, model, optimizer, others, ranks)
        if start > 0:
            state = checkpoints.load(start)
            records.restore(state.get("log", []))
            if validation:
                validation.restore(state["validation"])
            records.say(f"goes on after update {start} of {total}")
        health = NonFiniteCheck(ranks, training.log_every, lambda: checkpoints.last)

        def before_saving() -> None:
            health.check()
            records.to_disk()

        saver = SaveRegularly(
            checkpoints,
            training.checkpoint_every,
            training.keep_checkpoints,
            before_saving,
            lambda: {"log": records.latest, **({"validation": validation.state()} if validation else {})},
        )
        loop = Loop(
            module=module,
            optimizer=optimizer,
            ranks=ranks,
            seed=experiment.seed,
            learning_rate=resolved.learning_rate,
            tasks_per_update=resolved.tasks_per_update,
            micro_batches=training.micro_batches,
            clip_norm=training.clip_norm,
            precision=torch.bfloat16 if training.precision == "bfloat16" else torch.float32,
        )
        with StopOnSignal(ranks, total, saver.save) as stop:
            hooks: list[Hook] = [
                lock,
                UnreadableExamples(
                    folder, {n: data.examples for n, data in resolved.data.items()}, training.replace_budget
                ),
                *([average] if average else []),
                health,
                records,
                *([validation] if validation else []),
                outcome.every(training.evaluate_every, total, records),
                saver,
                stop,
            ]
            enough = validation.enough if validation else lambda: False
            done = start
            if validation and start == 0 and training.probe_first:
                validation.look(0)
            if start < total and not enough():
                batches = _batches(prepared, start, ranks)
                done = loop.run(batches, start, total, hooks, enough)
            saver.save(done)
    if validation:
        outcome.settle(validation.kept)
    outcome.export(folder / MODEL, _provenance(resolved, done, validation))
    results, problem = outcome.evaluate()
    if ranks.is_main and results:
        write_json(folder / RESULTS, results)
        describe_tasks(folder / MODEL, cards(experiment, results))
    ranks.barrier()
    return RunResult(folder=folder, updates=done, results=results, problem=problem)


def _check_scored(experiment: Experiment, loaded: Collection[str]) -> None:
    """Raise ConfigError for a task that does not train and whose head no source has brought."""
    for name, task in experiment.tasks.items():
        if not task.trains and name not in loaded:
            raise ConfigError(
                f"tasks.{name}.length is zero, and init brings no head of that name with these classes: start from a "
                "run that trained this task, or give it a length"
            )


def _epoch(resolved: Resolved) -> float:
    """The updates of a pass over the examples of a single task; 0 of several."""
    if len(resolved.data) > 1:
        return 0.0
    ((name, data),) = resolved.data.items()
    return data.examples / resolved.experiment.tasks[name].batch_size


def _validation(
    outcome: EvalAndExport, validate: Validate | None, prepared: Prepared, records: MetricLogger
) -> Validation:
    if validate is None:
        raise ValueError("training.validate_every is set, so train() needs `validate`")
    training = outcome.experiment.training

    def tell(step: int, validation: Validation) -> None:
        score, kept = validation.curve[-1][1], validation.kept_score
        records.write(
            {"step": step, "validation": score.value, "standard_error": score.error, "kept": validation.kept_step}
        )
        records.aside["validation"] = f"{score.value:.1%} (kept {kept.value:.1%})"

    return Validation(
        lambda: outcome.validate(validate, prepared.validation),
        outcome.values,
        every=training.validate_every,
        patience=training.patience,
        total=prepared.resolved.updates,
        tell=tell,
    )


def _check_machine(experiment: Experiment, ranks: Ranks) -> None:
    if experiment.training.precision == "bfloat16" and ranks.device.type == "cpu":
        require_bfloat16()
    parts = experiment.training.micro_batches
    for name, task in experiment.tasks.items():
        if task.batch_size % ranks.world_size or task.batch_size // ranks.world_size < parts:
            raise ConfigError(
                f"tasks.{name}.batch_size: {task.batch_size} examples cannot be shared equally by "
                f"{ranks.world_size} ranks with at least one for each of {parts} micro-batches"
            )
        if parts > 1 and not task.objective.summed:
            raise ConfigError(
                f"training.micro_batches: {parts}, but the loss of tasks.{name} needs all examples of a minibatch at "
                "once; set it to 1 and give a smaller batch_size, or more ranks"
            )


def train_set(experiment: Experiment, name: str, records: Sequence[Record], sizes: Sequence[int] = ()) -> TrainSet:
    """The training examples of a task as minibatches are made of them; ``sizes``: of its sources, if it has several."""
    task, training = experiment.tasks[name], experiment.training
    return TrainSet(
        records,
        task.objective.card().targets(),
        {key: experiment.model.inputs[key] for key in task.inputs},
        task.augment,
        seed=experiment.seed,
        task=name,
        cache_gib=training.cache_gib / max(1, training.workers) / len(experiment.tasks),
        sizes=sizes,
        may_miss=task.may_miss,
    )


def _batches(prepared: Prepared, start: int, ranks: Ranks) -> Iterator[Batch]:
    resolved = prepared.resolved
    experiment, training = resolved.experiment, resolved.experiment.training
    return train_batches(
        {n: train_set(experiment, n, records, prepared.sizes[n]) for n, records in prepared.training.items()},
        resolved.plan(),
        {name: task.batch_size for name, task in experiment.tasks.items()},
        seed=experiment.seed,
        start=start * resolved.tasks_per_update,
        rank=ranks.rank,
        world=ranks.world_size,
        workers=training.workers,
        pin=ranks.device.type == "cuda",
    )


def _begin_session(folder: Path, ranks: Ranks, start: int) -> list[str]:
    """Record what this session runs on; sentences on what differs from the last, so that results may too."""
    now = {
        "tubelet": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.get_device_module(ranks.device).get_device_name() if ranks.device.type == "cuda" else "cpu",
        "ranks": ranks.world_size,
        "threads": torch.get_num_threads(),
    }
    path = folder / SESSIONS
    ranks.barrier()
    before = read_records(path) if start else []
    ranks.barrier()
    if ranks.is_main:
        write_text(path, "".join(map(as_line, [*before, {"start": start, **now}])))
    if not before:
        return []
    changed = [f"{key} {before[-1].get(key)} -> {value}" for key, value in now.items() if before[-1].get(key) != value]
    return (
        [f"resumed on something else ({', '.join(changed)}): not bit for bit the uninterrupted run"] if changed else []
    )


def _provenance(resolved: Resolved, updates: int, validation: Validation | None) -> dict[str, Any]:
    of_this_machine = ("contents", "place")
    data = {
        name: {key: value for key, value in to_json(data).items() if key not in of_this_machine}
        for name, data in resolved.data.items()
    }
    chosen = {"validation": validation.state()} if validation else {}
    return {"experiment": to_json(resolved.experiment), "data": data, "updates": updates, **chosen}
