"""What every reader of weights returns: a whole model, and what is known about it."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from tubelet.cards import TaskCard
from tubelet.models import Model, ModelConfig
from tubelet.weights.files import WeightsError, reason

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_FREEZE = Tensor.requires_grad_
_BUILT = 4


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights.

    ``dropped``: parameters of the file that a model of this library has no use for, such as a pretraining head.
    ``format``: what was read, as the formats of other libraries say it.
    """

    model: Model
    config: ModelConfig
    tasks: Mapping[str, TaskCard] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    format: str = "a model folder of Tubelet"


def build_model(config: ModelConfig, tasks: Mapping[str, TaskCard]) -> Model:
    """The model of ``config`` with a fresh head for every task."""
    encoder, heads = config.build(), dict[str, nn.Module]()
    for name, card in tasks.items():
        try:
            heads[name] = card.head(encoder)
        except ValueError as error:
            raise ValueError(f"tasks.{name}: {error}") from error
    return Model(encoder, heads)


def filled_model(config: ModelConfig, tasks: Mapping[str, TaskCard], state: Mapping[str, Tensor], origin: str) -> Model:
    """The model of ``config`` and ``tasks`` with the weights ``state``, which must have every parameter in its shape,
    and nothing else.

    Nothing is allocated before it is known to fit, and no more is built than ``state`` has parameters for: a config may
    come from a stranger, and ask for anything. Raises WeightsError, naming the keys and shapes.
    """
    try:
        with _without_memory(state, origin):
            model = build_model(config, tasks)
    except WeightsError:
        raise
    except Exception as error:  # whatever the model's own code says of a config that it cannot build
        raise WeightsError(f"{origin}: the model that is described cannot be built: {reason(error)}") from error
    load_state(model, state, origin)
    return model


def load_state(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Give ``module`` the parameters ``state``, which must have every one of its own in its shape, and nothing else.

    Integers, NaN and infinite numbers are no weights. Parameters without memory get it here. Raises WeightsError,
    naming the keys and shapes.
    """
    wanted = module.state_dict()
    if problems := _misfits(wanted, state):
        raise WeightsError(f"{origin}: {listed(problems)}")
    values = {name: _like(x).copy_(state[name].detach()) for name, x in wanted.items()}
    if problems := [f"{name} holds NaN or infinite numbers" for name, x in values.items() if not _finite(x)]:
        raise WeightsError(f"{origin}: {listed(problems)}")
    module.load_state_dict(values, assign=True)


def _like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device="cpu" if x.is_meta else x.device)


@contextmanager
def _without_memory(state: Mapping[str, Tensor], origin: str) -> Generator[None]:
    """In here, the parameters of modules have shapes and no memory.

    Raises WeightsError once there are more than ``state`` could be for. A module may be built and then replaced by
    another, so that one parameter of the result counts for up to ``_BUILT``.
    """
    thread, parameters, numbers = threading.get_ident(), 0, 0
    known = sum(x.numel() for x in state.values())

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        nonlocal parameters, numbers
        if threading.get_ident() != thread:
            return None
        parameters, numbers = parameters + 1, numbers + parameter.numel()
        if parameters > _BUILT * len(state) or numbers > _BUILT * known:
            raise WeightsError(
                f"{origin}: holds {len(state):,} parameters of {known:,} numbers, and the model that is described has "
                "many more; take its description and its weights from one place"
            )
        return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(without_memory)  # pyright: ignore[reportArgumentType]
    try:
        with _NothingWritten():
            yield
    finally:
        hook.remove()


class _NothingWritten(TorchFunctionMode):
    """In here, what would write into a tensor without memory, as initializers do, is left out: torch would first
    import its compiler to find out what shape comes of it, which takes seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        target = args[0] if args else (kwargs or {}).get("tensor")
        writes = func.__name__.endswith("_") and not func.__name__.startswith("_") and func is not _FREEZE
        if writes and isinstance(target, Tensor) and target.is_meta:
            return target
        return func(*args, **(kwargs or {}))


def _misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} has no place in the model" for name in state if name not in wanted]
    both = [(name, x, wanted[name]) for name, x in state.items() if name in wanted]
    problems += [
        f"{name} has shape {tuple(x.shape)}, the model wants {tuple(y.shape)}"
        for name, x, y in both
        if x.shape != y.shape
    ]
    return problems + [
        f"{name} holds {x.dtype}, the model wants {y.dtype}" for name, x, y in both if not _converts(x.dtype, y.dtype)
    ]


def _converts(given: torch.dtype, wanted: torch.dtype) -> bool:
    return given == wanted or (given in _FLOATS and wanted in _FLOATS)


def _finite(x: Tensor) -> bool:
    return not x.is_floating_point() or not x.numel() or bool(torch.stack(x.aminmax()).isfinite().all())


def listed(problems: list[str], most: int = 8) -> str:
    """The problems as lines; one for a single one, and at most ``most`` of many."""
    if len(problems) == 1:
        return problems[0]
    shown = [f"\n  {problem}" for problem in problems[:most]]
    more = [f"\n  and {len(problems) - most} more"] if len(problems) > most else []
    return "".join([*shown, *more])
