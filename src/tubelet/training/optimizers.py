"""Optimizers, gradient clipping, and which parameters train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tubelet.configs import ConfigError, nearest
from tubelet.training.experiment import SGD, Adam, AdamW, Optimizer


def build_optimizer(config: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """torch's own optimizer, with kernels that FSDP's shards can use; its learning rate is set before every update."""
    trained = [p for p in parameters if p.requires_grad]
    match config:
        case SGD():
            return torch.optim.SGD(
                trained, lr=0.0, momentum=config.momentum, weight_decay=config.weight_decay, foreach=True
            )
        case Adam():
            return torch.optim.Adam(trained, lr=0.0, betas=config.betas, eps=config.eps, fused=True)
        case AdamW():
            decay = config.weight_decay
            return torch.optim.AdamW(
                trained, lr=0.0, betas=config.betas, eps=config.eps, weight_decay=decay, fused=True
            )


def clip_by_global_norm_(gradients: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale ``gradients`` in place by max_norm / norm where their global norm exceeds ``max_norm``; 0 leaves them.

    Returns the norm before scaling. No epsilon joins the norm, as in the released code. Shards of FSDP count as the
    one gradient that they are.
    """
    norm = torch.nn.utils.get_total_norm(list(gradients))
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    if max_norm > 0:
        scale = torch.where(norm > max_norm, max_norm / norm, torch.ones_like(norm))
        torch._foreach_mul_([_local(gradient) for gradient in gradients], scale)  # pyright: ignore
    return norm


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def fill_missing_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Zeros where a parameter took no part in the update, such as another task's head: its momentum still counts."""
    for parameter in parameters:
        if parameter.grad is None and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


def choose_trainable(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze every parameter whose name no pattern (``encoder.blocks.1?.*``) matches.

    Raises ConfigError for a pattern that matches nothing, naming parameters near to it.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            modules = {".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 2)}
            hint = nearest(pattern.rstrip(".*"), sorted(modules))
            raise ConfigError(f"trainable: {pattern!r} matches no parameter{hint if '?' in hint else ''}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))
