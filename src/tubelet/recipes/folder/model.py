"""The model that the recipe ``folder`` trains, chosen for the data, and why, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import median, quantiles
from typing import TypeVar

from tubelet.configs import ConfigError
from tubelet.data.kinds import Kind
from tubelet.models import Modality, ModelConfig, PolyViTConfig, ViTConfig, ViViTConfig, plain_model
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.recipes.folder.data import DatasetSummary, log_mel_scale, spread
from tubelet.specs import ImageSpec, InputSpec, RasterSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.folder import load_model

LONGEST = 3.0  # seconds of a clip at most
_FRAMES, _TUBELET = 16, 4
_NATIVE = 40  # pixels up to which a picture keeps its own size
_PICTURE, _VIDEO = 64, 48  # pixels of the short side of what is larger
_SHRINKS = 96  # pixels of the short side above which a pretrained model may get smaller pictures than its own
_SHARES = (0.25, 0.375, 0.5, 0.75, 1.0)  # of its own short side
_ENLARGED = 4.0  # times the short side of the files, at most: beyond that nothing is seen that was not seen before
_FLATTEST = 2.0  # the longer side over the shorter one, at most
_WORD = 2.0  # seconds up to which sounds count as words: each is stretched to the same number of frames
_WORD_FRAMES, _WORD_BINS, _WORD_SLICE = 40, 40, 2
_LONGEST_SOUND = 8.0
_SOUND_TOKENS, _SOUND_BINS = 64, 64
_LOUDNESS = -25.0  # decibels
Spec = TypeVar("Spec", bound=InputSpec)
_KINDS: tuple[Kind, ...] = ("image", "video", "audio")


def backbone(size: str) -> TransformerConfig:
    """A stack of "WIDTHxDEPTH", such as 128x4, with heads of 32 channels."""
    width, times, depth = size.partition("x")
    if not (times and width.isdecimal() and depth.isdecimal() and int(width) % 32 == 0 and int(width) and int(depth)):
        raise ConfigError(f"size: {size!r} is not WIDTHxDEPTH with a width in steps of 32, such as 128x4 or 192x6")
    return TransformerConfig(
        width=int(width), depth=int(depth), heads=int(width) // 32, mlp=4 * int(width), start="mimetic"
    )


@dataclass(frozen=True)
class Start:
    """The weights to start from: their ``source`` and ``config``, and whether they have a task's head."""

    source: str
    config: ModelConfig
    has_head: bool

    @classmethod
    def read(cls, source: str) -> Start:
        loaded = load_model(source)
        return cls(source, loaded.config, bool(loaded.tasks))


def choose_model(summaries: Sequence[DatasetSummary], start: Start | None, size: str) -> tuple[ModelConfig, list[str]]:
    """A model for one folder, or a PolyViT for several, and sentences about it.

    ``size``: "WIDTHxDEPTH" of a model from scratch; with weights, the short side of pictures and clips in pixels, which
    are then taken whole; those of the weights, if empty.
    """
    kinds: list[Kind] = [kind for kind in _KINDS if any(data.kind == kind for data in summaries)]
    if start and not start.config.is_plain:
        takes_several = len(summaries) == 1 or len(start.config.inputs) > 1
        if takes_several and all(_takes(start.config, kind) for kind in kinds):
            return start.config, [f"Fine-tunes {start.source} as it is."]
    if start:
        plan, said = _weights(start, kinds, size, several=len(summaries) > 1)
    else:
        plan, said = _Plan(backbone=backbone(size), pool="mean"), []
    modalities: dict[str, Modality] = {kind: plan.modality(kind, summaries) for kind in kinds}
    if len(summaries) > 1:
        return plan.together(modalities), said
    return plan.alone(kinds[0], modalities[kinds[0]]), said


