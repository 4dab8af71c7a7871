"""Which examples a minibatch holds: a pure function of numbers, so that a run resumes at any step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from tubelet.seeds import mix


@dataclass(frozen=True)
class Slots:
    """One rank's part of a minibatch: positions ``first`` to ``end`` in its task's stream.

    ``batch_size`` is that of the whole minibatch, on all ranks.
    """

    task: str
    first: int
    end: int
    batch_size: int


def slots(
    plan: Sequence[str], batch_sizes: Mapping[str, int], start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Slots]:
    """What ``rank`` of ``world`` has of each minibatch of ``plan`` (the tasks in turn), from minibatch ``start`` on.

    A task's minibatches follow each other in its stream, whichever tasks come between.
    """
    if not 0 <= rank < world <= min(batch_sizes.values()):
        raise ValueError(f"{rank=} must be below {world=}, and that at most the smallest of {batch_sizes=}")
    position = dict.fromkeys(batch_sizes, 0)
    for step, task in enumerate(plan):
        size = batch_sizes[task]
        if step >= start:
            first, end = (position[task] + size * part // world for part in (rank, rank + 1))
            yield Slots(task, first, end, size)
        position[task] += size


class Stream:
    """A task's examples without end: each exactly once per pass, in an order that changes with every pass.

    ``sizes``: of its sources, whose examples follow each other. Every run of as many positions as there are sources has
    one example of each, so that all have equal shares of every minibatch whatever their sizes, and passes of their own.
    """

    def __init__(self, sizes: Sequence[int], seed: int, task: str) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"task {task!r} has {sum(sizes)} examples and needs at least one of each source")
        self._orders = [_Order(size, seed, task if i == 0 else f"{task} {i}") for i, size in enumerate(sizes)]
        self._offsets = [sum(sizes[:i]) for i in range(len(sizes))]

    def at(self, position: int) -> tuple[int, int]:
        """(example, pass) at a position."""
        turn, source = divmod(position, len(self._orders))
        example, pass_ = self._orders[source].at(turn)
        return self._offsets[source] + example, pass_


class _Order:
    """One source's examples without end."""

    def __init__(self, examples: int, seed: int, task: str) -> None:
        self.examples = examples
        self._seed = seed, crc32(task.encode())
        self._orders: dict[int, NDArray[np.int64]] = {}  # arrays: their single items are read faster than tensors'

    def at(self, position: int) -> tuple[int, int]:
        pass_, place = divmod(position, self.examples)
        if pass_ not in self._orders:
            generator = torch.Generator().manual_seed(mix(*self._seed, pass_))
            recent = {p: order for p, order in self._orders.items() if abs(p - pass_) <= 2}
            self._orders = recent | {pass_: torch.randperm(self.examples, generator=generator).numpy()}
        return int(self._orders[pass_][place]), pass_
