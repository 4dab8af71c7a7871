"""Optimizers, gradient clipping, and which parameters train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tubelet.configs import ConfigError, nearest
from tubelet.models import Model, ModelConfig
from tubelet.training.experiment import SGD, Adam, AdamW, Optimizer


def build_optimizer(
    config: Optimizer, parameters: Iterable[nn.Parameter], scales: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """torch's own optimizer, with kernels that FSDP's shards can use; its learning rate is set before every update.

    ``scales``: what the rate is multiplied by, for parameters that differ in it; groups of the optimizer carry it.
    """
    trained = _groups([p for p in parameters if p.requires_grad], scales or {})
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


def _groups(
    parameters: Sequence[nn.Parameter], scales: Mapping[nn.Parameter, float]
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """The parameters themselves, or those of each scale."""
    if not scales:
        return list(parameters)
    by_scale: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        by_scale.setdefault(scales.get(parameter, 1.0), []).append(parameter)
    return [{"params": group, "scale": scale} for scale, group in sorted(by_scale.items())]


def rate_scales(config: Optimizer, model: Model, encoder: ModelConfig) -> dict[nn.Parameter, float]:
    """What ``config.layer_decay`` makes of the learning rate, by parameter; empty where it makes nothing of it.

    On each path through the encoder of L blocks (:class:`~tubelet.models.Tower`) the final norm keeps the rate,
    block i = 0 to L - 1 has decay^(L - i) of it, and tokenizer, class token and positions decay^(L + 1). What is on
    none of the paths, such as heads, the fusion of streams and Model 2's temporal encoder, keeps the rate.
    Raises ConfigError for a model whose layers are not known.
    """
    decay = config.layer_decay if isinstance(config, AdamW) else 1.0
    if decay == 1:
        return {}
    if not (paths := encoder.towers()):
        raise ConfigError(f"optimizer.layer_decay: the layers of {type(encoder).__name__} are not known; set it to 1")
    parameters, scales = dict(model.encoder.named_parameters()), dict[nn.Parameter, float]()
    for path in paths:
        for part, name in path.places(parameters).items():
            kind, *rest = part.split(".")
            layer = int(rest[0]) + 1 if kind == "blocks" else path.backbone.depth + 1 if kind == "norm" else 0
            scales[parameters[name]] = decay ** (path.backbone.depth + 1 - layer)
    return scales


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
