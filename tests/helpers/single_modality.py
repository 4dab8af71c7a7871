"""Small models of one modality, and a PolyViT of several, with random weights."""

from __future__ import annotations

import torch

from tubelet.models import ASTConfig, Modality, PolyViTConfig, ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.loaded import LoadedModel, build_model

SIZE = TransformerConfig(width=16, depth=3, heads=2, mlp=32)
IMAGE = ImageSpec(size=(16, 16), short_side=16)
VIDEO = VideoSpec(frames=8, size=(12, 20), short_side=12)
AUDIO = SpectrogramSpec(frames=40, bins=12)
SPECS = {"image": IMAGE, "video": VIDEO, "audio": AUDIO}
SINGLE = {
    "image": ViTConfig(backbone=SIZE, patch=(4, 4), image=IMAGE),
    "video": ViViTConfig(backbone=SIZE, tubelet=(4, 4, 4), video=VIDEO),
    "audio": ASTConfig(backbone=SIZE, patch=(4, 4), audio=AUDIO),
}
PATCHES = {"image": (1, 4, 4), "video": (4, 4, 4), "audio": (1, 4, 4)}


def polyvit(*names: str, adaptors: int) -> PolyViTConfig:
    modalities = {name: Modality(spec=SPECS[name], patch=PATCHES[name]) for name in names}
    return PolyViTConfig(backbone=SIZE, modalities=modalities, adaptor_depth=adaptors)


@torch.no_grad()
def randomized(config) -> LoadedModel:
    model = build_model(config, {})
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return LoadedModel(model, config)
