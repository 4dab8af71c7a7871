"""PolyViT: one transformer for images, video and audio (Likhosherstov et al. 2021, Sec. 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor, nn

from tubelet.models.model import Encoder, ModelConfig
from tubelet.nn.blocks import Stack, Transformer, TransformerConfig
from tubelet.nn.encoding import Pool, TokenSequence
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer, grid_of
from tubelet.specs import InputSpec


@dataclass(frozen=True, kw_only=True)
class Modality:
    """An input and how it is cut: ``patch`` is (t, h, w), t = 1 for images and for spectrograms, (1, frames, bins)."""

    spec: InputSpec
    patch: Tubelet = (1, 16, 16)

    def __post_init__(self) -> None:
        grid_of(self.spec.extent, self.patch)


@dataclass(frozen=True, kw_only=True)
class PolyViTConfig(ModelConfig):
    """``backbone``: L layers, of which the first ``adaptor_depth`` (L_adapt) are each modality's own.

    ``modalities``: by the name of the input. A single one makes a ViT, an AST or ViViT's Model 1.
    """

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


class PolyViT(Encoder):
    """Modality-specific tokenizers and adaptors, then a transformer that all tasks share (Fig. 1).

    A forward pass takes one modality: with L layers it is an L-layer ViT on images, AST on audio and ViViT on video.
    """

    def __init__(self, config: PolyViTConfig) -> None:
        super().__init__()
        self.inputs, self.width = config.inputs, config.backbone.width
        self.modalities = nn.ModuleDict(
            {name: ModalityTokenizer(modality, config) for name, modality in config.modalities.items()}
        )
        self.transformer = Transformer(config.backbone, first=config.adaptor_depth)

    def forward(self, inputs: Mapping[str, Tensor], attention: bool = False) -> Features:
        if len(inputs) != 1:
            raise ValueError(f"PolyViT takes one modality at a time, not {', '.join(inputs) or 'none'}")
        ((name, x),) = inputs.items()
        modality = cast("ModalityTokenizer", self.modalities[name])
        maps: dict[str, Tensor] | None = {} if attention else None
        z, grid = modality(x, maps)
        return replace(modality.features(self.transformer(z, maps), grid), attention=maps or {})


class ModalityTokenizer(TokenSequence):
    """z_cls, E and p of one modality, and its L_adapt adaptor layers: "a deeper subnetwork to extract tokens"."""

    def __init__(self, modality: Modality, config: PolyViTConfig) -> None:
        super().__init__(config.backbone, grid_of(modality.spec.extent, modality.patch), config.pool)
        self.tokenizer = TubeletTokenizer(modality.patch, config.backbone.width, modality.spec.channels)
        self.adaptor = Stack(config.backbone, end=config.adaptor_depth)

    def forward(self, x: Tensor, maps: dict[str, Tensor] | None = None) -> tuple[Tensor, Grid]:
        """The sequence for the shared layers, and the (t, h, w) grid of its tokens."""
        tokens = self.tokenizer(x)
        return self.adaptor(self.sequence(tokens), maps), (tokens.shape[1], tokens.shape[2], tokens.shape[3])
