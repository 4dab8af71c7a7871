"""Which task trains on each minibatch, and the learning rate of each update; pure functions of numbers.

The schedules are those of PolyViT (Likhosherstov et al. 2021), Sec. 4.2 and Fig. 2, in whose words U_j is the length of
task j in updates, T the number of tasks, and U the updates in all. ``plan`` takes the U_j and a seed to the task of
each minibatch, and ``tasks_per_update`` of these make an update. The whole plan is known before the first step, so that
resuming is starting at a step of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from tubelet.seeds import mix

Decay = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class _OneByOne:
    """Schedules whose updates train one task each, with that task's own hyper-parameters; U is the sum of the U_j."""

    def tasks_per_update(self, tasks: int) -> int:
        """The minibatches of an update, where there are so many tasks in all."""
        return 1


@dataclass(frozen=True)
class TaskByTask(_OneByOne):
    """All U_j updates of one task, then all of the next, in a random order of the tasks (Sec. 4.2, "Task-by-task").

    ``order``: every task's name once, for a given order instead.
    """

    order: tuple[str, ...] = ()

    def plan(self, lengths: Mapping[str, int], seed: int) -> list[str]:
        """The task of each minibatch. Raises ValueError where ``order`` names other tasks."""
        if self.order and sorted(self.order) != sorted(lengths):
            raise ValueError(f"schedule.order={','.join(self.order)} must name each task once: {', '.join(lengths)}")
        return [name for name in self.order or _permuted(lengths, seed) for _ in range(lengths[name])]


@dataclass(frozen=True)
class Alternating(_OneByOne):
    """One update of each task in turn, in the order in which the tasks are given (Sec. 4.2, "Alternating").

    U / T updates per task, whatever their own lengths. Where T does not divide U, the last turn stops short: the first
    U mod T tasks have one update more than the others.
    """

    def plan(self, lengths: Mapping[str, int], seed: int) -> list[str]:
        """The task of each minibatch; ``seed`` changes nothing."""
        return list(islice(cycle(lengths), sum(lengths.values())))


@dataclass(frozen=True)
class Uniform(_OneByOne):
    """Exactly U / T updates per task, in a random order (Sec. 4.2, "Uniform task sampling").

    A random permutation of the alternating schedule, so that a remainder goes to the same tasks.
    """

    def plan(self, lengths: Mapping[str, int], seed: int) -> list[str]:
        """The task of each minibatch."""
        return _permuted(Alternating().plan(lengths, seed), seed)


@dataclass(frozen=True)
class Weighted(_OneByOne):
    """Exactly U_j updates per task, in a random order (Sec. 4.2, "Weighted task sampling"). With one task: its length.

    One random permutation of all minibatches, as the paper and the released code have it, not independent draws.
    """

    def plan(self, lengths: Mapping[str, int], seed: int) -> list[str]:
        """The task of each minibatch."""
        return _permuted((name for name, length in lengths.items() for _ in range(length)), seed)


@dataclass(frozen=True)
class Accumulated:
    """Every update trains on a minibatch of each task, and sums their gradients (Sec. 4.2, "Accumulating gradients").

    U = (sum of the U_j) / T updates, rounded down, at the smallest of the tasks' learning rates (Appendix B), with a
    T-th of their warm-ups.
    """

    def tasks_per_update(self, tasks: int) -> int:
        """The minibatches of an update, where there are so many tasks in all."""
        return tasks

    def plan(self, lengths: Mapping[str, int], seed: int) -> list[str]:
        """The task of each minibatch; ``seed`` changes nothing."""
        return list(lengths) * (sum(lengths.values()) // len(lengths))


Schedule = TaskByTask | Alternating | Uniform | Weighted | Accumulated

_PLAN = 1  # keeps the plan's random numbers apart from those of the data and the model


def _permuted(names: Iterable[str], seed: int) -> list[str]:
    names, draw = list(names), random.Random(mix(seed, _PLAN))
    order = [draw.random() for _ in names]
    return [name for _, name in sorted(zip(order, names, strict=True))]


def learning_rate(
    step: int, base: float, warmup: float, total: int, decay: Decay = "cosine", end: float = 0.0
) -> float:
    """The learning rate of update ``step``, counted from 0.

    Linear warm-up from 0 over ``warmup`` updates, then a decay from ``base`` to ``end`` that is complete after
    ``total`` updates. At ``step = total`` the released code's cosine jumps back to ``base``; this one stays at ``end``.
    """
    rising = min(1.0, step / warmup) if warmup > 0 else 1.0
    progress = min(1.0, max(0.0, step - warmup) / max(1, total - int(warmup)))
    match decay:
        case "cosine":
            left = 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            left = 1 - progress
        case "constant":
            left = 1.0
    return rising * (end + (base - end) * left)
