"""The processes that train together, and how they find each other."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous


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

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set on any rank."""
        return bool(self.mean(torch.tensor(float(flag))) > 0)

    def barrier(self) -> None:
        """Until all ranks have come this far."""
        if self.control is not None:
            dist.barrier(group=self.control)


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
        yield Ranks(device, dist.get_rank(), dist.get_world_size(), control)
    finally:
        if not outer:
            dist.destroy_process_group()


_joins = count()  # tells the messages of one joining from those of the next


@cache
def _store() -> tuple[Store, int, int]:
    """Where the ranks find each other; this process's rank, and their number."""
    return next(iter(rendezvous("env://")))
