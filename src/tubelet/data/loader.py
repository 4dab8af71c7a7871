"""Minibatches and views from worker processes, the same whatever their number."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from tubelet.data.batch import Batch
from tubelet.data.dataset import Example, VideoViews, ViewSet
from tubelet.data.stream import Slots, Stream, slots
from tubelet.media.errors import MediaError

_ATTEMPTS = 32  # examples tried for one place in a minibatch

K = TypeVar("K")
V = TypeVar("V")


@runtime_checkable
class Examples(Protocol):
    """What the loader needs of a task's data: a :class:`tubelet.data.dataset.TrainSet`, or what does as it does."""

    @property
    def sizes(self) -> Sequence[int]:
        """The examples of each of its sources."""
        ...

    def example(self, index: int, pass_: int) -> Example | MediaError: ...


class LoaderError(RuntimeError):
    """The data cannot be loaded: a worker died or hangs, or none of a task's examples can be read."""


def train_batches(
    sets: Mapping[str, Examples],
    plan: Sequence[str],
    batch_sizes: Mapping[str, int],
    *,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin: bool = False,
    timeout: float = 600.0,
) -> Iterator[Batch]:
    """The minibatches of ``plan`` (the task of each) from minibatch ``start`` on; on each rank its slice of them.

    ``batch_sizes`` are those of all ranks together. Every example of a task comes once per pass. One that cannot be
    read is replaced by the example that has its place in the task's next minibatch, and listed in ``Batch.replaced``.
    ``workers`` processes, of one thread each, prepare the minibatches; their number changes nothing but the speed.
    ``timeout``: seconds without a minibatch after which a worker counts as hung.
    Raises :class:`LoaderError`.
    """
    if unknown := set(plan) - set(sets):
        raise ValueError(f"the plan names tasks that have no data: {', '.join(sorted(unknown))}")
    data = _Minibatches(sets, {name: Stream(examples.sizes, seed, name) for name, examples in sets.items()})
    keys = slots(plan, batch_sizes, start, rank, world)
    return _load(data, list(keys), workers, pin, timeout)


def view_batches(
    videos: ViewSet, *, rank: int = 0, world: int = 1, workers: int = 0, pin: bool = False, timeout: float = 600.0
) -> Iterator[VideoViews | MediaError]:
    """The views of every example, in order; on each rank of every ``world``-th one. No example comes twice.

    One that cannot be read comes as its error, never as something else. Raises :class:`LoaderError`.
    """
    return _load(_Videos(videos), range(rank, len(videos), world), workers, pin, timeout)


class _Minibatches(Dataset[Batch | LoaderError]):
    def __init__(self, sets: Mapping[str, Examples], streams: Mapping[str, Stream]) -> None:
        self.sets, self.streams = sets, streams

    def __getitem__(self, key: Slots) -> Batch | LoaderError:
        replaced: list[MediaError] = []
        examples: list[Example] = []
        for position in range(key.first, key.end):
            example = self._readable(key, position, replaced)
            if example is None:
                return LoaderError(
                    f"task {key.task!r}: {_ATTEMPTS} examples in a row cannot be read; the last: {replaced[-1]}"
                )
            examples.append(example)
        targets = [example.target for example in examples if example.target is not None]
        return Batch(
            task=key.task,
            inputs=default_collate([example.inputs for example in examples]),
            targets=default_collate(targets) if targets else None,
            keys=[example.key for example in examples],
            replaced=replaced,
        )

    def _readable(self, key: Slots, position: int, replaced: list[MediaError]) -> Example | None:
        for attempt in range(_ATTEMPTS):
            found = self.sets[key.task].example(*self.streams[key.task].at(position + attempt * key.batch_size))
            if isinstance(found, Example):
                return found
            replaced.append(found)
        return None


class _Videos(Dataset[VideoViews | MediaError]):
    def __init__(self, videos: ViewSet) -> None:
        self.videos = videos

    def __getitem__(self, index: int) -> VideoViews | MediaError:
        return self.videos.example(index)


def _load(data: Dataset[V | LoaderError], keys: Sequence[K], workers: int, pin: bool, timeout: float) -> Iterator[V]:
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=keys,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin,
        timeout=timeout if workers else 0,
        generator=torch.Generator(),  # or it would draw from the model's
        worker_init_fn=_prepare_worker,
        multiprocessing_context=("fork" if sys.platform == "linux" else "spawn") if workers else None,
    )
    items = _started(loader) if workers else iter(loader)
    for key in keys:
        try:
            item = next(items)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader"):
                raise
            raise LoaderError(
                f"{error} It was to give {key}. A killed worker mostly means too little memory, or too little in "
                "/dev/shm: try fewer workers, a smaller cache or batch; a hung one, a file on storage that is gone. "
                "With 0 workers the same is read in this process, and shows its error"
            ) from error
        if isinstance(item, LoaderError):
            raise item
        yield item


def _started(loader: DataLoader[V]) -> Iterator[V]:
    """The loader with its workers running. What this process has left to collect is collected here, and never there.

    A worker that frees a decoder of its parent's waits for ever for the decoder's threads, which no fork carries over.
    """
    gc.collect()
    gc.freeze()
    try:
        return iter(loader)
    finally:
        gc.unfreeze()


def _unchanged(item: V) -> V:
    return item


def _prepare_worker(worker: int) -> None:
    """One thread, and a process group of its own: Ctrl-C, and torchrun's SIGTERM to a rank's group, are for the parent.

    The parent's own signal handlers, which a fork inherits, are put back: the parent can end a worker.
    """
    torch.set_num_threads(1)
    if sys.platform != "win32":
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
