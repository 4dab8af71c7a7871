"""timm's image ViTs: a file of their tensors, or a folder that also has timm's config.json."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.configs import part_of
from tubelet.models import SIZES
from tubelet.models.vit import ViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.huggingface import filled
from tubelet.weights.formats.tree import Tree, foreign, gather, gather_blocks
from tubelet.weights.loaded import LoadedModel

_BLOCK = {
    "norm_attention": ["norm1"],
    "attention.qkv": ["attn.qkv"],
    "attention.out": ["attn.proj"],
    "norm_mlp": ["norm2"],
    "mlp.0": ["mlp.fc1"],
    "mlp.3": ["mlp.fc2"],
}


LOADS = "timm's ViTs"


def recognizes(checkpoint: Checkpoint) -> bool:
    return "architecture" in checkpoint.config or (
        not checkpoint.config.get("model_type") and "patch_embed.proj.weight" in checkpoint.tensors
    )


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A plain ViT, whose head is the task "label".

    Without timm's config.json pixels are taken to be normalized to [-1, 1] and images to be square.
    """
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_Config, checkpoint.config)
        config = _config(tree, told)
        tasks = _tasks(tree, told)
        encoder = _encoder(tree, config)
        heads = gather({"projection": ["head"]}, tree.layer, "label.") if tasks else {}
        tree.finish()
    return filled(checkpoint, config, tasks, encoder, heads)


@dataclass(frozen=True, kw_only=True)
class _Config:
    """What is read of timm's config.json."""

    pretrained_cfg: dict[str, Any] = field(default_factory=dict[str, Any])
    model_args: dict[str, Any] = field(default_factory=dict[str, Any])
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Pretrained:
    input_size: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    num_heads: int = 0


def _config(tree: Tree, config: _Config) -> ViTConfig:
    width, channels, h, w = tree.shape("patch_embed.proj.weight", 4)
    told = part_of(_Pretrained, config.pretrained_cfg)
    size = told.input_size[1:] if told.input_size else _square(tree, (h, w))
    mean, std = told.mean or (0.5,) * channels, told.std or (0.5,) * channels
    return ViTConfig(
        backbone=TransformerConfig(
            width=width,
            depth=tree.count("blocks.{}.norm1.weight"),
            heads=_heads(tree, width, part_of(_Arguments, config.model_args)),
            mlp=tree.shape("blocks.0.mlp.fc1.weight", 2)[0],
            gelu="exact",
        ),
        patch=(h, w),
        image=ImageSpec(size=size, short_side=min(size), mean=mean, std=std),
        pool="token" if "cls_token" in tree else "mean",
    )


def _heads(tree: Tree, width: int, told: _Arguments) -> int:
    """timm fuses q, k and v, so that no shape tells the number of heads: the width does, for the sizes with a name."""
    known = {backbone.width: backbone.heads for backbone in SIZES.values()}
    if not told.num_heads and width not in known:
        raise WeightsError(
            f"{tree.origin}: nothing tells the number of heads of a ViT of width {width}; "
            'put {"model_args": {"num_heads": ...}} in a config.json beside model.safetensors and give the folder'
        )
    return told.num_heads or known[width]


def _square(tree: Tree, patch: tuple[int, int]) -> tuple[int, int]:
    places = tree.shape("pos_embed", 3)[1] - ("cls_token" in tree)
    side = math.isqrt(places)
    if side * side != places:
        raise WeightsError(f"{tree.origin}: {places} positions are no square grid, and no config.json tells the size")
    return side * patch[0], side * patch[1]


def _tasks(tree: Tree, config: _Config) -> dict[str, ClassCard]:
    if "head.weight" not in tree:
        return {}
    count, names = tree.shape("head.weight", 2)[0], config.label_names
    return {"label": ClassCard(classes=names if len(names) == count else tuple(map(str, range(count))))}


def _encoder(tree: Tree, config: ViTConfig) -> dict[str, Tensor]:
    token = {"encoder.cls": tree.take("cls_token")[0]} if "cls_token" in tree else {}
    return {
        **token,
        "tokenizer.projection.weight": tree.take("patch_embed.proj.weight").flatten(1),
        "tokenizer.projection.bias": tree.take("patch_embed.proj.bias"),
        "encoder.positions.table": tree.take("pos_embed")[0],
        **gather({"norm": ["norm"]}, tree.layer, "encoder.transformer."),
        **gather_blocks(_BLOCK, tree.layer, "blocks.{}.", config.backbone.depth, "encoder."),
    }