def sizes_of(config: ModelConfig, summaries: Sequence[DatasetSummary]) -> list[str]:
    """The short sides in pixels that a model from weights may be given, the smallest first; none if it keeps its own:
    that of sounds, of other than plain models, and of small pictures. Small files are not enlarged beyond ``_ENLARGED``
    where a smaller size will do."""
    own = next((spec for spec in config.inputs.values() if isinstance(spec, RasterSpec)), None)
    if own is None or not config.is_plain or min(own.size) <= _SHRINKS or {s.kind for s in summaries} == {"audio"}:
        return []
    patch = config.towers()[0].patch[1]
    sides = list(dict.fromkeys(patch * max(2, round(share * min(own.size) / patch)) for share in _SHARES))
    most = _ENLARGED * max(min(s.height, s.height * s.aspect) for s in summaries if s.sizes)
    return [str(side) for side in sides if side == sides[0] or side <= most]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What all modalities share. ``config``: the model of the pretrained weights, if any; ``patch`` and ``pixels``:
    those of its pictures. ``has_head``: whether the weights have a task's. ``short``: the short side of pictures and
    clips, if not the weights' own.
    """

    backbone: TransformerConfig
    pool: Pool
    patch: tuple[int, int] | None = None
    pixels: ImageSpec | None = None
    config: ModelConfig | None = None
    has_head: bool = False
    short: int = 0

    def modality(self, kind: Kind, summaries: Sequence[DatasetSummary]) -> Modality:
        """The input and patch size for files of ``kind``."""
        own = [data for data in summaries if data.kind == kind]
        for tower in self.config.towers() if self.config else ():
            if tower.spec.modality == kind:
                return Modality(spec=self._sized(tower.spec, own), patch=tower.patch)
        match kind:
            case "image":
                pixels, patch = self._pixels(own, _PICTURE, fine=4)
                return Modality(spec=pixels, patch=(1, *patch))
            case "video":
                pixels, patch = self._pixels(own, _VIDEO, fine=8)
                return Modality(spec=video_spec_for(own, pixels, _FRAMES), patch=(_TUBELET, *patch))
            case "audio":
                if self.patch is None:
                    return audio_slices_for(own)
                return Modality(spec=audio_spec_for(own, self.patch[0]), patch=(1, *self.patch))

    def _pixels(self, summaries: Sequence[DatasetSummary], large: int, fine: int) -> tuple[ImageSpec, tuple[int, int]]:
        if self.patch is not None and self.pixels is not None:
            return self._sized(self.pixels, summaries), self.patch
        return whole_pictures(summaries, large, fine)

    def _sized(self, spec: Spec, summaries: Sequence[DatasetSummary]) -> Spec:
        if not (self.short and self.patch and isinstance(spec, RasterSpec)):
            return spec
        size = whole_size(summaries, self.short, self.patch)
        return replace(spec, size=size, short_side=min(size), fit="stretch")

    def together(self, modalities: dict[str, Modality]) -> PolyViTConfig:
        own = self.config.adaptor_depth if isinstance(self.config, PolyViTConfig) else 0
        return PolyViTConfig(backbone=self.backbone, modalities=modalities, adaptor_depth=own, pool=self.pool)

    def alone(self, kind: Kind, modality: Modality) -> ModelConfig:
        """The pretrained model itself if it takes ``kind``.

        An image ViT without a head is read by its class token and the mean of its patches, as by DINOv2's classifiers.
        A video model from an image ViT is Model 2 and begins as the mean of its frames' features.
        """
        if isinstance(self.config, PolyViTConfig):
            return self.together({kind: modality})
        if self.config and _takes(self.config, kind):
            names = [name for name, spec in self.config.inputs.items() if spec.modality == kind]
            made = self.config.with_inputs(dict.fromkeys(names, modality.spec))
            bare = isinstance(made, ViTConfig) and made.pool == "token" and not (made.representation or self.has_head)
            return replace(made, pool="token+mean") if bare else made
        from_pictures = self.config is not None and set(self.config.inputs) == {"image"}
        made = plain_model(modality.spec, modality.patch, self.backbone, self.pool, factorized=from_pictures)
        return replace(made, temporal_pool="mean") if from_pictures and isinstance(made, ViViTConfig) else made


def _weights(start: Start, kinds: Collection[Kind], size: str, *, several: bool) -> tuple[_Plan, list[str]]:
    config = start.config
    as_it_is = not several and all(_takes(config, kind) for kind in kinds)
    if not config.is_plain:
        what, takes = " and ".join(kinds), " and ".join(config.inputs)
        raise ConfigError(
            f"init: {start.source} is a model of {takes} that cannot start one of {what}"
            f"{' for several folders' if several else ''}; an image ViT, an AST, a PolyViT or a ViViT of Model 1 can"
        )
    if size and not size.isdecimal():
        raise ConfigError(f"size: {size!r} is that of a model from scratch; with --init it is pixels, such as 112")
    first, *_ = config.towers()
    plan = _Plan(
        backbone=first.backbone,
        patch=first.patch[1:],
        pixels=pixels_of(config),
        pool=first.pool,
        config=config,
        has_head=start.has_head,
        short=int(size or 0),
    )
    model = "a PolyViT" if several else "it is" if as_it_is else f"a model of {' and '.join(kinds)}"
    return plan, [f"Fine-tunes {start.source} as {model}."]


def _takes(config: ModelConfig, kind: Kind) -> bool:
    return any(spec.modality == kind for spec in config.inputs.values())


def pixels_of(config: ModelConfig | None) -> ImageSpec:
    """Pictures in the format of the model's own pictures or videos; small ones if there are none, or no model."""
    for spec in config.inputs.values() if config else ():
        if isinstance(spec, RasterSpec):
            return ImageSpec(size=spec.size, short_side=spec.short_side, mean=spec.mean, std=spec.std)
    return ImageSpec(size=(112, 112), short_side=128)


