"""What several models make of the same clips: features, vectors in common spaces, and how active their units are."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from tubelet.cards import RetrievalCard, TaskCard
from tubelet.data.dataset import VideoViews, ViewSet
from tubelet.data.loader import view_batches
from tubelet.data.missing import masked
from tubelet.inference.scoring import evaluation_mode
from tubelet.media.errors import MediaError
from tubelet.models import Encoder, Model
from tubelet.nn.features import Features

_AT_ONCE = 16  # clips in a forward
Array = NDArray[Any]


@dataclass(frozen=True)
class Seen:
    """What a model makes of N clips.

    ``features``: by input, (N, D). ``spaces``: by what video is compared with, such as "text": the vectors of video and
    of the other, (N, C) each; of several captions the first. ``activations``: by input, (layers, units): the mean of
    ``|MLP(x)|``, before the residual addition, over all tokens; none unless several inputs share a transformer.
    """

    features: dict[str, Array]
    spaces: dict[str, tuple[Array, Array]]
    activations: dict[str, Array]


@dataclass(frozen=True)
class Clips:
    """The clips that could be read, by their keys, and what each model makes of them.

    ``present``: by input, (N,): which clips have it; what a model makes of the others there means nothing.
    """

    keys: tuple[str, ...]
    present: dict[str, Array]
    seen: dict[str, Seen]
    errors: tuple[MediaError, ...] = ()


def look(
    models: Mapping[str, Model], task: str, card: TaskCard, videos: ViewSet, *, workers: int = 2, progress: bool = True
) -> Clips:
    """Give every clip of ``videos``, which have one view each, to all ``models``. Each clip is read once.

    The models are alike but for their weights, and on one device. Raises ValueError where no clip can be read.
    """
    errors: list[MediaError] = []
    present: list[dict[str, Array]] = []
    keys: list[str] = []
    looks = {name: _Look(model, task, card, tuple(videos.specs)) for name, model in models.items()}
    for examples in _batches(videos, errors, workers, progress):
        inputs, has = _together(examples, videos)
        keys += [example.key for example in examples]
        present.append({name: x.numpy() for name, x in has.items()})
        for one in looks.values():
            one.add(inputs, has)
    if not keys:
        raise ValueError(f"none of {len(videos)} clips can be read; the first: {errors[0]}")
    return Clips(
        keys=tuple(keys),
        present={name: np.concatenate([batch[name] for batch in present]) for name in videos.specs},
        seen={name: one.seen() for name, one in looks.items()},
        errors=tuple(errors),
    )


def _batches(videos: ViewSet, errors: list[MediaError], workers: int, progress: bool) -> Iterator[list[VideoViews]]:
    waiting: list[VideoViews] = []
    read = view_batches(videos, workers=workers)
    console = Console(stderr=True)
    for example in track(read, "looking at clips", len(videos), console=console, transient=True, disable=not progress):
        if isinstance(example, MediaError):
            errors.append(example)
            continue
        waiting.append(example)
        if len(waiting) == _AT_ONCE:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _together(examples: Sequence[VideoViews], videos: ViewSet) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inputs of a minibatch, with blanks for what is missing, and which examples have each of them (B,)."""
    whole = [masked(e.inputs, videos.specs) if videos.may_miss else e.inputs for e in examples]
    inputs = {name: torch.cat([one[name] for one in whole]) for name in whole[0]}
    has: dict[str, Tensor] = {}
    for name, spec in videos.specs.items():
        has[name] = torch.tensor([name not in example.missing for example in examples])
        if spec.modality == "text":
            has[name] &= (inputs[name] != 0).flatten(1).any(1)
    return inputs, has


