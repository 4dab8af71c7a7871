"""A model that the recipe ``folder`` is told by name, fitted to the data: its clips' rate, its pixels, its sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tubelet.configs import ConfigError
from tubelet.data.kinds import Kind
from tubelet.media.errors import MediaError
from tubelet.media.info import probe
from tubelet.models.ast import ASTConfig
from tubelet.models.mbt import MBTConfig
from tubelet.models.model import ModelConfig
from tubelet.models.mtv import MTVConfig
from tubelet.models.names import model_config
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.models.tubevit import TubeViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.recipes.folder.look import DatasetSummary
from tubelet.recipes.folder.model import hearing, pixels_of, seeing
from tubelet.specs import ImageSpec, InputSpec, RasterSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.folder import load_model

_PATCH = 16  # windows of sound that every name's patches fill
_NAMES: dict[Kind, str] = {"image": "vit-s/16", "video": "vivit-s/16x2-fe or mtv-s/2+ti/4", "audio": "ast-s/16"}
_GIVES: dict[Kind, tuple[Kind, ...]] = {"image": ("image",), "video": ("video", "audio"), "audio": ("audio",)}


def named_model(name: str, looks: Sequence[DatasetSummary], init: str) -> tuple[ModelConfig, list[str]]:
    """The model called ``name`` for what was looked at, and what there is to say about it.

    Raises ConfigError where no model has the name, or where it does not take such files.
    """
    try:
        config = model_config(name)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    inputs = {look.path: task_inputs(config, look, name) for look in looks}
    used = {key for keys in inputs.values() for key in keys}
    if isinstance(config, PolyViTConfig | MBTConfig):
        config = replace(config, modalities={key: m for key, m in config.modalities.items() if key in used})
    pixels = pixels_of(load_model(init).config if init else None)
    said = [f"{name}{f', started from {init}' if init else ', from scratch'}."]
    specs: dict[str, InputSpec] = {}
    for key, spec in config.inputs.items():
        specs[key], sentences = _fitted(spec, [look for look in looks if key in inputs[look.path]], pixels)
        said += sentences
    return _with_specs(config, specs), said


def task_inputs(config: ModelConfig, look: DatasetSummary, who: str) -> tuple[str, ...]:
    """The inputs that a model takes of a folder's files: of videos, their sound too if it takes both together."""
    fitting = [
        names for names in config.input_sets if all(config.inputs[n].modality in _GIVES[look.kind] for n in names)
    ]
    if not fitting:
        takes = ", or ".join(" and ".join(names) for names in config.input_sets)
        raise ConfigError(
            f"model: {who} takes {takes}, and {look.path} holds files of kind {look.kind!r}, for which there is "
            f"{_NAMES[look.kind]}, or, together with other kinds, polyvit-s/16x4"
        )
    return max(fitting, key=lambda names: (any(config.inputs[n].modality == look.kind for n in names), len(names)))


def _fitted(spec: InputSpec, looks: Sequence[DatasetSummary], pixels: ImageSpec) -> tuple[InputSpec, list[str]]:
    """The spec for the data, with the model's own frames; pixels as they are where no data is seen with it."""
    if isinstance(spec, SpectrogramSpec):
        if not looks:
            return spec, []
        silent = [sentence for look in looks for sentence in _without_sound(look)]
        return hearing(looks, _PATCH), silent
    if isinstance(spec, VideoSpec) and looks:
        return seeing(looks, pixels, spec.frames), []
    if isinstance(spec, RasterSpec):
        spec = replace(spec, size=pixels.size, short_side=pixels.short_side, mean=pixels.mean, std=pixels.std)
    return spec, []


def _without_sound(look: DatasetSummary) -> list[str]:
    """What to say of videos that have no sound track, where it is wanted."""
    if look.kind != "video":
        return []
    without = [record.path for record in look.looked_at if not _has_sound(record.path)]
    if len(without) == len(look.looked_at):
        raise ConfigError(
            f"{look.path}: none of the {len(without)} videos looked at has a sound track; name a model of videos "
            "alone, such as vivit-s/16x2-fe"
        )
    if not without:
        return []
    return [
        f"{len(without)} of the {len(look.looked_at)} videos looked at have no sound track, such as {without[0]}: they "
        "count as unreadable, and training stops at more than 1 % of those (--training.replace-budget 0.1)."
    ]


def _has_sound(path: str) -> bool:
    try:
        return probe(path).audio_channels > 0
    except MediaError:
        return False


def _with_specs(config: ModelConfig, specs: Mapping[str, InputSpec]) -> ModelConfig:
    """The same model for other inputs, by name."""
    match config, specs:
        case ViTConfig(), {"image": ImageSpec() as image}:
            return replace(config, image=image)
        case ASTConfig(), {"audio": SpectrogramSpec() as audio}:
            return replace(config, audio=audio)
        case ViViTConfig(), {"video": VideoSpec() as video}:
            return replace(config, video=video)
        case TubeViTConfig(), {"image": ImageSpec() as image, "video": VideoSpec() as video}:
            return replace(config, image=image, video=video)
        case TokenLearnerConfig(), _:
            return replace(config, spec=specs[config.input])
        case MTVConfig(), _:
            return replace(config, media=dict(specs))
        case PolyViTConfig() | MBTConfig(), _:
            modalities = {name: Modality(spec=specs[name], patch=m.patch) for name, m in config.modalities.items()}
            return replace(config, modalities=modalities)
        case _:
            raise TypeError(f"no way to give {config} other inputs")
