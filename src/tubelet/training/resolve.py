"""An experiment against its data: classes filled in, lengths as updates, and a run's folder that remembers both."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tubelet.configs import ConfigError, differences, from_json, renamed, to_json
from tubelet.data.fingerprints import LETTERS, contents, looked_at
from tubelet.data.manifest import Manifest, Record, Records
from tubelet.data.names import text_of
from tubelet.data.split import hold_out
from tubelet.specs import TextSpec
from tubelet.training.experiment import Experiment, Task
from tubelet.training.records import DamagedRunError
from tubelet.training.schedules import learning_rate
from tubelet.version import __version__
from tubelet.writing import write_json

CONFIG = "config.json"

# What may change from one session of a run to the next: nothing that the weights depend on.
_FREE_TRAINING = (
    "workers",
    "cache_gib",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluate_every",
    "replace_budget",
)
_PATH = re.compile(r"tasks\.[^.]+\.source\.(path|also)")
FREE = ("notes", "baseline", *(f"training.{name}" for name in _FREE_TRAINING))


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """What a task's training data decided.

    ``sha256``: of its examples' keys, labels, times and captions, in their order. ``contents``: fingerprints of their
    files (:func:`~tubelet.data.fingerprints.contents`); "" in runs of versions that did not look. ``place``: where its
    source is, from the root.
    """

    examples: int
    updates: int
    warmup: int
    sha256: str
    contents: str = ""
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """An experiment whose classes are filled in, and what its data decided, by task."""

    experiment: Experiment
    data: dict[str, TaskData]

    @property
    def updates(self) -> int:
        """Updates in all: the sum of the tasks' lengths, or a T-th of it where each update trains all T tasks."""
        return sum(data.updates for data in self.data.values()) // self.tasks_per_update

    @property
    def warmup(self) -> int:
        """Updates until the learning rate is at its highest: the tasks' warm-ups together, or a T-th of them."""
        return sum(data.warmup for data in self.data.values()) // self.tasks_per_update

    @property
    def tasks_per_update(self) -> int:
        """The minibatches whose gradients an update sums."""
        return self.experiment.schedule.tasks_per_update(len(self._lengths))

    def learning_rate(self, step: int, tasks: Iterable[str]) -> float:
        """The rate of update ``step``, counted from 0, that trains ``tasks``.

        One curve over all updates, scaled by the rate of the update's task, as the released PolyViT code does; by the
        smallest, where it trains several (PolyViT Appendix B).
        """
        base = min(self.experiment.tasks[name].learning_rate for name in tasks)
        training = self.experiment.training
        return learning_rate(step, base, self.warmup, self.updates, training.decay, base * training.decay_to)

    def plan(self) -> list[str]:
        """The task of each minibatch."""
        return self.experiment.schedule.plan(self._lengths, self.experiment.seed)

    @property
    def _lengths(self) -> dict[str, int]:
        """The updates of the tasks that train."""
        return {name: data.updates for name, data in self.data.items() if self.experiment.tasks[name].trains}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An experiment against its data: each task's examples that train and that validate, and the manifests' notes.

    ``sizes``: how many of those that train come from each of the task's sources, in their order.
    """

    resolved: Resolved
    training: dict[str, Sequence[Record]]
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    validation: dict[str, Sequence[Record]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def resolve(experiment: Experiment) -> Prepared:
    """Read the manifests. Raises ManifestError and ConfigError."""
    tasks: dict[str, Task] = {}
    data: dict[str, TaskData] = {}
    training: dict[str, Sequence[Record]] = {}
    validation: dict[str, Sequence[Record]] = {}
    sizes: dict[str, tuple[int, ...]] = {}
    notes: list[str] = []
    for name, task in experiment.tasks.items():
        _check_inputs(experiment, name, task)
        manifest, more = task.source.read(), task.source.read_others()
        notes += [note for read in (manifest, *more) for note in read.notes if note not in notes]
        parts, held_out = _parts(task, manifest, more)
        for part, source in zip(parts, [manifest, *more], strict=True):
            if not part:
                raise ConfigError(f"tasks.{name}.source: the index could read none of {source.path}'s examples")
        records, sizes[name] = Records.joined(parts), tuple(map(len, parts))
        objective = task.objective.resolved(manifest, task.source.train)
        tasks[name], training[name] = replace(task, objective=objective), records
        if experiment.training.validate_every and held_out and task.trains:
            validation[name] = held_out
        data[name] = TaskData(
            examples=len(records),
            updates=task.length.resolve(len(records), task.batch_size),
            warmup=task.warmup.resolve(len(records), task.batch_size) if task.trains else 0,
            sha256=records.sha256(),
            contents=contents(_files(experiment, task, records)),
            place=os.path.abspath(task.source.path),
        )
    resolved = Resolved(experiment=replace(experiment, tasks=tasks), data=data)
    return Prepared(resolved=resolved, training=training, sizes=sizes, validation=validation, notes=notes)


def split_training(manifest: Manifest, task: Task) -> tuple[Records, Records]:
    """The readable examples that train, and those that validate."""
    source = task.source
    records = manifest.split(source.train).readable
    if source.validation:
        return records, manifest.split(source.validation).readable
    if not source.held_out:
        return records, records[:0]
    rest, held_out, _ = hold_out(records, source.held_out, len(records), by_class=task.objective.by_class)
    return rest, held_out


def _parts(task: Task, manifest: Manifest, more: Sequence[Manifest]) -> tuple[list[Records], Records]:
    """The examples of each source that train, and those that validate."""
    records, held_out = split_training(manifest, task)
    return [records, *(other.split(task.source.train).readable for other in more)], held_out


def _files(experiment: Experiment, task: Task, records: Records) -> list[str]:
    """The files whose contents a run remembers."""
    return looked_at(records, any(isinstance(experiment.model.inputs[name], TextSpec) for name in task.inputs))


def _check_inputs(experiment: Experiment, name: str, task: Task) -> None:
    sets = experiment.model.input_sets
    if not any(set(task.inputs) == set(together) for together in sets):
        takes = ", or ".join(" and ".join(together) for together in sets)
        raise ConfigError(f"tasks.{name}.inputs: {' and '.join(task.inputs)}, but the model takes {takes}")
    if task.may_miss and not (experiment.model.may_miss and len(task.inputs) > 1):
        raise ConfigError(
            f"tasks.{name}.may_miss: true, but the model cannot do without any of {' and '.join(task.inputs)} in a "
            "minibatch; set it to false"
        )


def read_run(folder: str | Path) -> Resolved:
    """The experiment of a run's folder, as it was resolved.

    Raises ConfigError where there is no run, DamagedRunError where its file is no JSON.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ConfigError(f"{folder}: no run here ({CONFIG} is missing)")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedRunError(
            f"{path}: is damaged ({error}): put a copy back, or remove the folder and run the same command again"
        ) from None
    if not isinstance(saved, dict) or not saved.keys() >= {"experiment", "data"}:
        raise ConfigError(f"{folder}: no run here ({CONFIG} is of something else)")
    try:
        return from_json(Resolved, renamed({name: saved[name] for name in ("experiment", "data")}))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def run_tasks(folder: str | Path) -> dict[str, Task]:
    """The tasks of a run, with the place of their data, wherever the caller is. Raises ConfigError."""
    run = read_run(folder)
    return {
        name: replace(task, source=replace(task.source, path=place))
        if name in run.data and os.path.exists(place := run.data[name].place)
        else task
        for name, task in run.experiment.tasks.items()
    }


