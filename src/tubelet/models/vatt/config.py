"""VATT's configuration: a tower for each of video, sound and captions, or one transformer for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from tubelet.models.family import ModelConfig, Tower, all_subsets, block_modules
from tubelet.models.rollout import Maps, Shares, plain
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.positions import Grid
from tubelet.nn.tokenizers import Tubelet, grid_of
from tubelet.specs import ImageSpec, InputSpec, TextSpec, VideoSpec, WaveformSpec

if TYPE_CHECKING:
    from tubelet.models.vatt.encoder import VattEncoder


@dataclass(frozen=True, kw_only=True)
class Sense:
    """What is seen or heard: ``spec`` is cut into ``patch`` (t, h, w), for the transformer ``backbone``.

    (4, 16, 16) is 4 frames of 16x16 pixels; an image is repeated for each of the frames. A waveform's patch is
    (1, 1, samples), a spectrogram's (1, frames, bins). What fills no patch at the end is left out: the released code
    rounds down where the paper rounds up.
    """

    spec: InputSpec
    backbone: TransformerConfig
    patch: Tubelet = (4, 16, 16)

    def __post_init__(self) -> None:
        if isinstance(self.spec, TextSpec):
            raise ValueError("captions are Words or LinearWords, not a Sense")
        _ = self.grid

    @property
    def grid(self) -> Grid:
        """The tokens (t, h, w), each axis of which has a table of positions of that length."""
        frames, height, width = self.spec.extent
        return grid_of((self.patch[0] if isinstance(self.spec, ImageSpec) else frames, height, width), self.patch)

    @property
    def width(self) -> int:
        return self.backbone.width


@dataclass(frozen=True, kw_only=True)
class Words:
    """Captions, for a transformer: ``vectors`` is the width of the word vectors, which stay as they are unless
    ``learned``.

    ``buckets`` and ``farthest`` are those of the relative positions, which a text tower of its own has (see
    :class:`~tubelet.nn.relative_bias.RelativeBias`); in a transformer that all modalities share, each place of a
    caption has a learned position.
    """

    spec: TextSpec
    backbone: TransformerConfig
    vectors: int = 300
    learned: bool = False
    buckets: int = 32
    farthest: int = 64

    def __post_init__(self) -> None:
        if not 4 <= self.buckets <= 2 * self.farthest:
            raise ValueError(f"{self.buckets=} must be at least 4, and at most twice {self.farthest=}")

    @property
    def width(self) -> int:
        return self.backbone.width


@dataclass(frozen=True, kw_only=True)
class LinearWords:
    """Captions as in MMV (Alayrac et al. 2020): a linear map of each word vector, and the maximum over the words."""

    spec: TextSpec
    width: int = 2048
    vectors: int = 300
    learned: bool = False


Tokens = Sense | Words | LinearWords


def released(width: int, depth: int, heads: int, mlp: int) -> TransformerConfig:
    """A transformer with the released code's dropout and GELU."""
    return TransformerConfig(
        width=width, depth=depth, heads=heads, mlp=mlp, dropout=0.1, attention_dropout=0.1, gelu="exact"
    )


SMALL, BASE = released(512, 6, 8, 2048), released(768, 12, 12, 3072)
MEDIUM, LARGE = released(1024, 12, 16, 4096), released(1024, 24, 16, 4096)
TINY = released(192, 4, 3, 768)

_VIDEO = VideoSpec(frames=32, stride=1, fps=10.0, short_side=224)
_SOUND = WaveformSpec(samples=153_600)
_TINY_VIDEO = VideoSpec(frames=16, stride=1, size=(32, 32), short_side=32)
_TINY_SOUND = WaveformSpec(samples=16_000, rate=16_000)
_TINY_TEXT = TextSpec(ids=8192)


