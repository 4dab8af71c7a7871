"""ViT: an image is a sequence of patches (Dosovitskiy et al. 2021; ViViT Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tubelet.models.model import Encoder, ModelConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool, TokenEncoder
from tubelet.nn.features import Features
from tubelet.nn.initializers import init_dense_
from tubelet.nn.tokenizers import TubeletTokenizer, grid_of
from tubelet.specs import ImageSpec


@dataclass(frozen=True, kw_only=True)
class ViTConfig(ModelConfig):
    """``representation`` > 0 adds a dense layer of that width and a tanh after pooling, as some ViTs have."""

    backbone: TransformerConfig
    patch: tuple[int, int] = (16, 16)
    image: ImageSpec = ImageSpec()
    pool: Pool = "token"
    representation: int = 0

    @property
    def inputs(self) -> Mapping[str, ImageSpec]:
        return {"image": self.image}

    def build(self) -> ViT:
        return ViT(self)


class ViT(Encoder):
    """Patches, a class token, learned positions and a transformer."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.inputs, self.width = config.inputs, config.representation or config.backbone.width
        patch = (1, *config.patch)
        self.tokenizer = TubeletTokenizer(patch, config.backbone.width, config.image.channels)
        self.encoder = TokenEncoder(config.backbone, grid_of(config.image.extent, patch), config.pool)
        self.representation = Representation(config.backbone.width, config.representation)

    def forward(self, inputs: Mapping[str, Tensor], attention: bool = False) -> Features:
        maps: dict[str, Tensor] | None = {} if attention else None
        features = self.encoder(self.tokenizer(inputs["image"]), maps)
        return replace(features, pooled=self.representation(features.pooled), attention=maps or {})


class Representation(nn.Module):
    """tanh(W x + b) on the pooled features, as the released code's ``pre_logits``; nothing where ``width`` is 0."""

    def __init__(self, source: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(source, width) if width else nn.Identity()
        if isinstance(self.dense, nn.Linear):
            init_dense_(self.dense)

    def forward(self, pooled: Tensor) -> Tensor:
        return torch.tanh(self.dense(pooled)) if isinstance(self.dense, nn.Linear) else pooled