def write_run(folder: Path, resolved: Resolved) -> None:
    """Write ``config.json``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, {"library": f"tubelet {__version__}", **to_json(resolved)})


def check_same_run(folder: Path, resolved: Resolved) -> bool:
    """Whether ``folder`` holds this very run; False where it holds nothing yet.

    Raises ConfigError where it holds something else, with every difference and the ways out.
    """
    if not (folder / CONFIG).exists():
        strangers = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []
        if strangers:
            raise ConfigError(f"{folder}: is no run ({CONFIG} is missing) and not empty: {', '.join(strangers[:5])}")
        return False
    saved = read_run(folder)
    changed = differences(saved.experiment, resolved.experiment)
    changed = [change for change in changed if change[0] not in FREE and not change[0].startswith("chosen.")]
    before, now = (
        {name: replace(data, contents="", place="") for name, data in run.data.items()} for run in (saved, resolved)
    )
    if before == now:  # one source, however its path is written
        changed = [change for change in changed if not _PATH.match(change[0])]
    if changed:
        raise ConfigError(
            f"{folder} holds a run of another experiment:\n{_listed(changed)}\n"
            "Give another --out, change these back to go on with that run, or remove the folder"
        )
    if other := differences(before, now):
        raise ConfigError(
            f"{folder} holds a run that began with other training data:\n{_listed(other)}\n"
            "Restore the data to go on with that run, or start a new one with another --out"
        )
    for name, data in saved.data.items():
        _check_contents(folder, resolved.experiment, name, data.contents, resolved.data[name].contents)
    return True


def _check_contents(folder: Path, experiment: Experiment, name: str, before: str, now: str) -> None:
    """Raises ConfigError where the files of task ``name`` have changed since the run of ``folder`` began."""
    if before in ("", now):
        return
    task = experiment.tasks[name]
    files = _files(experiment, task, Records.joined(_parts(task, task.source.read(), task.source.read_others())[0]))
    places = range(0, len(now), LETTERS)
    other = [file for file, i in zip(files, places, strict=True) if before[i : i + LETTERS] != now[i : i + LETTERS]]
    first = text_of(next(iter(other), files[-1]))
    raise ConfigError(
        f"{folder}: the data changed: {len(other):,} of {len(files):,} training files looked at are not as they were, "
        f"such as {first}; restore them to go on with that run, or start a new one with another --out"
    )


def _listed(changed: Sequence[tuple[str, Any, Any]]) -> str:
    return "\n".join(f"  {path}: {_short(old)} -> {_short(new)}" for path, old, new in changed)


def _short(value: Any) -> str:
    text = value if value == "(absent)" else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
