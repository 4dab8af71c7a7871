"""What every reader of weights returns: a whole model, and what is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tubelet.models import Model, ModelConfig
from tubelet.nn.heads import LinearHead, MultiHead, build_head
from tubelet.weights.files import WeightsError

Classes = tuple[str, ...] | dict[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class TaskCard:
    """What a head answers. ``classes``: their names in the order of the logits; by label set where there are several.

    ``multilabel``: an example may have several of the classes (the scores are sigmoids), or exactly one (softmax).
    ``inputs``: those of the model's inputs that it takes; empty: all of them. ``hidden``: the widths of the head's
    hidden layers. ``metrics``: what the task reached, as fractions in [0, 1], under the test ``views`` (such as "4x3").
    """

    classes: Classes
    multilabel: bool = False
    inputs: tuple[str, ...] = ()
    hidden: tuple[int, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    views: str = ""

    def head(self, width: int) -> LinearHead | MultiHead:
        """A fresh head for features of ``width``."""
        sets = self.classes if isinstance(self.classes, dict) else {"label": self.classes}
        heads = {name: build_head(width, len(names), hidden=self.hidden) for name, names in sets.items()}
        return MultiHead(heads) if len(heads) > 1 else next(iter(heads.values()))


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
    return Model(encoder, {name: card.head(encoder.width) for name, card in tasks.items()})


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
