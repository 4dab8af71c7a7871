"""Which model the recipe ``folder`` trains on what it saw, and why, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import median, quantiles

from tubelet.configs import ConfigError
from tubelet.data.kinds import Kind
from tubelet.models.ast import ASTConfig
from tubelet.models.model import ModelConfig
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.recipes.folder.look import DatasetSummary, log_mel_scale, spread
from tubelet.specs import ImageSpec, RasterSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.folder import load_model
from tubelet.weights.lanes import lanes

LONGEST = 3.0  # seconds of a clip at most
_FRAMES, _TUBELET = 16, 4
_NATIVE = 40  # pixels up to which a picture keeps its own size
_PICTURE, _VIDEO = 64, 48  # pixels of the short side of what is larger
_FLATTEST = 2.0  # the longer side over the shorter one, at most
_WORD = 2.0  # seconds up to which sounds count as words: each is stretched to the same number of frames
_WORD_FRAMES, _WORD_BINS, _WORD_SLICE = 40, 40, 2
_LONGEST_SOUND = 8.0
_SOUND_TOKENS, _SOUND_BINS = 64, 64
_LOUDNESS = -25.0  # decibels
_ADAPTABLE = ViTConfig | ASTConfig | PolyViTConfig | ViViTConfig  # to other inputs; the rest is taken as it is
_KINDS: tuple[Kind, ...] = ("image", "video", "audio")


def backbone(size: str) -> TransformerConfig:
    """A stack of "WIDTHxDEPTH", such as 128x4, with heads of 32 channels."""
    width, times, depth = size.partition("x")
    if not (times and width.isdecimal() and depth.isdecimal() and int(width) % 32 == 0 and int(width) and int(depth)):
        raise ConfigError(f"size: {size!r} is not WIDTHxDEPTH with a width in steps of 32, such as 128x4 or 192x6")
    return TransformerConfig(
        width=int(width), depth=int(depth), heads=int(width) // 32, mlp=4 * int(width), start="mimetic"
    )


def choose_model(looks: Sequence[DatasetSummary], init: str, size: str) -> tuple[ModelConfig, list[str]]:
    """A model for one folder, or a PolyViT for several, and what there is to say about it.

    ``size``: "WIDTHxDEPTH" of a model from scratch; weights to start from have their own.
    """
    if init and not isinstance(config := load_model(init).config, _ADAPTABLE):
        return config, [f"Fine-tunes {init} as it is."]
    kinds: list[Kind] = [kind for kind in _KINDS if any(look.kind == kind for look in looks)]
    if init:
        plan, said = _weights(init, kinds, several=len(looks) > 1)
    else:
        plan, said = _Plan(backbone=backbone(size), pool="mean"), []
    modalities: dict[str, Modality] = {kind: plan.modality(kind, looks) for kind in kinds}
    if len(looks) > 1:
        return plan.together(modalities), said
    return plan.alone(kinds[0], modalities[kinds[0]]), said


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is the same for every modality. ``config``: the model that the weights to start from are, if any, and the
    ``patch`` and ``pixels`` of its pictures."""

    backbone: TransformerConfig
    pool: Pool
    patch: tuple[int, int] | None = None
    pixels: ImageSpec | None = None
    config: ModelConfig | None = None

    def modality(self, kind: Kind, looks: Sequence[DatasetSummary]) -> Modality:
        """How a model sees files of ``kind``."""
        for lane in lanes(self.config) if self.config else ():
            if lane.spec.modality == kind:
                return Modality(spec=lane.spec, patch=lane.patch)
        own = [look for look in looks if look.kind == kind]
        match kind:
            case "image":
                pixels, patch = self._pixels(own, _PICTURE, fine=4)
                return Modality(spec=pixels, patch=(1, *patch))
            case "video":
                pixels, patch = self._pixels(own, _VIDEO, fine=8)
                return Modality(spec=seeing(own, pixels, _FRAMES), patch=(_TUBELET, *patch))
            case "audio":
                if self.patch is None:
                    return hearing_slices(own)
                return Modality(spec=hearing(own, self.patch[0]), patch=(1, *self.patch))

    def _pixels(self, looks: Sequence[DatasetSummary], large: int, fine: int) -> tuple[ImageSpec, tuple[int, int]]:
        if self.patch is not None and self.pixels is not None:
            return self.pixels, self.patch
        return whole_pictures(looks, large, fine)

    def together(self, modalities: dict[str, Modality]) -> PolyViTConfig:
        own = self.config.adaptor_depth if isinstance(self.config, PolyViTConfig) else 0
        return PolyViTConfig(backbone=self.backbone, modalities=modalities, adaptor_depth=own, pool=self.pool)

    def alone(self, kind: Kind, modality: Modality) -> ModelConfig:
        """The weights' own model where it takes ``kind``; a video model from an image ViT is Model 2."""
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
                return (
                    replace(config, attention_type="factorized_encoder")
                    if isinstance(self.config, ViTConfig)
                    else config
                )
            case spec:
                raise ConfigError(f"init: no model of {type(spec).__name__} alone; name one with --model")


