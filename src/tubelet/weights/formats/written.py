"""A model on its way into the layout of another library: what is given, what is written, and what does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.configs import differences, shown
from tubelet.models import ModelConfig
from tubelet.models.family import map_transformers
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import RasterSpec
from tubelet.weights.checkpoint import Tensors
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.tree import Tree, scatter
from tubelet.weights.loaded import LoadedModel

_NOT_OF_WEIGHTS = {"dropout", "attention_dropout", "stochastic_depth", "rescale_depth", "start", "column"}
"""Fields of configs that change training or the choice of files, and not what a model computes."""


class MisfitError(WeightsError):
    """A setting of a model that a layout cannot hold."""


@dataclass(frozen=True)
class Written:
    """A model in another library's layout.

    ``tensors`` by their names there; ``config`` is its config.json, ``processor`` its preprocessor_config.json, which a
    layout without one leaves empty. ``kind``: what loads it there, such as "ViTForImageClassification". ``tokens``
    picks our tokens (B, N, D), in our order, from the last hidden state there.
    """

    kind: str
    tensors: Tensors = field(repr=False)
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    tokens: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Outgoing:
    """A model to be written: its encoder's parameters, and one task's head or none.

    ``tree`` and ``head`` have them by our names, without what names of the encoder's or of the head's begin with.
    """

    config: ModelConfig
    tree: Tree
    head: Tree
    card: ClassCard | None

    @classmethod
    def of(cls, loaded: LoadedModel, task: str = "", *, origin: str = "this model") -> Outgoing:
        """``task``: whose head becomes the classifier; the only one, if empty. Raises WeightsError for a task that
        the model has not, that no classifier can serve, or that must be named."""
        state = {name: x.detach().cpu() for name, x in loaded.model.state_dict().items()}
        name = _task(loaded, task, origin)
        card = _classes(loaded, name, origin) if name else None
        return cls(
            loaded.config, Tree(_below(state, "encoder."), origin), Tree(_below(state, f"heads.{name}."), origin), card
        )

    def classifier(self, layer: str) -> dict[str, Tensor]:
        """The head's parameters, where ``layer`` is the classifier; none without a task."""
        return scatter({"projection": [layer]}, self.head.layer) if self.card else {}

    def check(self, layout: str, held: ModelConfig, ignore: Collection[str] = ()) -> None:
        """Raise MisfitError unless ``held``, what the layout's files say, computes what this model does.

        ``ignore``: fields that play no role in it.
        """
        for path, ours, theirs in differences(_computing(self.config), _computing(held)):
            if path.rpartition(".")[2] not in {*ignore, *_NOT_OF_WEIGHTS} and not _same(ours, theirs):
                raise MisfitError(f"{layout} cannot hold {path} {shown(ours)}, only {shown(theirs)}")


def _task(loaded: LoadedModel, task: str, origin: str) -> str:
    if task and task not in loaded.tasks:
        has = f"it has {', '.join(loaded.tasks)}" if loaded.tasks else "it has no head"
        raise WeightsError(f"{origin}: no task {task!r}; {has}")
    if not task and len(loaded.tasks) > 1:
        raise WeightsError(
            f"{origin}: has the tasks {', '.join(loaded.tasks)}, and other layouts hold one: say which becomes the "
            "classifier (--task)"
        )
    return task or next(iter(loaded.tasks), "")


def _classes(loaded: LoadedModel, task: str, origin: str) -> ClassCard:
    card = loaded.tasks[task]
    if not isinstance(card, ClassCard) or len(card.by_set) > 1 or card.hidden:
        fault = "has hidden layers" if card.hidden else "is no classifier of one set of classes"
        raise WeightsError(
            f"{origin}: the head of task {task!r} {fault}, which no other layout holds; Tubelet's own folder does"
        )
    return card


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def _computing(config: ModelConfig) -> ModelConfig:
    """The config with one spelling for all values that compute the same."""
    specs = {name: _cut(spec) if isinstance(spec, RasterSpec) else spec for name, spec in config.inputs.items()}
    return map_transformers(config, _plain).with_inputs(specs)


def _plain(size: TransformerConfig) -> TransformerConfig:
    return replace(
        size,
        head_width=0 if size.inner == size.width else size.head_width,
        gelu="exact" if size.gated else size.gelu,
        layer_scale=float(size.layer_scale > 0),
    )


def _cut(spec: RasterSpec) -> RasterSpec:
    return replace(spec, short_side=min(spec.size)) if spec.fit == "stretch" else spec


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        a, b = cast("Sequence[Any]", one), cast("Sequence[Any]", other)
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)
    return one == other
