"""Which model the recipe ``folder`` trains on what it saw, and why, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import median

from tubelet.configs import ConfigError
from tubelet.data.kinds import Kind
from tubelet.models.ast import ASTConfig
from tubelet.models.model import ModelConfig
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import Backbone
from tubelet.nn.encoding import Pool
from tubelet.recipes.folder_look import Look, log_mel_scale, three_in_four
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.folder import load_model
from tubelet.weights.lanes import lanes

LONGEST = 3.0  # seconds of a clip at most
_FRAMES, _TUBELET = 16, 2
_LONGEST_SOUND = 8.0
# training examples below which a model from scratch has these layers and this width
_SIZES: dict[float, tuple[int, int]] = {2_000: (4, 192), 20_000: (12, 192), float("inf"): (12, 384)}
_ADAPTABLE = ViTConfig | ASTConfig | PolyViTConfig | ViViTConfig  # to other inputs; the rest is taken as it is
SPECS: dict[Kind, type[InputSpec]] = {"image": ImageSpec, "video": VideoSpec, "audio": SpectrogramSpec}


def choose_model(looks: Sequence[Look], init: str) -> tuple[ModelConfig, list[str]]:
    """A model for one folder, or a PolyViT for several, and what there is to say about it."""
    if init and not isinstance(config := load_model(init).config, _ADAPTABLE):
        return config, [f"Fine-tunes {init} as it is."]
    kinds: list[Kind] = [kind for kind in SPECS if any(look.kind == kind for look in looks)]
    plan, said = _weights(init, kinds, several=len(looks) > 1) if init else _scratch(looks)
    chosen = {kind: plan.modality(kind, looks) for kind in kinds}
    told = [said, *(sentence for _, sentence in chosen.values() if sentence)]
    modalities: dict[str, Modality] = {kind: modality for kind, (modality, _) in chosen.items()}
    if len(looks) > 1:
        return plan.together(modalities), told
    return plan.alone(kinds[0], modalities[kinds[0]]), told


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is the same for every modality. ``config``: the model that the weights to start from are, if any."""

    backbone: Backbone
    patch: tuple[int, int]
    pixels: ImageSpec
    pool: Pool = "token"
    config: ModelConfig | None = None

    def modality(self, kind: Kind, looks: Sequence[Look]) -> tuple[Modality, str]:
        """How a model sees files of ``kind``, and a sentence where that was chosen by looking at them."""
        for lane in lanes(self.config) if self.config else ():
            if isinstance(lane.spec, SPECS[kind]):
                return Modality(spec=lane.spec, patch=lane.patch), ""
        own = [look for look in looks if look.kind == kind]
        match kind:
            case "image":
                return Modality(spec=self.pixels, patch=(1, *self.patch)), ""
            case "video":
                spec, sentence = seeing(own, self.pixels, _FRAMES)
                return Modality(spec=spec, patch=(_TUBELET, *self.patch)), sentence
            case "audio":
                spec, sentence = hearing(own, self.patch[0])
                return Modality(spec=spec, patch=(1, *self.patch)), sentence

    def together(self, modalities: dict[str, Modality]) -> PolyViTConfig:
        own = self.config.adaptor_depth if isinstance(self.config, PolyViTConfig) else 0
        return PolyViTConfig(backbone=self.backbone, modalities=modalities, adaptor_depth=own, pool=self.pool)

    def alone(self, kind: Kind, modality: Modality) -> ModelConfig:
        """The weights' own model where it takes ``kind``; a video model from scratch or an image ViT is Model 2."""
        if isinstance(self.config, PolyViTConfig):
            return self.together({kind: modality})
        if self.config and _takes(self.config, kind):
            return self.config
        match modality.spec:
            case ImageSpec() as spec:
                return ViTConfig(backbone=self.backbone, patch=modality.patch[1:], image=spec, pool=self.pool)
            case SpectrogramSpec() as spec:
                return ASTConfig(backbone=self.backbone, patch=modality.patch[1:], audio=spec, pool=self.pool)
            case VideoSpec() as spec:
                config = ViViTConfig(backbone=self.backbone, tubelet=modality.patch, video=spec, pool=self.pool)
                if self.config is None:
                    return replace(config, attends="factorized_encoder", temporal_depth=2)
                return replace(config, attends="factorized_encoder") if isinstance(self.config, ViTConfig) else config


