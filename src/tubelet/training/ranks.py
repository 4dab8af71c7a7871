"""The processes that train together, and how they find each other."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from types import FrameType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from tubelet.training.processes import Process, this_process

T = TypeVar("T")
_NOTICED = 3.0  # seconds until a process whose connections broke can be seen to have ended


class RankDiedError(RuntimeError):
    """Another process of those that work together ended, or lost its connection."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train together. ``control`` is their group for messages that live on the CPU."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    control: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The average of ``values`` over all ranks, on the CPU; waits for the device."""
        values = values.detach().cpu()
        if self.control is not None:
            dist.all_reduce(values, group=self.control)
        return values / self.world_size

    def gather(self, values: Tensor) -> Tensor:
        """The rows of all ranks, one after the other: (world_size * N, ...) of (N, ...), the same N on each.

        The gradient of a row is the sum of what all ranks say of it, on the rank it came from.
        """
        if self.control is None:
            return values
        return cast(Tensor, _Gather.apply(values))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set on any rank."""
        return bool(self.mean(torch.tensor(float(flag))) > 0)

    def collect(self, value: T) -> list[T]:
        """What each rank says, in their order: numbers, text, dataclasses."""
        if self.control is None:
            return [value]
        said: list[Any] = [None] * self.world_size
        dist.all_gather_object(said, value, group=self.control)
        return said

    def barrier(self) -> None:
        """Until all ranks have come this far."""
        if self.control is not None:
            dist.barrier(group=self.control)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole.chunk(dist.get_world_size())[dist.get_rank()]


@contextmanager
def init_distributed() -> Generator[Ranks]:
    """The ranks that torchrun started (NCCL on GPUs, Gloo on CPUs), or this process alone; as often as one likes."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if "LOCAL_RANK" not in os.environ:
        yield Ranks(torch.device(accelerator or "cpu"))
        return
    device = torch.device("cpu")
    if accelerator is not None:
        device = torch.device(accelerator.type, int(os.environ["LOCAL_RANK"]))
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    outer = dist.is_initialized()
    if not outer:
        store, rank, size = _store()
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=PrefixStore(f"join {next(_joins)}", store), rank=rank, world_size=size)
    try:
        control = dist.new_group(backend="gloo")
        assert isinstance(control, dist.ProcessGroup), control
        ranks = Ranks(device, dist.get_rank(), dist.get_world_size(), control)
        with _told_if_one_dies(ranks):
            yield ranks
    finally:
        if not outer:
            dist.destroy_process_group()


@contextmanager
def _told_if_one_dies(ranks: Ranks) -> Generator[None]:
    """What the others see of a rank that died, a broken connection or torchrun's SIGTERM, becomes a RankDiedError."""
    processes = ranks.collect(this_process())

    def check(seconds: float) -> None:
        if dead := _dead(processes, seconds):
            raise RankDiedError(
                f"rank {ranks.rank} stops, as {dead} died: run the same command again to go on from the run's last "
                "checkpoint"
            )

    def stop(received: int, _: FrameType | None) -> None:
        signal.signal(received, signal.SIG_IGN)
        check(0.0)
        signal.signal(received, signal.SIG_DFL)
        signal.raise_signal(received)

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except RuntimeError as error:
        if in_main:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so that it can be said
        if not type(error).__module__.startswith("tubelet."):  # ours are of no connection
            check(_NOTICED)
        raise
    finally:
        if in_main and not isinstance(sys.exception(), RankDiedError):
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _dead(processes: Sequence[Process], seconds: float) -> str:
    """Which ranks' processes have ended, as far as this one can see; waits for what is ending."""
    until = time.monotonic() + seconds
    while True:
        dead = [f"rank {rank} ({process})" for rank, process in enumerate(processes) if process.ended()]
        if dead or time.monotonic() >= until:
            return " and ".join(dead)
        time.sleep(0.05)


_joins = count()  # tells the messages of one joining from those of the next


@cache
def _store() -> tuple[Store, int, int]:
    """Where the ranks find each other; this process's rank, and their number."""
    return next(iter(rendezvous("env://")))