@dataclass
class _Look:
    """One model, and what it has made of the clips so far."""

    model: Model
    task: str
    card: TaskCard
    inputs: tuple[str, ...]
    features: list[dict[str, Tensor]] = field(default_factory=list[dict[str, Tensor]])
    outputs: list[dict[str, Tensor]] = field(default_factory=list[dict[str, Tensor]])

    def __post_init__(self) -> None:
        self.activity = _Activity(self.model.encoder, self.inputs)

    def add(self, inputs: Mapping[str, Tensor], has: Mapping[str, Tensor]) -> None:
        device = next(self.model.parameters()).device
        text = next((name for name in self.inputs if self.model.encoder.inputs[name].modality == "text"), "")
        first = (inputs[text] != 0).any(-1).float().argmax(1) if text else torch.zeros(0, dtype=torch.long)

        def one(x: Tensor, name: str) -> Tensor:
            """Of several captions (B, P, D) the first that has words (B, D)."""
            x = x.float().cpu()
            return x[torch.arange(len(x)), first] if name == text else x

        with evaluation_mode(self.model, "float32"), self.activity.measured(inputs, has):
            made = self.model.encoder(self.model.preprocess({name: x.to(device) for name, x in inputs.items()}))
            self.features.append({name: one(x, name) for name, x in _pooled(made, self.inputs).items()})
            if isinstance(self.card, RetrievalCard):
                vectors = self.model.heads[self.task](made)
                self.outputs.append({name: one(x, name.partition("_")[0]) for name, x in vectors.items()})

    def seen(self) -> Seen:
        others = self.card.others if isinstance(self.card, RetrievalCard) else ()
        vectors = _joined(self.outputs)
        return Seen(
            features=_joined(self.features),
            spaces={other: (vectors[f"video_{other}"], vectors[f"{other}_video"]) for other in others},
            activations=self.activity.means(),
        )


def _pooled(features: Features, inputs: Sequence[str]) -> dict[str, Tensor]:
    """The pooled features of each input; those of all together, where the encoder has no others."""
    parts = {name: features.parts[name].pooled for name in inputs if name in features.parts}
    return parts or {" and ".join(inputs): features.pooled}


def _joined(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Array]:
    return {name: torch.cat([batch[name] for batch in batches]).numpy() for name in (batches[0] if batches else ())}


class _Activity:
    """How active the units of a transformer are that several inputs share, for each of them (VATT Sec. 4.2.6)."""

    def __init__(self, encoder: Encoder, inputs: Sequence[str]) -> None:
        towers = [tower for tower in encoder.config.towers() if tower.input in inputs]
        blocks = [[tower.modules[f"blocks.{i}"] for i in range(tower.backbone.depth)] for tower in towers]
        shared = len(blocks) > 1 and all(names == blocks[0] for names in blocks)
        self.encoder, self.inputs = encoder, [tower.input for tower in towers] if shared else []
        self.layers = [f"{name}.mlp" for name in blocks[0]] if shared else []
        self.sums: dict[str, list[Tensor]] = {name: [torch.zeros(())] * len(self.layers) for name in self.inputs}
        self.tokens = dict.fromkeys(self.inputs, 0.0)

    @contextmanager
    def measured(self, inputs: Mapping[str, Tensor], has: Mapping[str, Tensor]) -> Generator[None]:
        """Measure the forward pass within, in which the inputs go through the shared blocks one after the other."""
        weights = {name: self._counted(name, inputs[name], has[name]) for name in self.inputs}
        calls = [iter(self.inputs) for _ in self.layers]

        def add(layer: int, output: Any) -> None:
            name = next(calls[layer])
            weight = weights[name].to(output.device).expand(output.shape[:2])
            self.sums[name][layer] = (
                self.sums[name][layer] + (output.float().abs() * weight[..., None]).sum((0, 1)).cpu()
            )
            if layer == 0:
                self.tokens[name] += float(weight.sum())

        handles = [
            self.encoder.get_submodule(name).register_forward_hook(lambda m, x, out, layer=layer: add(layer, out))
            for layer, name in enumerate(self.layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _counted(self, name: str, x: Tensor, has: Tensor) -> Tensor:
        """Which tokens count: (B, 1), all or none of an example; of captions (B * P, 1 + L) their words, and the token
        that aggregates them."""
        if self.encoder.inputs[name].modality != "text":
            return has[:, None].float()
        words = x.flatten(0, 1) != 0
        return torch.cat([words.any(1, keepdim=True), words], dim=1).float()

    def means(self) -> dict[str, Array]:
        """By input, (layers, units); of an input that no clip has, nothing."""
        return {
            name: (torch.stack(sums) / self.tokens[name]).numpy()
            for name, sums in self.sums.items()
            if self.tokens[name]
        }