def _three(
    video: TransformerConfig, audio: TransformerConfig, text: TransformerConfig, *, tiny: bool = False
) -> dict[str, Tokens]:
    return {
        "video": Sense(spec=_TINY_VIDEO if tiny else _VIDEO, backbone=video, patch=(4, 8, 8) if tiny else (4, 16, 16)),
        "audio": Sense(spec=_TINY_SOUND if tiny else _SOUND, backbone=audio, patch=(1, 1, 128)),
        "text": Words(spec=_TINY_TEXT if tiny else TextSpec(), backbone=text, vectors=100 if tiny else 300),
    }


@dataclass(frozen=True, kw_only=True)
class VattConfig(ModelConfig):
    """``modalities``: what is taken, called "video" or "image", "audio" and "text"; any of them may be missing.

    ``projection`` > 0 is the modality-agnostic variant (Sec. 3.3): one transformer for all, of the backbone that all
    modalities then have. As released, each has a dense layer with a GELU before the positions, and one of width
    ``projection`` after the transformer.

    ``kept``: the share of the tokens of video and sound that DropToken keeps in training; the papers train on half,
    and fine-tune on all. ``position_dropout``: of the tokens with their positions; the released code always has 0.1.
    """

    examples = ("vatt-bbs", "vatt-mbs", "vatt-lbs", "vatt-ma-medium", "vatt-tiny", "vatt-ma-tiny")
    own = ("*.positions.*", "*.before.*", "*.after.*", "modalities.text.*")
    keep_apart = "start it from one modality by Init.into"

    modalities: dict[str, Tokens]
    projection: int = 0
    kept: float = 1.0
    position_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("modalities must name at least one")
        for name, modality in self.modalities.items():
            if name != modality.spec.modality:
                raise ValueError(f"modalities: {name!r} must be called {modality.spec.modality!r}, as its spec is")
        if not 0 < self.kept <= 1 or not 0 <= self.position_dropout < 1:
            raise ValueError(f"{self.kept=} must be in (0, 1], {self.position_dropout=} in [0, 1)")
        if self.shared and len({getattr(m, "backbone", None) for m in self.modalities.values()} | {None}) > 2:
            raise ValueError("with a projection all modalities share one transformer, and need the same backbone")
        if self.shared and any(isinstance(m, LinearWords) for m in self.modalities.values()):
            raise ValueError("LinearWords have no transformer to share: projection must be 0")

    @property
    def shared(self) -> bool:
        """Whether it is the modality-agnostic variant."""
        return self.projection > 0

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return {name: modality.spec for name, modality in self.modalities.items()}

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        """All modalities, and, as any may be missing, all smaller sets."""
        return all_subsets(self.modalities)

    @property
    def may_miss(self) -> bool:
        return len(self.modalities) > 1

    def width_of(self, name: str) -> int:
        """The width of a modality's pooled features."""
        return self.projection or self.modalities[name].width

    def build(self) -> VattEncoder:
        from tubelet.models.vatt.encoder import VattEncoder

        return VattEncoder(self)

    @property
    def kind(self) -> str:
        return "VATT"

    # Names -----------------------------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> VattConfig | None:
        """``vatt-bbs``, ``-mbs`` and ``-lbs``: video of the first letter's size, sound of the Base and text of the
        Small one (Sec. 4.1); ``vatt-ma-medium``: one Medium transformer for all; ``vatt-tiny`` and ``vatt-ma-tiny`` fit
        a laptop."""
        made: dict[str, VattConfig] = {
            "vatt-bbs": cls(modalities=_three(BASE, BASE, SMALL)),
            "vatt-mbs": cls(modalities=_three(MEDIUM, BASE, SMALL)),
            "vatt-lbs": cls(modalities=_three(LARGE, BASE, SMALL)),
            "vatt-ma-medium": cls(modalities=_three(MEDIUM, MEDIUM, MEDIUM), projection=1024),
            "vatt-tiny": cls(modalities=_three(TINY, TINY, replace(TINY, depth=2), tiny=True)),
            "vatt-ma-tiny": cls(modalities=_three(TINY, TINY, TINY, tiny=True), projection=192),
        }
        config = made.get(name)
        if config is None or not (frames or size):
            return config
        video = config.inputs["video"]
        assert isinstance(video, VideoSpec)
        side = (size, size) if size else video.size
        video = replace(video, frames=frames or video.frames, size=side, short_side=min(side))
        return config.with_inputs({**config.inputs, "video": video})

    def spelled(self) -> str | None:
        mine = _sizes(self.without_regularizers())
        for name in self.examples:
            named = type(self).parse(name)
            assert named is not None
            if _sizes(named.without_regularizers()) == mine:
                return name
        return None

    # Variations ------------------------------------------------------------------------------------------------------

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> VattConfig:
        return replace(self, modalities={name: replace(m, spec=specs[name]) for name, m in self.modalities.items()})

    def with_only(self, inputs: Iterable[str]) -> VattConfig:
        kept = set(inputs)
        return replace(self, modalities={name: m for name, m in self.modalities.items() if name in kept})

    def for_images(self, image: ImageSpec) -> VattConfig:
        """The tower of video alone, for images: each is repeated for the frames of a patch (Sec. 4.2.3)."""
        return replace(self, modalities={"image": replace(self.modalities["video"], spec=image)})

    def without_regularizers(self) -> VattConfig:
        plain = super().without_regularizers()
        assert isinstance(plain, VattConfig)
        return replace(plain, kept=1.0, position_dropout=0.0)

    # Starting from weights and explanations --------------------------------------------------------------------------

    def towers(self) -> tuple[Tower, ...]:
        """A tower for each modality. What plain models have otherwise (the tables of positions, the tokenizer of
        waveforms) has names of its own."""
        return tuple(
            Tower(name, m.spec, m.patch if isinstance(m, Sense) else (1, 1, 1), m.backbone, self._modules(name))
            for name, m in self.modalities.items()
            if not isinstance(m, LinearWords)
        )

    def fresh_from(self, source: ModelConfig) -> tuple[str, ...]:
        """Of other models also the tokenizer of waveforms, which none of them has."""
        waves = (f"modalities.{n}.tokenizer.*" for n, spec in self.inputs.items() if isinstance(spec, WaveformSpec))
        fresh = super().fresh_from(source)
        return (*fresh, *waves) if fresh else ()

    def _modules(self, name: str) -> dict[str, str]:
        modality, prefix = self.modalities[name], f"modalities.{name}"
        stack = "shared" if self.shared else f"{prefix}.transformer"
        assert not isinstance(modality, LinearWords)
        entry = "words" if isinstance(modality, Words) else "tokenizer"
        own = ["bias"] if isinstance(modality, Words) and not self.shared else []
        return {
            "wave" if isinstance(modality.spec, WaveformSpec) else entry: f"{prefix}.{entry}",
            "cls": f"{prefix}.agg",
            **{part: f"{prefix}.{part}" for part in ("before", "after", *own)},
            "axes": f"{prefix}.positions",
            **block_modules(f"{stack}.blocks", modality.backbone.depth),
            "norm": f"{stack}.norm",
        }

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        """The modalities do not look at each other: all shares are of the first one that was given, whose features are
        the result."""
        modality = self.modalities[input]
        if not isinstance(modality, Sense):
            raise TypeError("attention rollout is not written for captions, of which an example has several")
        names = [name for name in self.modalities if name in (given or (input,))]
        first = "shared." if self.shared else f"modalities.{names[0]}."
        seen = {name: x for name, x in maps.items() if name.startswith(first) and ":" not in name}
        if input != names[0]:
            return torch.zeros(len(next(iter(seen.values()))), *modality.grid)
        return plain(seen, modality.grid)


def _sizes(config: VattConfig) -> dict[str, dict[str, Any]]:
    """What a name says of each modality: all but the lengths and sizes in its spec."""
    return {
        name: {f.name: getattr(m, f.name) for f in fields(m) if f.name != "spec"} | {"spec": type(m.spec)}
        for name, m in config.modalities.items()
    }
