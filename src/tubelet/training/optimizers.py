"""Optimizers, gradient clipping, and which parameters train."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tubelet.configs import ConfigError, nearest
from tubelet.models import Model, ModelConfig
from tubelet.training.experiment import SGD, Adam, AdamW, Optimizer


@dataclass(frozen=True, order=True)
class Group:
    """What parameters of one group share: ``scale`` multiplies the learning rate, ``decays`` lets them decay."""

    scale: float = 1.0
    decays: bool = True


def build_optimizer(
    config: Optimizer, parameters: Iterable[nn.Parameter], groups: Mapping[nn.Parameter, Group] | None = None
) -> torch.optim.Optimizer:
    """torch's own optimizer, with kernels that FSDP's shards can use; its learning rate is set before every update.

    ``groups``: what :func:`parameter_groups` says of the parameters; one group of all without it.
    """
    decay = config.weight_decay if isinstance(config, SGD | AdamW) else 0.0
    trained = _grouped([p for p in parameters if p.requires_grad], groups or {}, decay)
    match config:
        case SGD():
            return torch.optim.SGD(trained, lr=0.0, momentum=config.momentum, weight_decay=decay, foreach=True)
        case Adam():
            adam = KerasAdam if config.keras else torch.optim.Adam
            return adam(trained, lr=0.0, betas=config.betas, eps=config.eps, fused=True)
        case AdamW():
            return torch.optim.AdamW(
                trained, lr=0.0, betas=config.betas, eps=config.eps, weight_decay=decay, fused=True
            )


class KerasAdam(torch.optim.Adam):
    """p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps): Adam as Keras has it, whose eps meets v uncorrected."""

    _done: int | None = None  # updates; counted here, as reading torch's own count waits for the device

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if self._done is None:
            self._done = max((int(state["step"]) for state in self.state.values()), default=0)
        self._done += 1
        plain = [group["eps"] for group in self.param_groups]
        for group in self.param_groups:
            group["eps"] /= math.sqrt(1 - group["betas"][1] ** self._done)
        try:
            return super().step(closure)
        finally:
            for group, eps in zip(self.param_groups, plain, strict=True):
                group["eps"] = eps


def _grouped(
    parameters: Sequence[nn.Parameter], groups: Mapping[nn.Parameter, Group], decay: float
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """The parameters themselves, or those of each group, as torch takes them."""
    if not groups:
        return list(parameters)
    members: dict[Group, list[nn.Parameter]] = {}
    for parameter in parameters:
        members.setdefault(groups[parameter], []).append(parameter)
    return [
        {"params": params, "scale": group.scale, "weight_decay": decay if group.decays else 0.0}
        for group, params in sorted(members.items())
    ]


def parameter_groups(config: Optimizer, model: Model, encoder: ModelConfig) -> dict[nn.Parameter, Group]:
    """The group of every parameter; empty where all are in one, as the papers' recipes have it.

    ``layer_decay``: on each path through the encoder of L blocks (:class:`~tubelet.models.Tower`) the final norm keeps
    the rate, block i = 0 to L - 1 has decay^(L - i) of it, and tokenizer, class token and positions decay^(L + 1). What
    is on none of the paths, such as heads, the fusion of streams and Model 2's temporal encoder, keeps the rate.
    ``rates``: the factor of the last pattern that matches. ``decay`` "weights": the matrices of linear layers and
    convolutions decay, and neither biases, norms, tokens nor positions. Raises ConfigError for a model whose layers are
    not known, and for a pattern that matches no parameter.
    """
    layered = _layer_scales(config.layer_decay, model, encoder) if isinstance(config, AdamW) else {}
    names = dict(model.named_parameters())
    _check_patterns("optimizer.rates", config.rates, names)
    weights_alone = isinstance(config, SGD | AdamW) and config.decay == "weights"
    if not (layered or config.rates or weights_alone):
        return {}
    linear = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, linear)}
    groups: dict[nn.Parameter, Group] = {}
    for name, parameter in names.items():
        factors = [factor for pattern, factor in config.rates.items() if fnmatchcase(name, pattern)]
        scale = layered.get(parameter, 1.0) * (factors[-1] if factors else 1.0)
        groups[parameter] = Group(scale, not weights_alone or id(parameter) in matrices)
    return groups


def _layer_scales(decay: float, model: Model, encoder: ModelConfig) -> dict[nn.Parameter, float]:
    if decay == 1:
        return {}
    if not (paths := encoder.towers()):
        raise ConfigError(f"optimizer.layer_decay: the layers of {encoder.kind} are not known; set it to 1")
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

    What the model itself keeps frozen, such as VATT's word vectors, stays so. Raises ConfigError for a pattern that
    matches nothing, naming parameters near to it.
    """
    _check_patterns("trainable", patterns, [name for name, _ in model.named_parameters()])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and any(fnmatchcase(name, pattern) for pattern in patterns))


def _check_patterns(field: str, patterns: Iterable[str], names: Iterable[str]) -> None:
    """Raise ConfigError for a pattern that matches none of the parameters' names, naming modules near to it."""
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            modules = {".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 2)}
            hint = nearest(pattern.rstrip(".*"), sorted(modules))
            raise ConfigError(f"{field}: {pattern!r} matches no parameter{hint if '?' in hint else ''}")
