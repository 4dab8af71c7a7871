"""Ranks, devices, and what is applied to a model from outside: DDP, FSDP2, compilation, recomputation."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import count

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tubelet.training.experiment import Training
from tubelet.training.module import TrainingModule


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


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of every transformer inside ``model``: the items of each ModuleList that is called ``blocks``."""
    stacks = (getattr(module, "blocks", None) for module in model.modules())
    return [block for stack in stacks if isinstance(stack, nn.ModuleList) for block in stack]


def parallelize(learner: TrainingModule, training: Training, ranks: Ranks) -> nn.Module:
    """``learner`` on its device, recomputing, compiled and spread over the ranks as ``training`` says.

    The learner's own modules keep their names and classes; what is returned is called in its place.
    """
    learner.to(ranks.device)
    # Several tasks bring several batch sizes and numbers of tokens. One graph for all of them costs little, where the
    # attention and the matrix products are kernels of their own anyway; a graph for each would soon be too many for
    # torch, which runs what is beyond its limit uncompiled.
    dynamic = True if len(learner.tasks) > 1 else None
    for block in transformer_blocks(learner.model):
        if training.compile:
            block.forward = torch.compile(block.forward, dynamic=dynamic)
        if training.activation_checkpointing:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if ranks.control is None:
        return learner
    if training.parallel == "fsdp":
        mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
        for block in transformer_blocks(learner.model):
            fully_shard(block, mesh=mesh)
        fully_shard(learner.model, mesh=mesh)
        return learner
    # Another task's head has no gradient in this task's minibatch. Buffers are constants, the same on all ranks.
    return DistributedDataParallel(learner, find_unused_parameters=len(learner.tasks) > 1, broadcast_buffers=False)


def gradient_sync(module: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Whether this backward pass averages the gradients over the ranks; until one does, they add up on each."""
    if isinstance(module, DistributedDataParallel):
        return nullcontext() if now else module.no_sync()
    if isinstance(model := getattr(module, "model", None), FSDPModule):
        model.set_requires_gradient_sync(now)
    return nullcontext()
