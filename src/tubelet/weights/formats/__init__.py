"""Checkpoints of other libraries: one module per format, which recognizes its own and reads them as a whole model."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol, get_args

from tubelet.configs import shown
from tubelet.models import ModelConfig
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
    vjepa2,
)
from tubelet.weights.formats.tree import Tree
from tubelet.weights.formats.written import MisfitError, Outgoing, Written
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


FORMATS: tuple[Format, ...] = (
    vit,
    dino,
    clip,
    vivit,
    videomae,
    timesformer,
    vjepa2,
    ast,
    onnx,
    timm,
    scenic_checkpoint,
    vatt,
)
"""All formats, in the order in which they are asked."""

Layout = Literal["transformers", "timm"]
"""Another library that reads what is written."""


class Writer(Protocol):
    """What a module of a format has that is written, too. ``WRITES`` names it, ``FAMILY`` is all that it may hold.

    ``write`` raises MisfitError where it cannot hold the model.
    """

    @property
    def WRITES(self) -> str: ...

    @property
    def FAMILY(self) -> type[ModelConfig]: ...

    def write(self, model: Outgoing) -> Written: ...


WRITERS: dict[Layout, tuple[Writer, ...]] = {
    "transformers": (vit, dino, vivit, videomae, timesformer, ast),
    "timm": (timm,),
}
"""The formats that each library has, in the order in which they are tried."""

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


def written(model: LoadedModel, layout: Layout, task: str = "", *, origin: str = "this model") -> Written:
    """The model in the first format of another library that holds it.

    ``task``: whose head becomes the classifier. Raises WeightsError, naming the setting that does not fit and the
    layouts that hold it.
    """
    outgoing = Outgoing.of(model, task, origin=origin)
    found, misfits = _tried(outgoing, layout)
    if found is not None:
        return found
    others = [other for other in get_args(Layout) if other != layout and _tried(outgoing, other)[0] is not None]
    if not misfits:
        holds = ", ".join(writer.WRITES for writer in WRITERS[layout])
        misfits = [f"no {model.config.kind} is written for {layout}, which gets {holds}"]
    who = [*(f"the layout of {other} (--to {other})" for other in others), "Tubelet's own folder"]
    raise WeightsError(f"{origin}: {'; '.join(misfits)}; what holds it: {', '.join(who)}")


def _tried(model: Outgoing, layout: Layout) -> tuple[Written | None, list[str]]:
    """What the first format that holds the model made of it, and why those before it cannot."""
    misfits: list[str] = []
    for writer in WRITERS[layout]:
        if isinstance(model.config, writer.FAMILY):
            whole = replace(model, tree=Tree(model.tree.arrays, model.tree.origin))
            try:
                made = writer.write(whole)
                if whole.tree.left:
                    raise MisfitError(f"{writer.WRITES} has no place for {whole.tree.left[0]}")
                return made, misfits
            except MisfitError as misfit:
                misfits.append(str(misfit))
    return None, misfits


def _looks(checkpoint: Checkpoint) -> str:
    """What an unknown checkpoint says of itself."""
    if "model_type" in checkpoint.config:
        told = checkpoint.config["model_type"]
        reason = f" ({_REFUSED[told]})" if isinstance(told, str) and told in _REFUSED else ""
        return f"model_type {shown(told)}{reason}"
    names = list(checkpoint.tensors)[:3]
    return f"holds {len(checkpoint.tensors):,} arrays ({', '.join(map(shown, names))} ...) and no model_type"
