"""What weights are: their format, model, input and classes, and which of our models they can start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tubelet.cards import TaskCard
from tubelet.configs import to_json
from tubelet.models import Model, ModelConfig, list_models, model_config
from tubelet.models.family import size_letters
from tubelet.weights.files import WeightsError
from tubelet.weights.loaded import LoadedModel
from tubelet.weights.transfer import Init, InitReport, initialize_from


@dataclass(frozen=True)
class Inspection:
    """What is known of a source of weights.

    ``model``: its kind, with the name that means the same if one does; ``inputs``: how each is cut and scaled, in
    words; ``tasks``: what each head answers, in words; ``classes``: the names, by task; ``parameters``: their number,
    the heads' too.
    """

    source: str
    format: str
    model: str
    inputs: Mapping[str, str]
    tasks: Mapping[str, str]
    classes: Mapping[str, tuple[str, ...]]
    parameters: int
    config: ModelConfig
    provenance: Mapping[str, Any]
    dropped: tuple[str, ...]
    starts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The same for a script; the configuration as tubelet.json has it."""
        return {
            "source": self.source,
            "format": self.format,
            "model": self.model,
            "parameters": self.parameters,
            "inputs": dict(self.inputs),
            "tasks": dict(self.tasks),
            "classes": {name: list(classes) for name, classes in self.classes.items()},
            "config": to_json(self.config, ModelConfig),
            "provenance": dict(self.provenance),
            "dropped": list(self.dropped),
            "starts": list(self.starts),
        }


def inspect_weights(source: str, loaded: LoadedModel) -> Inspection:
    """What is known of ``loaded``, which came from ``source``."""
    config = loaded.config
    return Inspection(
        source=source,
        format=loaded.format,
        model=f"{config.variant}, {config.name}" if config.name else config.variant,
        inputs={name: spec.description for name, spec in config.inputs.items()},
        tasks={
            name: " ".join(line.removeprefix("- ") for line in card.describe()) for name, card in loaded.tasks.items()
        },
        classes={name: tuple(getattr(card, "classes", ())) for name, card in loaded.tasks.items()},
        parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        config=config,
        provenance=loaded.provenance,
        dropped=loaded.dropped,
        starts=tuple(name for name in _candidates(config) if _starts(source, loaded, name)),
    )


def fit(source: str, loaded: LoadedModel, name: str) -> InitReport:
    """What would become of every parameter of the model ``name``, if it started from ``loaded``.

    Nothing is loaded, and the model has no memory. Raises ValueError for an unknown name, and WeightsError, naming keys
    and shapes, where the weights do not fit.
    """
    config = model_config(name)
    with torch.device("meta"):
        model = Model(config.build(), {})
    return initialize_from(loaded, model, config, Init(source=source))


def _in_words(card: TaskCard) -> str:
    return ", ".join(line.removeprefix("- ") for line in card.describe())


def _candidates(config: ModelConfig) -> list[str]:
    """The names that may fit: those in the size of the source."""
    sizes = {letters for tower in config.towers() if (letters := size_letters(tower.backbone)) is not None}
    return [name for name in list_models() if any(f"-{letters}/" in f"{name}/" for letters in sizes)]


def _starts(source: str, loaded: LoadedModel, name: str) -> bool:
    try:
        fit(source, loaded, name)
    except (WeightsError, ValueError):
        return False
    return True