def _weights(init: str, kinds: Collection[Kind], *, several: bool) -> tuple[_Plan, list[str]]:
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
    return plan, [f"Fine-tunes {init} as {model}."]


def _takes(config: ModelConfig, kind: Kind) -> bool:
    return any(spec.modality == kind for spec in config.inputs.values())


def _joint(config: ModelConfig) -> bool:
    return not isinstance(config, ViViTConfig) or config.attention_type == "joint"


def pixels_of(config: ModelConfig | None) -> ImageSpec:
    """Pictures as the model's own pictures or videos are; small ones where it has none, or there is no model."""
    for spec in config.inputs.values() if config else ():
        if isinstance(spec, RasterSpec):
            return ImageSpec(size=spec.size, short_side=spec.short_side, mean=spec.mean, std=spec.std)
    return ImageSpec(size=(112, 112), short_side=128)


def whole_pictures(looks: Sequence[DatasetSummary], large: int, fine: int) -> tuple[ImageSpec, tuple[int, int]]:
    """Small pictures at their own size, others with ``large`` pixels on their short side, always the whole picture; and
    the side of the patches: 8 pixels of large pictures, ``fine`` of small ones, 2 of tiny ones."""
    height, own = median(look.height for look in looks), median(look.aspect for look in looks)
    aspect = min(max(own, 1 / _FLATTEST), _FLATTEST)
    native = min(height, height * own)
    short = round(native) if native <= _NATIVE else large
    patch = 8 if short > _NATIVE else fine if short >= 4 * fine else 4 if short >= 16 else 2
    sides = (short / min(1.0, aspect), short * max(1.0, aspect))
    size = tuple(patch * max(2, round(side / patch)) for side in sides)
    assert len(size) == 2
    return ImageSpec(size=size, short_side=min(size), fit="stretch"), (patch, patch)


def seeing(looks: Sequence[DatasetSummary], pixels: ImageSpec, frames: int) -> VideoSpec:
    """Clips as long as the data's, up to a few seconds, at the frame rate that this takes."""
    seconds = min(median([length for look in looks for length in look.seconds]), LONGEST)
    return VideoSpec(
        frames=frames,
        stride=1,
        fps=round(frames / seconds, 2),
        size=pixels.size,
        short_side=pixels.short_side,
        fit=pixels.fit,
        mean=pixels.mean,
        std=pixels.std,
    )


def hearing_slices(looks: Sequence[DatasetSummary]) -> Modality:
    """Sound of one loudness in slices of time with all their bins, which tell more of short sounds than squares do.

    Where nine in ten are no longer than a word, each is stretched to the same number of frames.
    """
    *_, high = spread([length for look in looks for length in look.seconds])
    if high <= _WORD:
        spec = SpectrogramSpec(
            frames=_WORD_FRAMES,
            bins=_WORD_BINS,
            fft=512,
            low=60.0,
            loudness=_LOUDNESS,
            stretch=max(0.1, round(1.2 * high, 2)),
        )
        return Modality(spec=_scaled(looks, spec), patch=(1, _WORD_SLICE, spec.bins))
    seconds = min(max(three_in_four([length for look in looks for length in look.seconds]), _WORD), _LONGEST_SOUND)
    slice_ = max(1, round(seconds / SpectrogramSpec().hop / _SOUND_TOKENS))
    frames = slice_ * max(1, round(seconds / SpectrogramSpec().hop / slice_))
    spec = _scaled(looks, SpectrogramSpec(frames=frames, bins=_SOUND_BINS, low=40.0, loudness=_LOUDNESS))
    return Modality(spec=spec, patch=(1, slice_, spec.bins))


def three_in_four(seconds: Sequence[float]) -> float:
    """The length that three files in four do not exceed."""
    return quantiles(seconds, n=4, method="inclusive")[2] if len(seconds) > 1 else seconds[0]


def _scaled(looks: Sequence[DatasetSummary], spec: SpectrogramSpec) -> SpectrogramSpec:
    mean, std = log_mel_scale(looks, spec)
    return replace(spec, mean=mean, std=std)


def hearing(looks: Sequence[DatasetSummary], patch: int) -> SpectrogramSpec:
    """A span that three in four of the data's sounds do not exceed, in whole patches, and their own scale."""
    seconds = min(three_in_four([length for look in looks for length in look.seconds]), _LONGEST_SOUND)
    frames = patch * max(1, ceil(round(seconds / SpectrogramSpec().hop, 3) / patch))
    return _scaled(looks, SpectrogramSpec(frames=frames, loudness=_LOUDNESS))
