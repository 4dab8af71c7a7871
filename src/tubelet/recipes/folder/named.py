"""A model that the recipe ``folder`` is given by name, fitted to the data: frame rate, pixels, sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tubelet.configs import ConfigError
from tubelet.data.kinds import Kind
from tubelet.media.errors import MediaError
from tubelet.media.info import probe
from tubelet.models import ModelConfig, model_config
from tubelet.recipes.folder.data import DatasetSummary
from tubelet.recipes.folder.model import Start, audio_spec_for, pixels_of, video_spec_for
from tubelet.specs import ImageSpec, InputSpec, RasterSpec, SpectrogramSpec, VideoSpec

_PATCH = 16  # windows of sound that every name's patches fill
_NAMES: dict[Kind, str] = {"image": "vit-s/16", "video": "vivit-s/16x2-fe or mtv-s/2+ti/4", "audio": "ast-s/16"}
_GIVES: dict[Kind, tuple[Kind, ...]] = {"image": ("image",), "video": ("video", "audio"), "audio": ("audio",)}


def named_model(name: str, summaries: Sequence[DatasetSummary], start: Start | None) -> tuple[ModelConfig, list[str]]:
    """The model called ``name``, fitted to the data, and sentences about it.

    Raises ConfigError where no model has the name, or where it does not take such files.
    """
    try:
        config = model_config(name)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    inputs = {data.path: task_inputs(config, data, name) for data in summaries}
    used = {key for keys in inputs.values() for key in keys}
    config = config.with_only(used)
    pixels = pixels_of(start.config if start else None)
    said = [f"{name}{f', started from {start.source}' if start else ', from scratch'}."]
    specs: dict[str, InputSpec] = {}
    for key, spec in config.inputs.items():
        specs[key], sentences = _fitted(spec, [data for data in summaries if key in inputs[data.path]], pixels)
        said += sentences
    return config.with_inputs(specs), said


def task_inputs(config: ModelConfig, data: DatasetSummary, who: str) -> tuple[str, ...]:
    """The inputs that a model takes from a folder's files: of videos also their sound, if it takes both together."""
    given = _GIVES[data.kind]
    fitting = [names for names in config.input_sets if all(config.inputs[name].modality in given for name in names)]
    if not fitting:
        takes = ", or ".join(" and ".join(names) for names in config.input_sets)
        raise ConfigError(
            f"model: {who} takes {takes}, and {data.path} holds files of kind {data.kind!r}, for which there is "
            f"{_NAMES[data.kind]}, or, together with other kinds, polyvit-s/16x4"
        )
    return max(fitting, key=lambda names: (any(config.inputs[n].modality == data.kind for n in names), len(names)))


def _fitted(spec: InputSpec, summaries: Sequence[DatasetSummary], pixels: ImageSpec) -> tuple[InputSpec, list[str]]:
    """The spec for the data, with the model's own number of frames. Without data for it, only the pixels change."""
    if isinstance(spec, SpectrogramSpec):
        if not summaries:
            return spec, []
        silent = [sentence for data in summaries for sentence in _without_sound(data)]
        return audio_spec_for(summaries, _PATCH), silent
    if isinstance(spec, VideoSpec) and summaries:
        return video_spec_for(summaries, pixels, spec.frames), []
    if isinstance(spec, RasterSpec):
        spec = replace(spec, size=pixels.size, short_side=pixels.short_side, mean=pixels.mean, std=pixels.std)
    return spec, []


def _without_sound(data: DatasetSummary) -> list[str]:
    """A warning about videos without a sound track, for a model that needs one."""
    if data.kind != "video":
        return []
    without = [record.path for record in data.looked_at if not _has_sound(record.path)]
    if len(without) == len(data.looked_at):
        raise ConfigError(
            f"{data.path}: none of the {len(without)} videos looked at has a sound track; name a model of videos "
            "alone, such as vivit-s/16x2-fe"
        )
    if not without:
        return []
    return [
        f"{len(without)} of the {len(data.looked_at)} videos looked at have no sound track, such as {without[0]}: they "
        "count as unreadable, and training stops at more than 1 % of those (--training.replace-budget 0.1)."
    ]


def _has_sound(path: str) -> bool:
    try:
        return probe(path).audio_channels > 0
    except MediaError:
        return False
