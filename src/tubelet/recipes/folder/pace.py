"""How fast this machine trains an experiment: measured on a few real updates before the training is planned."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import torch
import torch.distributed as dist

from tubelet.costs.cost import costs
from tubelet.data.loader import train_batches
from tubelet.data.manifest import Record
from tubelet.training.experiment import Experiment
from tubelet.training.loop import Loop, Update
from tubelet.training.module import TrainingModule
from tubelet.training.optimizers import build_optimizer
from tubelet.training.parallel import parallelize
from tubelet.training.ranks import Ranks, init_distributed
from tubelet.training.resolve import resolve
from tubelet.training.run import initial_model, train_set

_BATCHES = 8  # of different examples
_SECONDS = 5.0  # of measuring, and as much for reading the files
_FEWEST = 4  # updates that are measured


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The time of training one task on this machine.

    ``update``: seconds of one update. ``first_read``: seconds more for an example that is read for the first time.
    ``head``: the parameters of the task's head.
    """

    update: float
    first_read: float
    head: int = 0


def measure(experiment: Experiment, ranks: Ranks) -> dict[str, Pace]:
    """The pace of each task, measured on evenly spaced training examples. The trained weights are thrown away."""
    prepared = resolve(experiment)
    experiment = prepared.resolved.experiment
    return {name: _pace(experiment, name, records, ranks) for name, records in prepared.training.items()}


