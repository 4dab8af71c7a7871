"""What every reader of weights returns: a whole model, and what is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tubelet.cards import TaskCard
from tubelet.models import Model, ModelConfig
from tubelet.weights.files import WeightsError


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights.

    ``dropped``: parameters of the file that a model of this library has no use for, such as a pretraining head.
    """

    model: Model
    config: ModelConfig
    tasks: Mapping[str, TaskCard] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def build_model(config: ModelConfig, tasks: Mapping[str, TaskCard]) -> Model:
    """The model of ``config`` with a fresh head for every task."""
    encoder = config.build()
    return Model(encoder, {name: card.head(encoder) for name, card in tasks.items()})


def load_state(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load ``state``, which must have every parameter of ``module`` in its shape, and nothing else.

    Raises WeightsError, naming the keys and shapes.
    """
    wanted = module.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} has no place in the model" for name in state if name not in wanted]
    problems += [
        f"{name} has shape {tuple(tensor.shape)}, the model wants {tuple(wanted[name].shape)}"
        for name, tensor in state.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    if problems:
        raise WeightsError(f"{origin}: {listed(problems)}")
    module.load_state_dict(state)


def listed(problems: list[str], most: int = 8) -> str:
    """The problems as lines; one for a single one, and at most ``most`` of many."""
    if len(problems) == 1:
        return problems[0]
    shown = [f"\n  {problem}" for problem in problems[:most]]
    more = [f"\n  and {len(problems) - most} more"] if len(problems) > most else []
    return "".join([*shown, *more])
