"""The frozen encoder of a probe, and its features of a data set, each computed once.

A model that has no input of the data's kind is converted to it (PolyViT App. D).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import default_collate

from tubelet.configs import ConfigError
from tubelet.data.batch import Targets
from tubelet.data.dataset import VideoViews, ViewSet
from tubelet.data.kinds import Kind
from tubelet.data.loader import view_batches
from tubelet.data.views import Views
from tubelet.inference.scoring import evaluation_mode, view_logits
from tubelet.media.errors import MediaError
from tubelet.models import Encoder, Model, ModelConfig
from tubelet.nn.features import Features
from tubelet.specs import ImageSpec, InputSpec, RasterSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.crossmodal import adapt_to_modality
from tubelet.weights.folder import load_model, save_model
from tubelet.weights.transfer import best_source

FEATURES = "features"
_FRAMES = 4  # of a tubelet, for a model that never saw a video (Table 7)


@dataclass(frozen=True)
class Trunk:
    """An encoder, and its input of the kind that is probed. ``source``: where its weights are.

    ``config`` has no dropout and no stochastic depth, so that the frozen encoder computes the same in training as at
    test time. ``note`` says how it was converted, where the model never had such an input.
    """

    encoder: Encoder
    config: ModelConfig
    input: str
    source: str
    note: str = ""


def find_trunk(source: str | Path, kind: Kind, folder: Path, *, frames: int = 0, size: int = 0) -> Trunk:
    """The encoder of whatever ``load_model`` reads.

    One that has no input of ``kind`` is converted, and written as a model into ``folder``: its new input has ``frames``
    and ``size`` (height and width in pixels), or where they are 0 those of PolyViT's Table 7, the size being that of
    the pictures that the model knows, if any. Raises ConfigError where frames or size are given for an input that the
    model has, and WeightsError where it cannot be converted.
    """
    loaded = load_model(source)
    if name := _own_input(loaded.config, kind):
        if frames or size:
            raise ConfigError(
                f"{source}: its own input is used, which fixes frames and size: {loaded.config.inputs[name]}"
            )
        return Trunk(loaded.model.encoder, loaded.config.without_regularizers(), name, str(source))
    spec = _new_spec(loaded.config, kind, frames, size)
    converted = adapt_to_modality(loaded, spec, frames=_FRAMES)
    config = converted.config.without_regularizers()
    save_model(folder, Model(converted.model.encoder, {}), config, {}, {"converted from": str(source)})
    note = _told(loaded.config, kind, spec)
    return Trunk(converted.model.encoder, config, next(iter(config.inputs)), str(folder), note)


def _own_input(config: ModelConfig, kind: Kind) -> str:
    """The input of that kind which the model takes by itself; empty where there is none."""
    alone = (together[0] for together in config.input_sets if len(together) == 1)
    return next((name for name in alone if config.inputs[name].modality == kind), "")


def _new_spec(config: ModelConfig, kind: Kind, frames: int, size: int) -> InputSpec:
    known = next((spec for spec in config.inputs.values() if isinstance(spec, RasterSpec)), None)
    if kind == "audio":
        if size:
            raise ConfigError(f"{size=} is of pictures; sound has frames alone")
        return SpectrogramSpec(frames=frames or SpectrogramSpec().frames)
    if known is None:
        known = ImageSpec(size=(384, 384), short_side=384) if kind == "image" else VideoSpec()
    if size:
        known = replace(known, size=(size, size), short_side=max(size, round(size * known.short_side / known.size[0])))
    if kind == "image":
        if frames:
            raise ConfigError(f"{frames=} are of videos and sounds; an image has none")
        return ImageSpec(size=known.size, short_side=known.short_side, mean=known.mean, std=known.std)
    video = VideoSpec(size=known.size, short_side=known.short_side, mean=known.mean, std=known.std)
    return replace(video, frames=frames) if frames else video


def _told(config: ModelConfig, kind: Kind, spec: InputSpec) -> str:
    tower = best_source(config.towers(), spec, kind)
    known = tower.spec.modality
    shape = " x ".join(map(str, spec.extent[1:] if kind != "video" else spec.extent))
    if known == "video":
        did = "the patch embedding summed over its frames, the positions averaged over the frames and resized"
    elif kind == "video":
        did = f"the patch embedding and the resized positions repeated for each frame of tubelets of {_FRAMES}"
    else:
        did = "the patch embedding left as it is, the positions resized"
    return f"cross-modal: the model never had {kind}; converted from its {known} ({did}) to {kind} of {shape}"


@dataclass(frozen=True)
class CachedFeatures:
    """``pooled`` (N, V, D) float32, on the CPU: the features of V views of each example that could be read.

    ``targets``: class indices (N,), multi-hot (N, K), or a dict of them by label set. ``keys``: the examples' own.
    ``errors``: of the examples that could not be read, which are left out. ``silent``: examples of digital silence.
    """

    pooled: Tensor
    targets: Targets
    keys: tuple[str, ...]
    views: Views
    errors: tuple[MediaError, ...] = ()
    silent: int = 0

    def __len__(self) -> int:
        return len(self.pooled)

    def of(self, keys: Iterable[str]) -> CachedFeatures:
        """Those of the examples with these keys, in this order; examples that could not be read are left out."""
        places = {key: place for place, key in enumerate(self.keys)}
        rows = [places[key] for key in keys if key in places]
        return CachedFeatures(
            self.pooled[rows],
            rows_of(self.targets, torch.tensor(rows, dtype=torch.long)),
            tuple(self.keys[row] for row in rows),
            self.views,
        )

    @property
    def expected(self) -> int:
        return len(self) + len(self.errors)


def rows_of(targets: Targets, rows: Tensor) -> Targets:
    """Some rows of the targets."""
    return {name: x[rows] for name, x in targets.items()} if isinstance(targets, dict) else targets[rows]


class _Pooled(nn.Module):
    def forward(self, features: Features) -> Tensor:
        return features.pooled


def cache_features(
    encoder: Encoder,
    videos: ViewSet,
    *,
    features_per_forward: int = 12,
    workers: int = 0,
    progress: str = "",
) -> CachedFeatures:
    """The pooled features of every example, in evaluation mode and on the encoder's device.

    ``progress``: what a bar on stderr is called; empty: none.
    Raises ValueError where no example can be read.
    """
    model = Model(encoder, {FEATURES: _Pooled()}).to(next(encoder.parameters()).device)
    errors: list[MediaError] = []
    targets: list[Targets | None] = []
    keys: list[str] = []
    pooled: list[Tensor] = []
    silent: list[str] = []

    def readable(found: Iterator[VideoViews | MediaError]) -> Iterator[Mapping[str, Tensor]]:
        for example in found:
            bar.advance(line)
            if isinstance(example, MediaError):
                errors.append(example)
            else:
                targets.append(example.target)
                keys.append(example.key)
                silent.extend(example.silent)
                yield example.inputs

    console = Console(stderr=True)
    with Progress(console=console, disable=not (progress and console.is_terminal), transient=True) as bar:
        line = bar.add_task(progress, total=len(videos))
        with evaluation_mode(model, "float32"):
            inputs = readable(view_batches(videos, workers=workers))
            for features in view_logits(model, FEATURES, inputs, views_per_forward=features_per_forward):
                pooled.extend(features.values())
    if not pooled:
        raise ValueError(f"none of {len(videos)} examples can be read; the first: {errors[0]}")
    return CachedFeatures(
        torch.stack(pooled), default_collate(targets), tuple(keys), videos.views, tuple(errors), len(silent)
    )
