"""Checkpoints of other libraries: one module per format, which recognizes its own and reads them as a whole model."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from tubelet.configs import shown
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats import (
    ast,
    clip,
    dino,
    onnx,
    scenic_checkpoint,
    timesformer,
    timm,
    vatt,
    videomae,
    vit,
    vivit,
)
from tubelet.weights.loaded import LoadedModel


class Format(Protocol):
    """What a module of a format has. ``LOADS`` says what it reads, for errors and lists.

    ``read`` raises WeightsError where the checkpoint is not what it seemed to be.
    """

    @property
    def LOADS(self) -> str: ...

    def recognizes(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint is of this format, by its model_type or the names of its tensors."""
        ...

    def read(self, checkpoint: Checkpoint) -> LoadedModel: ...


FORMATS: tuple[Format, ...] = (vit, dino, clip, vivit, videomae, timesformer, ast, onnx, timm, scenic_checkpoint, vatt)
"""All formats, in the order in which they are asked."""

_REFUSED = {
    "beit": "each of its blocks has relative positions of its own",
    "data2vec-vision": "each of its blocks has relative positions of its own",
    "swin": "it attends within windows",
    "swinv2": "it attends within windows",
}
"""Architectures that none of ours can hold, and why."""


def read_checkpoint(checkpoint: Checkpoint) -> LoadedModel:
    """The model in a checkpoint of another library. Raises WeightsError where no format recognizes it."""
    for one in FORMATS:
        if one.recognizes(checkpoint):
            return replace(one.read(checkpoint), format=one.LOADS)
    loads = "; ".join(one.LOADS for one in FORMATS)
    raise WeightsError(f"{checkpoint.origin}: {_looks(checkpoint)}, which is not read; what loads: {loads}")


def _looks(checkpoint: Checkpoint) -> str:
    """What an unknown checkpoint says of itself."""
    if "model_type" in checkpoint.config:
        told = checkpoint.config["model_type"]
        reason = f" ({_REFUSED[told]})" if isinstance(told, str) and told in _REFUSED else ""
        return f"model_type {shown(told)}{reason}"
    names = list(checkpoint.tensors)[:3]
    return f"holds {len(checkpoint.tensors):,} arrays ({', '.join(map(shown, names))} ...) and no model_type"
