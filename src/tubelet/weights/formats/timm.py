"""timm's image ViTs: a file of their tensors, or a folder that also has timm's config.json."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
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
    """A ViT, with layer scale and registers too, whose head is the task "label".

    Registers that have rows in the table of positions have these added to them. Without timm's config.json pixels are
    taken to be normalized to [-1, 1] and images to be square.
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
            layer_scale=1.0 if "blocks.0.ls1.gamma" in tree else 0.0,
        ),
        patch=(h, w),
        image=ImageSpec(size=size, short_side=min(size), mean=mean, std=std),
        pool="token" if "cls_token" in tree else "mean",
        registers=_registers(tree),
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


def _registers(tree: Tree) -> int:
    return tree.shape("reg_token", 3)[1] if "reg_token" in tree else 0


def _square(tree: Tree, patch: tuple[int, int]) -> tuple[int, int]:
    places, token = tree.shape("pos_embed", 3)[1], "cls_token" in tree
    special = (token, 0, token + _registers(tree))  # what has places beside the patches, in one variant or another
    side = next((side for n in special if (side := math.isqrt(places - n)) ** 2 == places - n), 0)
    if not side:
        raise WeightsError(f"{tree.origin}: {places} positions are no square grid, and no config.json tells the size")
    return side * patch[0], side * patch[1]


def _tasks(tree: Tree, config: _Config) -> dict[str, ClassCard]:
    if "head.weight" not in tree:
        return {}
    count, names = tree.shape("head.weight", 2)[0], config.label_names
    return {"label": ClassCard(classes=names if len(names) == count else tuple(map(str, range(count))))}


def _encoder(tree: Tree, config: ViTConfig) -> dict[str, Tensor]:
    depth = config.backbone.depth
    state = {
        **_places(tree, config),
        "tokenizer.projection.weight": tree.take("patch_embed.proj.weight").flatten(1),
        "tokenizer.projection.bias": tree.take("patch_embed.proj.bias"),
        **gather({"norm": ["norm"]}, tree.layer, "encoder.transformer."),
        **gather_blocks(_BLOCK, tree.layer, "blocks.{}.", depth, "encoder."),
    }
    for i in range(depth if config.backbone.layer_scale else 0):
        ours = f"encoder.transformer.blocks.{i}."
        state[f"{ours}attention.out.gamma"] = tree.take(f"blocks.{i}.ls1.gamma")
        state[f"{ours}mlp.3.gamma"] = tree.take(f"blocks.{i}.ls2.gamma")
    return state


def _places(tree: Tree, config: ViTConfig) -> dict[str, Tensor]:
    """The class token, the registers and the table of positions, in which special tokens may have rows of theirs."""
    _, height, width = config.image.extent
    table, patches = tree.take("pos_embed")[0], (height // config.patch[0]) * (width // config.patch[1])
    special, table = table[: len(table) - patches], table[len(table) - patches :]
    if "cls_token" not in tree:
        return {"encoder.positions.table": table}
    row = special[:1] if len(special) else torch.zeros_like(table[:1])
    state = {"encoder.cls": tree.take("cls_token")[0], "encoder.positions.table": torch.cat([row, table])}
    if config.registers:
        registers = tree.take("reg_token")[0]
        state["encoder.registers"] = registers + special[1:] if len(special) > 1 else registers
    return state