def _pace(experiment: Experiment, name: str, records: Sequence[Record], ranks: Ranks) -> Pace:
    task, training = experiment.tasks[name], experiment.training
    wanted = _BATCHES * task.batch_size
    some = records[:: max(1, len(records) // wanted)][:wanted]
    cache = training.cache_gib * len(some) / len(records)  # as large a share of what is read again as in the training
    examples = train_set(replace(experiment, training=replace(training, cache_gib=cache)), name, some)
    first_pass, most = len(some) // task.batch_size or 1, 2_000
    workers = training.workers
    batches = train_batches(
        {name: examples},
        [name] * most,
        {name: task.batch_size // ranks.world_size},
        seed=experiment.seed,
        workers=workers,
    )
    model = initial_model(experiment)
    alone = replace(ranks, control=None, world_size=1, rank=0)
    learner = TrainingModule(model, experiment.tasks, alone)
    loop = Loop(
        module=parallelize(learner, training, alone),
        optimizer=build_optimizer(experiment.optimizer, model.parameters()),
        ranks=alone,
        seed=experiment.seed,
        learning_rate=lambda step, tasks: 0.0,
        clip_norm=training.clip_norm,
        precision=torch.bfloat16 if training.precision == "bfloat16" else torch.float32,
    )
    ends = [time.perf_counter()]

    def note(update: Update) -> None:
        update.gradient_norm.item()  # waits for the device
        ends.append(time.perf_counter())

    def enough() -> bool:
        spent, done = ends[-1] - ends[0], len(ends) - 1
        reading = ends[min(first_pass, done)] - ends[0]
        measured = done >= first_pass + _FEWEST and spent - reading > _SECONDS
        return measured or (done >= _FEWEST and spent > 4 * _SECONDS)

    done = loop.run(batches, 0, most, [note], enough)
    del batches
    times = [b - a for a, b in pairwise(ends)]
    warm = times[first_pass + 1 :] or times[1:] or times
    cold = sum(times[1:first_pass]) / max(1, first_pass - 1) if done > first_pass > 1 else median(warm)
    # The loader is ahead of the model, so that a mean over many updates is what counts, not the middle one.
    update = sum(warm) / len(warm)
    head = sum(parameter.numel() for parameter in model.heads[name].parameters())
    return Pace(update=update, first_read=max(0.0, cold - update) / task.batch_size, head=head)


_SHARE = 0.85  # of the budget that the updates of a larger size may take by the estimate
_START, _END = 5.0, 8.0  # seconds of loading the program, and of the model's folder and the report
_FIT_START, _FIT = 3.0, 2.5e-8  # seconds of fitting a probe, and for each example and parameter of the head
_FORWARD = 0.45  # of an update's time, for the same examples without a gradient
VALIDATIONS = 20  # of a training
_BASELINE, _BASELINE_EXAMPLES = 30.0, 5_000  # seconds and examples that fitting the baselines takes at most
_FIXED_PART, _FIXED = 0.4, 0.002  # of an update's time, and seconds of an example, that do not grow with the model


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a plan chooses from.

    ``sizes``: of the model, the smallest first, each with the fewest training examples that it can learn from.
    ``passes``: over the examples, that a larger size must leave time for. ``most``: passes, if time allows.
    ``fewest``: if not even one fits.
    """

    sizes: Mapping[str, int]
    passes: float
    most: float
    fewest: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large the model is and how long each task trains.

    ``size``: see :func:`~tubelet.recipes.folder.model.choose_model`. ``passes``: over the examples; below 1 only heads
    train, if there are pretrained weights. ``chosen``: what was measured, to resume the training with (see
    :class:`Experiment`).
    """

    size: str
    updates: Mapping[str, int]
    passes: float = 1.0
    chosen: dict[str, float | str]


def plan_lengths(
    experiment: Callable[[Plan], Experiment],
    train: Mapping[str, int],
    held_out: Mapping[str, tuple[int, int]],
    *,
    wanted: Wanted,
    epochs: float,
    seconds: float,
    began: float,
    fits_baseline: bool,
) -> Plan:
    """The size and the lengths that fit into ``seconds`` from ``began`` (time.monotonic) on, by measuring.

    ``experiment`` makes the experiment of a plan. ``train``: each task's training examples; ``held_out``: its
    validation and test examples. ``epochs``: passes; 0 if planned. Where they are given and there is a single size,
    nothing is measured. On several ranks the first one decides.
    """
    size, *larger = wanted.sizes
    batches = {name: experiment(_draft(train, size)).tasks[name].batch_size for name in train}
    per_epoch = {name: max(1, count // batches[name]) for name, count in train.items()}
    if epochs and not larger:
        return Plan(
            size=size, updates=updates_of(epochs, per_epoch), passes=epochs, chosen={"epochs": epochs, "size": size}
        )
    with init_distributed() as ranks:
        plan: list[Plan | None] = [None]
        if ranks.is_main:
            planner = _Planner(
                experiment, train, held_out, per_epoch, wanted, epochs, seconds, began, fits_baseline, ranks
            )
            plan = [planner.plan(size)]
        if ranks.control is not None:
            dist.broadcast_object_list(plan, src=0, group=ranks.control)
        (decided,) = plan
        assert decided is not None
        return decided


def _draft(train: Mapping[str, int], size: str) -> Plan:
    return Plan(size=size, updates=dict.fromkeys(train, 1_000), chosen={})


@dataclass(frozen=True)
class _Planner:
    experiment: Callable[[Plan], Experiment]
    train: Mapping[str, int]
    held_out: Mapping[str, tuple[int, int]]
    per_epoch: Mapping[str, int]
    wanted: Wanted
    epochs: float
    seconds: float
    began: float
    fits_baseline: bool
    ranks: Ranks

    def plan(self, size: str) -> Plan:
        draft = _draft(self.train, size)
        experiment = self.experiment(draft)
        paces = measure(experiment, self.ranks)
        if (larger := self._larger(draft, paces)) != draft.size:
            draft = _draft(self.train, larger)
            experiment = self.experiment(draft)
            paces = measure(experiment, self.ranks)
        spent = time.monotonic() - self.began
        probed = self._probe(paces) if experiment.training.probe_first else 0.0
        fixed = _START + _END + self._others(paces) + probed + spent
        left = max(0.2 * self.seconds, self.seconds - fixed)
        one_pass = self._one_pass(paces)
        room = left / one_pass
        passes = self.epochs or float(f"{self.wanted.fewest if room < 1 else min(self.wanted.most, room):.4g}")
        if passes < 1 and self.experiment(replace(draft, passes=passes)).trainable != ("*",):
            one_pass *= _FORWARD  # heads alone have no gradient to compute through the model
            fixed -= (VALIDATIONS - 1) * self._validation(paces)
        seconds = round(fixed + passes * one_pass, 1)
        training, earliest = experiment.training, 1.0
        if training.patience and passes >= 1:
            earliest = min(1.0, (training.patience + 1) / VALIDATIONS)
        least = round(seconds - (1 - earliest) * (passes * one_pass + VALIDATIONS * self._validation(paces)), 1)
        chosen = {"epochs": passes, "size": draft.size, "seconds": seconds, "least_seconds": least}
        return Plan(size=draft.size, updates=updates_of(passes, self.per_epoch), passes=passes, chosen=chosen)

    def _one_pass(self, paces: Mapping[str, Pace]) -> float:
        """Seconds of a pass over all tasks' examples."""
        return sum(self.per_epoch[name] * pace.update for name, pace in paces.items())

    def _others(self, paces: Mapping[str, Pace]) -> float:
        """Seconds outside the updates: baselines, reading every file once, validation, the test."""
        seconds = VALIDATIONS * self._validation(paces)
        for name, pace in paces.items():
            validating, testing = self.held_out[name]
            batch = self.train[name] / self.per_epoch[name]
            seconds += pace.first_read * (self.train[name] + validating + testing)
            seconds += _FORWARD * pace.update / batch * testing
            if self.fits_baseline:
                fitted = min(_BASELINE_EXAMPLES, self.train[name])
                seconds += min(_BASELINE, 5.0 + 0.005 * fitted) + pace.first_read * (fitted + testing) / 2
        return seconds

    def _validation(self, paces: Mapping[str, Pace]) -> float:
        """Seconds of a validation of all tasks."""
        each = {name: self.train[name] / self.per_epoch[name] for name in paces}
        return sum(_FORWARD * pace.update / each[name] * self.held_out[name][0] for name, pace in paces.items())

    def _probe(self, paces: Mapping[str, Pace]) -> float:
        """Seconds of the probe: encoding the examples once, fitting the heads, and validating."""
        seconds = self._validation(paces)
        for name, pace in paces.items():
            batch = self.train[name] / self.per_epoch[name]
            examples = self.train[name] + self.held_out[name][0]
            seconds += (_FORWARD * pace.update / batch + pace.first_read) * examples
            seconds += _FIT_START + _FIT * self.train[name] * pace.head
        return seconds

    def _larger(self, draft: Plan, paces: Mapping[str, Pace]) -> str:
        """The largest size that suits the number of examples and leaves time for all the wanted passes."""
        examples, chosen = sum(self.train.values()), draft.size
        passes, base = self.epochs or self.wanted.passes, self._work(draft)
        one_pass = self._one_pass(paces)
        if self.experiment(draft).training.probe_first:  # what grows with the size beside few passes
            passes += (self._probe(paces) + VALIDATIONS * self._validation(paces)) / one_pass
        fixed = min(_FIXED_PART * one_pass, _FIXED * examples)
        for size, least in self.wanted.sizes.items():
            grown = fixed + (one_pass - fixed) * self._work(replace(draft, size=size)) / base
            if examples >= least and passes * grown <= _SHARE * self.seconds:
                chosen = size
        return chosen

    def _work(self, draft: Plan) -> int:
        return sum(cost.multiply_adds for cost in costs(self.experiment(draft).model, 10))


def updates_of(passes: float, per_epoch: Mapping[str, int]) -> dict[str, int]:
    """The number of updates of each task."""
    return {name: max(1, round(passes * count)) for name, count in per_epoch.items()}
