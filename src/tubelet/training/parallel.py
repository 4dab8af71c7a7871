"""What is applied to a model from outside: DDP, FSDP2, compilation, recomputation."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tubelet.training.experiment import Training
from tubelet.training.module import TrainingModule
from tubelet.training.ranks import Ranks


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
