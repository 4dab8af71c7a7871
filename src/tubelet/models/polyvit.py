"""PolyViT: one transformer for images, video and audio (Likhosherstov et al. 2021, Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor, nn

from tubelet.models.family import PATCH_NAME, SIZES, ModelConfig, Tower, block_modules, matched, refuse, size_letters
from tubelet.models.model import Encoder
from tubelet.models.rollout import Maps, Shares, plain
from tubelet.nn.blocks import Stack, Transformer, TransformerConfig
from tubelet.nn.encoding import Pool, TokenSequence
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer, grid_of
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec


@dataclass(frozen=True, kw_only=True)
class Modality:
    """An input and how it is cut: ``patch`` is (t, h, w), t = 1 for images and for spectrograms, (1, frames, bins)."""

    spec: InputSpec
    patch: Tubelet = (1, 16, 16)

    def __post_init__(self) -> None:
        grid_of(self.spec.extent, self.patch)

    @property
    def grid(self) -> Grid:
        """The tokens (t, h, w)."""
        return grid_of(self.spec.extent, self.patch)


def with_specs(modalities: Mapping[str, Modality], specs: Mapping[str, InputSpec]) -> dict[str, Modality]:
    """The modalities with other specs, by name."""
    return {name: replace(modality, spec=specs[name]) for name, modality in modalities.items()}


@dataclass(frozen=True, kw_only=True)
class PolyViTConfig(ModelConfig):
    """``backbone``: L layers, of which the first ``adaptor_depth`` (L_adapt) are each modality's own.

    ``modalities``: by the name of the input. A single one makes a ViT, an AST or ViViT's Model 1.
    """

    examples = ("polyvit-b/16x4",)
    keep_apart = "the model's adaptor_depth must be at least the source's"

    backbone: TransformerConfig
    modalities: dict[str, Modality]
    adaptor_depth: int = 0
    pool: Pool = "token"

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("modalities must name at least one")
        if not 0 <= self.adaptor_depth <= self.backbone.depth:
            raise ValueError(f"{self.adaptor_depth=} must be between 0 and {self.backbone.depth=}, the layers in all")

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return {name: modality.spec for name, modality in self.modalities.items()}

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        return tuple((name,) for name in self.modalities)

    def build(self) -> PolyViT:
        return PolyViT(self)

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> PolyViTConfig | None:
        """``polyvit-b/16x4``: images, audio and, in tubelets of 16x16 pixels and 4 frames, video, as in Table 7."""
        if (match := matched(rf"polyvit-{PATCH_NAME}x(?P<t>\d+)", name)) is None:
            return None
        refuse(name, "a model of several modalities", frames=frames, size=size)
        patch = int(match["patch"])
        return cls(
            backbone=SIZES[match["size"]],
            modalities={
                "image": Modality(spec=ImageSpec(size=(384, 384), short_side=384), patch=(1, patch, patch)),
                "video": Modality(spec=VideoSpec(), patch=(int(match["t"]), patch, patch)),
                "audio": Modality(spec=SpectrogramSpec(), patch=(1, patch, patch)),
            },
        )

    def spelled(self) -> str | None:
        video = self.modalities.get("video")
        return f"polyvit-{size_letters(self.backbone)}/{video.patch[1]}x{video.patch[0]}" if video else None

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> PolyViTConfig:
        return replace(self, modalities=with_specs(self.modalities, specs))

    def with_only(self, inputs: Iterable[str]) -> PolyViTConfig:
        kept = set(inputs)
        return replace(self, modalities={name: m for name, m in self.modalities.items() if name in kept})

    def towers(self) -> tuple[Tower, ...]:
        return tuple(
            Tower(name, m.spec, m.patch, self.backbone, self._modules(f"modalities.{name}"), pool=self.pool)
            for name, m in self.modalities.items()
        )

    def _modules(self, modality: str) -> dict[str, str]:
        own = self.adaptor_depth
        return {
            "tokenizer": f"{modality}.tokenizer",
            "cls": f"{modality}.cls",
            "positions": f"{modality}.positions",
            **block_modules(f"{modality}.adaptor.blocks", own),
            **block_modules("transformer.blocks", self.backbone.depth, first=own),
            "norm": "transformer.norm",
        }

    @property
    def is_plain(self) -> bool:
        return True

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        return plain(maps, self.modalities[input].grid)


class PolyViT(Encoder):
    """Modality-specific tokenizers and adaptors, then a transformer that all tasks share (Fig. 1).

    A forward pass takes one modality: with L layers it is an L-layer ViT on images, AST on audio and ViViT on video.
    """

    def __init__(self, config: PolyViTConfig) -> None:
        super().__init__(config, config.backbone.width)
        self.modalities = nn.ModuleDict(
            {name: ModalityTokenizer(modality, config) for name, modality in config.modalities.items()}
        )
        self.transformer = Transformer(config.backbone, first=config.adaptor_depth)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        if len(inputs) != 1:
            raise ValueError(f"PolyViT takes one modality at a time, not {', '.join(inputs) or 'none'}")
        ((name, x),) = inputs.items()
        modality = cast("ModalityTokenizer", self.modalities[name])
        z, grid = modality(x)
        return modality.features(self.transformer(z), grid)


class ModalityTokenizer(TokenSequence):
    """z_cls, E and p of one modality, and its L_adapt adaptor layers: "a deeper subnetwork to extract tokens"."""

    def __init__(self, modality: Modality, config: PolyViTConfig) -> None:
        super().__init__(config.backbone, modality.grid, config.pool)
        self.tokenizer = TubeletTokenizer(modality.patch, config.backbone.width, modality.spec.channels)
        self.adaptor = Stack(config.backbone, end=config.adaptor_depth)

    def forward(self, x: Tensor) -> tuple[Tensor, Grid]:
        """The sequence for the shared layers, and the (t, h, w) grid of its tokens."""
        tokens = self.tokenizer(x)
        return self.adaptor(self.sequence(tokens)), (tokens.shape[1], tokens.shape[2], tokens.shape[3])
