"""A moving average of the weights."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tubelet.training.loop import Update


def learned_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes in a model, by name: its parameters, and saved buffers of numbers that can be averaged.

    Such are the running statistics of a batch norm. Counters are left out: they are as the model has them.
    """
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    numbers = {name: buffer for name, buffer in buffers.items() if buffer.is_floating_point() and buffer.ndim > 0}
    return {**dict(model.named_parameters()), **numbers}


class MovingAverage:
    """average = d average + (1 - d) weights after every update, with d = min(decay, (1 + n) / (10 + n)) at update n.

    The smaller decay of the first updates lets the average forget the weights that training started from. Buffers are
    averaged like weights (:func:`learned_tensors`), so that statistics belong to the weights they are used with.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = learned_tensors(model)
        self.average = {name: parameter.detach().clone() for name, parameter in self.weights.items()}

    @torch.no_grad()
    def __call__(self, update: Update) -> None:
        decay = min(self.decay, (1 + update.step) / (10 + update.step))
        for name, average in self.average.items():
            average.lerp_(self.weights[name].detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Generator[None]:
        """The model computes with the average inside, and with its weights again after."""
        with weights_in_place(self.weights, self.average):
            yield


@contextmanager
def weights_in_place(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Generator[None]:
    """``values`` in the place of a model's parameters by name inside, and what they were again after."""
    kept = {name: parameter.detach().clone() for name, parameter in weights.items()}
    set_weights(weights, values)
    try:
        yield
    finally:
        set_weights(weights, kept)


@torch.no_grad()
def set_weights(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy ``values`` into a model's parameters, by name."""
    for name, value in values.items():
        weights[name].copy_(value)