def whole_pictures(summaries: Sequence[DatasetSummary], large: int, fine: int) -> tuple[ImageSpec, tuple[int, int]]:
    """The size of whole, stretched pictures, and of their patches.

    Small pictures keep their size; others get ``large`` pixels on their short side. The side of the patches is 8 pixels
    for large pictures, ``fine`` for small ones, and 2 to 4 for tiny ones.
    """
    height, own = median(data.height for data in summaries), median(data.aspect for data in summaries)
    native = min(height, height * own)
    short = round(native) if native <= _NATIVE else large
    patch = 8 if short > _NATIVE else fine if short >= 4 * fine else 4 if short >= 16 else 2
    size = whole_size(summaries, short, (patch, patch))
    return ImageSpec(size=size, short_side=min(size), fit="stretch"), (patch, patch)


def whole_size(summaries: Sequence[DatasetSummary], short: int, patch: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in whole patches, of the data's proportions, up to twice as long as wide; the short side is about
    ``short`` pixels."""
    aspect = min(max(median(data.aspect for data in summaries), 1 / _FLATTEST), _FLATTEST)
    height, width = short / min(1.0, aspect), short * max(1.0, aspect)
    h, w = patch
    return h * max(2, round(height / h)), w * max(2, round(width / w))


def video_spec_for(summaries: Sequence[DatasetSummary], pixels: ImageSpec, frames: int) -> VideoSpec:
    """Clips as long as the data's, up to a few seconds, at the frame rate that gives ``frames`` frames."""
    seconds = min(median([length for data in summaries for length in data.seconds]), LONGEST)
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


def audio_slices_for(summaries: Sequence[DatasetSummary]) -> Modality:
    """Sound at one loudness, cut into slices of time with all their bins, which suit short sounds better than squares.

    If nine in ten sounds are no longer than a word, each is stretched to the same number of frames.
    """
    *_, high = spread([length for data in summaries for length in data.seconds])
    if high <= _WORD:
        spec = SpectrogramSpec(
            frames=_WORD_FRAMES,
            bins=_WORD_BINS,
            fft=512,
            low=60.0,
            loudness=_LOUDNESS,
            stretch=max(0.1, round(1.2 * high, 2)),
        )
        return Modality(spec=_scaled(summaries, spec), patch=(1, _WORD_SLICE, spec.bins))
    seconds = min(max(three_in_four([length for data in summaries for length in data.seconds]), _WORD), _LONGEST_SOUND)
    slice_ = max(1, round(seconds / SpectrogramSpec().hop / _SOUND_TOKENS))
    frames = slice_ * max(1, round(seconds / SpectrogramSpec().hop / slice_))
    spec = _scaled(summaries, SpectrogramSpec(frames=frames, bins=_SOUND_BINS, low=40.0, loudness=_LOUDNESS))
    return Modality(spec=spec, patch=(1, slice_, spec.bins))


def three_in_four(seconds: Sequence[float]) -> float:
    """The 75th percentile."""
    return quantiles(seconds, n=4, method="inclusive")[2] if len(seconds) > 1 else seconds[0]


def _scaled(summaries: Sequence[DatasetSummary], spec: SpectrogramSpec) -> SpectrogramSpec:
    mean, std = log_mel_scale(summaries, spec)
    return replace(spec, mean=mean, std=std)


def audio_spec_for(summaries: Sequence[DatasetSummary], patch: int) -> SpectrogramSpec:
    """A span that covers three in four of the data's sounds, in whole patches, with their own mean and deviation."""
    seconds = min(three_in_four([length for data in summaries for length in data.seconds]), _LONGEST_SOUND)
    frames = patch * max(1, ceil(round(seconds / SpectrogramSpec().hop, 3) / patch))
    return _scaled(summaries, SpectrogramSpec(frames=frames, loudness=_LOUDNESS))
