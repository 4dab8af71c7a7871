"""The joints between encoders, heads and everything above: configs that build, encoders, and a model of many tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tubelet.nn.features import Features
from tubelet.specs import InputSpec

Logits = Tensor | dict[str, Tensor]


class Encoder(nn.Module, ABC):
    """Raw, normalized inputs to features: tokenizer(s) and transformer(s), one class per paper.

    ``inputs`` names and describes what the encoder eats; ``width`` is the D of its features. ``may_miss``: see
    :class:`ModelConfig`.
    """

    inputs: Mapping[str, InputSpec]
    width: int
    may_miss: bool = False

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor], attention: bool = False) -> Features:
        """Encode float inputs, shaped as their specs say. ``attention`` also returns every attention map."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ABC):
    """A model as a value: it says everything needed to build the encoder, and nothing about tasks."""

    @abstractmethod
    def build(self) -> Encoder:
        """The encoder, freshly initialized."""

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, InputSpec]:
        """The specs of the inputs, by name, without building anything."""

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        """The inputs that a forward pass takes together; several sets where it takes one modality or another."""
        return (tuple(self.inputs),)

    @property
    def may_miss(self) -> bool:
        """Whether some examples of a minibatch may lack some of the inputs; a (B,) input such as "audio_mask" is zero
        for those that lack "audio"."""
        return False


class Model(nn.Module):
    """An encoder and the heads of its tasks; one task is the one-head case.

    A head is a module from :class:`Features` to logits (B, K), or to a dict of them for a task with several label sets.
    """

    def __init__(self, encoder: Encoder, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)
        for name, spec in encoder.inputs.items():
            for what, values in zip(("mean", "std"), spec.normalization or (), strict=False):
                self.register_buffer(f"{what}_{name}", torch.tensor(values).view(-1, 1, 1), persistent=False)

    def preprocess(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """uint8 rasters, as the loader gives them, to the floats the encoder eats.

        Floats pass unchanged: spectrograms come normalized from the loader, which masks them after that.
        """
        return {name: self._normalize(name, x) for name, x in inputs.items()}

    def _normalize(self, name: str, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            return x
        mean, std = self.get_buffer(f"mean_{name}"), self.get_buffer(f"std_{name}")
        return (x.to(mean.dtype) / 255 - mean) / std

    def forward(self, inputs: Mapping[str, Tensor], task: str) -> Logits:
        """Logits of ``task`` for float inputs (see :meth:`preprocess`)."""
        return self.heads[task](self.encoder(inputs))
