"""What weights are: their format, model, input and classes, and which of our models they can start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tubelet.cards import TaskCard
from tubelet.configs import to_json
from tubelet.models import SIZES, Model, ModelConfig, Tower, list_models, model_config
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, InputSpec, VideoSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.loaded import LoadedModel
from tubelet.weights.transfer import Init, InitReport, check_start, initialize_from


@dataclass(frozen=True)
class Inspection:
    """What is known of a source of weights.

    ``model``: its kind, with the name that means the same if one does; ``towers``: the transformer of each, ``inputs``:
    how each is cut and scaled, ``tasks``: what each head answers, all in words; ``classes``: the names, by task;
    ``parameters``: their number, the heads' too; ``starts``: names of models that can start from it.
    """

    source: str
    format: str
    model: str
    towers: Mapping[str, str]
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
            "towers": dict(self.towers),
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
        towers={tower.name: _transformer(tower) for tower in config.towers()},
        inputs={name: _input(spec) for name, spec in config.inputs.items()},
        tasks={name: _in_words(card) for name, card in loaded.tasks.items()},
        classes={name: tuple(getattr(card, "classes", ())) for name, card in loaded.tasks.items()},
        parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        config=config,
        provenance=loaded.provenance,
        dropped=loaded.dropped,
        starts=tuple(name for name in _candidates(config) if _starts(source, loaded, name)),
    )


def fit(source: str, loaded: LoadedModel, name: str) -> InitReport:
    """What would become of every parameter of the model ``name``, if it started from ``loaded``.

    Raises ValueError for an unknown name, and WeightsError, naming keys and shapes, where the weights do not fit.
    """
    config = model_config(name)
    return initialize_from(loaded, Model(config.build(), {}), config, Init(source=source))


def _transformer(tower: Tower) -> str:
    size, (t, h, w) = tower.backbone, tower.patch
    tokens = f"{h}x{w}" if t == 1 else f"{h}x{w} over {t} frames"
    return f"{size.depth} blocks of width {size.width}, {size.heads} heads, MLPs of {size.mlp}; tokens of {tokens}"


def _input(spec: InputSpec) -> str:
    if not isinstance(spec, ImageSpec | VideoSpec):
        return spec.description
    mean, std = (", ".join(f"{x:g}" for x in numbers) for numbers in (spec.mean, spec.std))
    cut = "stretched to it" if spec.fit == "stretch" else f"cut from a short side of {spec.short_side}"
    return f"{spec.description}, {cut}; mean {mean}, deviation {std}"


def _in_words(card: TaskCard) -> str:
    return ", ".join(line.removeprefix("- ") for line in card.describe())


def _candidates(config: ModelConfig) -> list[str]:
    """The names that may fit: those in the size of the source."""
    sizes = {_shape(backbone): letters for letters, backbone in SIZES.items()}
    theirs = {sizes[shape] for tower in config.towers() if (shape := _shape(tower.backbone)) in sizes}
    return [name for name in list_models() if any(f"-{letters}/" in name for letters in theirs)]


def _shape(backbone: TransformerConfig) -> tuple[int, int, int]:
    return backbone.width, backbone.heads, backbone.mlp


def _starts(source: str, loaded: LoadedModel, name: str) -> bool:
    config = model_config(name)
    with torch.device("meta"):
        encoder = config.build()
    try:
        check_start(loaded, encoder, config, Init(source=source))
    except WeightsError:
        return False
    return True
