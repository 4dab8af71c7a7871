"""Encoders, and a model: an encoder with the heads of its tasks."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tubelet.configs import shown
from tubelet.models.family import ModelConfig
from tubelet.nn.features import Features
from tubelet.nn.heads import LinearHead
from tubelet.specs import InputSpec

Logits = Tensor | dict[str, Tensor]
Inputs = Tensor | Mapping[str, Tensor]
"""A model's inputs by name, or the only one."""

MASK = "_mask"
_TASK = re.compile(r"[^\s./\\][^./\\\n\r]{0,99}")


def check_task_name(name: str) -> None:
    """Raise ValueError for what cannot name a task: names are keys of weights, and may become those of files."""
    if not _TASK.fullmatch(name):
        raise ValueError(f"{shown(name)} cannot name a task: it needs 1 to 100 characters, and no . / or \\")


class Encoder(nn.Module, ABC):
    """Normalized inputs to features: tokenizer(s) and transformer(s), one class per paper.

    ``inputs`` names and describes what the encoder takes; ``width`` is the D of its features, and ``widths`` that of
    each input's own, where inputs have their own. ``may_miss``: see :class:`~tubelet.models.family.ModelConfig`.
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.config, self.inputs, self.width, self.may_miss = config, config.inputs, width, config.may_miss
        self.widths = dict.fromkeys(config.inputs, width)

    def forward(self, inputs: Inputs, interpolate: bool = False) -> Features:
        """Encode float inputs, which must have the shapes that their specs say.

        ``interpolate``: another size or number of frames is taken, too, with the positions interpolated. Raises
        ValueError that names the expected shape.
        """
        named = by_name(inputs, self.config)
        for name, x in named.items():
            if name in self.inputs:
                check_input(name, self.inputs[name], x, interpolate)
            elif name.removesuffix(MASK) not in self.inputs:
                raise ValueError(f"no input is called {name!r}; this {self.config.kind} takes {_taken(self.config)}")
        return self.encode(named)

    @abstractmethod
    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        """The features of inputs that were checked."""


def by_name(inputs: Inputs, config: ModelConfig) -> Mapping[str, Tensor]:
    """Inputs by name. Raises ValueError for a tensor without a name where the model has several inputs."""
    if not isinstance(inputs, Tensor):
        return inputs
    if len(config.inputs) > 1:
        first = next(iter(config.inputs))
        raise ValueError(f"a {config.kind} takes {_taken(config)}: name the input, as in {{{first!r}: x}}")
    return {next(iter(config.inputs)): inputs}


def _taken(config: ModelConfig) -> str:
    return ", or ".join(" with ".join(names) for names in config.input_sets)


def check_input(name: str, spec: InputSpec, x: Tensor, interpolate: bool = False) -> None:
    """Raise ValueError, with what is expected and a way out, where ``x`` is no minibatch of ``spec``."""
    given = tuple(x.shape[1:])
    wanted = f"{spec.layout} = (B, {', '.join(map(str, spec.shape))})"
    if x.is_floating_point() == spec.integers:
        kind = "ids of words" if spec.integers else "floats"
        raise ValueError(f"input {name!r} is {x.dtype}, but an encoder takes {kind}; model.preprocess(x) makes them")
    if spec.is_example(given) or (interpolate and spec.differs_in_size(given)):
        return
    if spec.differs_in_size(given):
        way_out = "give interpolate=True to have the positions interpolated, or build the model for this size"
    else:
        way_out = spec.layout_hint(tuple(x.shape)) or "model.preprocess makes it of files, arrays and uint8 tensors"
    raise ValueError(f"input {name!r} has the shape {tuple(x.shape)} and must be {wanted}; {way_out}")


class Model(nn.Module):
    """An encoder and the heads of its tasks; one task is the one-head case.

    A head is a module from :class:`Features` to logits (B, K), or to a dict of them for a task with several label sets.
    Where there is one input, a tensor will do in the place of a mapping, and where there is one head, no task need be
    named.
    """

    def __init__(self, encoder: Encoder, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name in heads:
            check_task_name(name)
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)
        for name, spec in encoder.inputs.items():
            if (scale := spec.normalization) is not None:
                mean, std = (torch.tensor(values).view(-1, 1, 1) for values in scale)
                self.register_buffer(f"mean_{name}", mean, persistent=False)
                self.register_buffer(f"std_{name}", std, persistent=False)

    @property
    def config(self) -> ModelConfig:
        return self.encoder.config

    def preprocess(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Minibatches as the loader gives them, uint8 rasters among them, as the floats that the encoder takes.

        Floats pass: spectrograms and waveforms come normalized from the loader, which masks them after that.
        """
        return {name: self._normalized(name, x) for name, x in inputs.items()}

    def _normalized(self, name: str, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            return x
        mean, std = self.get_buffer(f"mean_{name}"), self.get_buffer(f"std_{name}")
        return (x.to(mean.dtype) / 255 - mean) / std

    def forward(self, inputs: Inputs, task: str = "", *, interpolate: bool = False) -> Logits:
        """Logits of ``task`` for normalized inputs; the pooled features (B, D) where the model has no head."""
        features = self.encoder(inputs, interpolate)
        return self.heads[self._task(task)](features) if len(self.heads) else features.pooled

    def _task(self, task: str) -> str:
        if task in self.heads or (not task and len(self.heads) == 1):
            return task or next(iter(self.heads))
        which = f"no task {task!r}" if task else "say which task"
        raise ValueError(f"{which}: this model has heads for {', '.join(self.heads)}")

    def forward_features(self, inputs: Inputs, *, interpolate: bool = False) -> Features:
        """What the encoder makes of normalized inputs, before any head."""
        return self.encoder(inputs, interpolate)

    def forward_intermediates(
        self, inputs: Inputs, layers: Sequence[int] = (), *, interpolate: bool = False
    ) -> dict[str, dict[int, Tensor]]:
        """The tokens after the blocks ``layers`` (counted from 0, or back from -1; all, if empty), by tower and layer.

        They are as the block returned them: before the final norm, special tokens first, (B, N, D). Where frames
        attend apart they are (B, frames, N, D). A ViViT's tower is "video", Model 2's is its spatial encoder; MTV has
        a tower for each stream. Raises ValueError for a layer that a tower does not have.
        """
        given = by_name(inputs, self.config)
        batch = len(next(iter(given.values())))
        wanted: dict[str, dict[int, str]] = {}
        for tower in self.config.towers():
            if tower.input in given:
                depth = sum(part.startswith("blocks.") for part in tower.modules)
                chosen = [_layer(layer, depth, tower.name) for layer in layers or range(depth)]
                wanted[tower.name] = {layer: tower.modules[f"blocks.{layer}"] for layer in chosen}
        seen: dict[str, list[Tensor]] = {name: [] for modules in wanted.values() for name in modules.values()}

        def remember(name: str, output: Any) -> None:
            seen[name].append(output if output.shape[0] == batch else output.unflatten(0, (batch, -1)))

        handles = [
            self.encoder.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: remember(name, out))
            for name in seen
        ]
        try:
            self.encoder(given, interpolate)
        finally:
            for handle in handles:
                handle.remove()
        # A block that several towers share runs once for each of them, in their order, or once for all together.
        found: dict[str, dict[int, Tensor]] = {}
        for place, (tower, modules) in enumerate(wanted.items()):
            found[tower] = {layer: seen[name][min(place, len(seen[name]) - 1)] for layer, name in modules.items()}
        return found

    def reset_classifier(self, num_classes: int, task: str = "label") -> None:
        """A fresh linear head for ``num_classes`` classes in the place of all heads; none at all, if 0."""
        heads = {task: LinearHead(self.encoder.width, num_classes)} if num_classes else {}
        like = next(self.encoder.parameters())
        self.heads = nn.ModuleDict(cast("Mapping[str, nn.Module]", heads)).to(like.device, like.dtype)


def _layer(layer: int, depth: int, tower: str) -> int:
    if not -depth <= layer < depth:
        raise ValueError(f"{layer=} is none of the {depth} layers of {tower!r}, counted from 0, or back from -1")
    return layer % depth