def _scratch(looks: Sequence[Look]) -> tuple[_Plan, str]:
    examples = sum(len(look.train) for look in looks)
    depth, width = next(size for most, size in _SIZES.items() if examples < most)
    backbone = Backbone(width=width, depth=depth, heads=width // 64, mlp=4 * width)
    said = f"From scratch, so a small model of {depth} layers and width {width} (init= starts from weights instead)."
    return _Plan(backbone=backbone, patch=(16, 16), pixels=pixels_of(None)), said


def _weights(init: str, kinds: Collection[Kind], *, several: bool) -> tuple[_Plan, str]:
    config = load_model(init).config
    as_it_is = not several and all(_takes(config, kind) for kind in kinds)
    if not (isinstance(config, _ADAPTABLE) and (as_it_is or _joint(config))):
        what, takes = " and ".join(kinds), " and ".join(config.inputs)
        raise ConfigError(
            f"init: {init} is a model of {takes} that cannot start one of {what}"
            f"{' for several folders' if several else ''}; an image ViT, an AST, a PolyViT or a ViViT of Model 1 can"
        )
    first = lanes(config)[0]
    plan = _Plan(
        backbone=config.backbone, patch=first.patch[1:], pixels=pixels_of(config), pool=config.pool, config=config
    )
    model = "a PolyViT" if several else "it is" if as_it_is else f"a model of {' and '.join(kinds)}"
    return plan, f"Fine-tunes {init} as {model}."


def _takes(config: ModelConfig, kind: Kind) -> bool:
    return any(isinstance(spec, SPECS[kind]) for spec in config.inputs.values())


def _joint(config: ModelConfig) -> bool:
    return not isinstance(config, ViViTConfig) or config.attends == "joint"


def pixels_of(config: ModelConfig | None) -> ImageSpec:
    """Pictures as the model's own pictures or videos are; small ones where it has none, or there is no model."""
    for spec in config.inputs.values() if config else ():
        if not isinstance(spec, SpectrogramSpec):
            return ImageSpec(size=spec.size, short_side=spec.short_side, mean=spec.mean, std=spec.std)
    return ImageSpec(size=(112, 112), short_side=128)


def seeing(looks: Sequence[Look], pixels: ImageSpec, frames: int) -> tuple[VideoSpec, str]:
    """Clips as long as the data's, up to a few seconds, at the frame rate that this takes."""
    seconds = min(median([length for look in looks for length in look.seconds]), LONGEST)
    spec = VideoSpec(
        frames=frames,
        stride=1,
        fps=round(frames / seconds, 2),
        size=pixels.size,
        short_side=pixels.short_side,
        mean=pixels.mean,
        std=pixels.std,
    )
    return spec, f"It sees {frames} frames over {seconds:.1f} s, {spec.size[0]} pixels square."


def hearing(looks: Sequence[Look], patch: int) -> tuple[SpectrogramSpec, str]:
    """A span that three in four of the data's sounds do not exceed, in whole patches, and their own scale."""
    seconds = min(three_in_four([length for look in looks for length in look.seconds]), _LONGEST_SOUND)
    spec = SpectrogramSpec(frames=patch * max(1, ceil(round(seconds / SpectrogramSpec().hop, 3) / patch)))
    mean, std = log_mel_scale(looks, spec)
    spec = replace(spec, mean=mean, std=std)
    return spec, f"It hears {spec.seconds:.2f} s, {spec.bins} mel bins, of mean {mean:g} and deviation {std:g}."
