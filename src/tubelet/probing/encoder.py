"""The frozen encoder of a probe: a model's own lane for a kind of media, or one converted to it (PolyViT App. D)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tubelet.configs import ConfigError
from tubelet.data.kinds import Kind
from tubelet.models.ast import ASTConfig
from tubelet.models.model import Encoder, Model, ModelConfig
from tubelet.models.polyvit import PolyViTConfig
from tubelet.models.tubevit import TubeViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.specs import ImageSpec, InputSpec, RasterSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.crossmodal import adapt_to_modality
from tubelet.weights.folder import load_model, save_model
from tubelet.weights.lanes import best_source, lanes

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
        return Trunk(loaded.model.encoder, without_regularizers(loaded.config), name, str(source))
    spec = _new_spec(loaded.config, kind, frames, size)
    converted = adapt_to_modality(loaded, spec, frames=_FRAMES)
    config = without_regularizers(converted.config)
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
    lane = best_source(lanes(config), spec, kind)
    known = lane.spec.modality
    shape = " x ".join(map(str, spec.extent[1:] if kind != "video" else spec.extent))
    if known == "video":
        did = "the patch embedding summed over its frames, the positions averaged over the frames and resized"
    elif kind == "video":
        did = f"the patch embedding and the resized positions repeated for each frame of tubelets of {_FRAMES}"
    else:
        did = "the patch embedding left as it is, the positions resized"
    return f"cross-modal: the model never had {kind}; converted from its {known} ({did}) to {kind} of {shape}"


def without_regularizers(config: ModelConfig) -> ModelConfig:
    """The same model, with dropout and stochastic depth 0."""
    if isinstance(config, ViTConfig | ASTConfig | ViViTConfig | PolyViTConfig | TubeViTConfig):
        plain = replace(config.backbone, dropout=0.0, attention_dropout=0.0, stochastic_depth=0.0)
        return replace(config, backbone=plain)
    return config
