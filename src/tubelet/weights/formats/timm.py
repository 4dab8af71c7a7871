"""timm's image ViTs in our names: a safetensors file, or a folder that also has timm's config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.models import SIZES
from tubelet.models.vit import ViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec
from tubelet.weights.files import WeightsError, read_json, read_tensors
from tubelet.weights.formats.tree import Tree, gather, gather_blocks
from tubelet.weights.loaded import LoadedModel, build_model, load_state

_BLOCK = {
    "norm_attention": ["norm1"],
    "attention.qkv": ["attn.qkv"],
    "attention.out": ["attn.proj"],
    "norm_mlp": ["norm2"],
    "mlp.0": ["mlp.fc1"],
    "mlp.3": ["mlp.fc2"],
}


def read(path: str | Path) -> LoadedModel:
    """A ViT from ``path``: the safetensors file, or the folder of a timm repository on the Hugging Face hub."""
    path = Path(path)
    if path.is_dir():
        config = read_json(path / "config.json")
        return from_state(read_tensors(path / "model.safetensors"), config, origin=str(path))
    return from_state(read_tensors(path), origin=str(path))


def from_state(
    state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None, *, origin: str = "timm"
) -> LoadedModel:
    """A model from the state dict of a plain timm ViT; the head is the task "label".

    ``config`` is timm's config.json; without it pixels are taken to be normalized to [-1, 1] and images to be square.
    """
    config = config or {}
    tree = Tree(state, origin)
    ours = _config(tree, config)
    tasks = _tasks(tree, config)
    filled = {f"encoder.{name}": x for name, x in _encoder(tree, ours).items()}
    if tasks:
        filled |= gather({"projection": ["head"]}, tree.layer, "heads.label.")
    tree.finish()
    model = build_model(ours, tasks)
    load_state(model, filled, origin)
    return LoadedModel(model, ours, tasks, {"source": origin})


def _config(tree: Tree, config: Mapping[str, Any]) -> ViTConfig:
    width, channels, h, w = tree.shape("patch_embed.proj.weight")
    pretrained = config.get("pretrained_cfg", {})
    size = tuple(pretrained.get("input_size", ())[1:]) or _square(tree, (h, w))
    mean = tuple(pretrained.get("mean", (0.5,) * channels))
    std = tuple(pretrained.get("std", (0.5,) * channels))
    return ViTConfig(
        backbone=TransformerConfig(
            width=width,
            depth=tree.count("blocks.{}.norm1.weight"),
            heads=_heads(tree, width, config),
            mlp=tree.shape("blocks.0.mlp.fc1.weight")[0],
            gelu="exact",
        ),
        patch=(h, w),
        image=ImageSpec(size=size, short_side=min(size), mean=mean, std=std),
        pool="token" if "cls_token" in tree else "mean",
    )


def _heads(tree: Tree, width: int, config: Mapping[str, Any]) -> int:
    """timm fuses q, k and v, so that no shape tells the number of heads: the width does, for the sizes with a name."""
    told = config.get("model_args", {}).get("num_heads")
    known = {backbone.width: backbone.heads for backbone in SIZES.values()}
    if not told and width not in known:
        raise WeightsError(
            f"{tree.origin}: nothing tells the number of heads of a ViT of width {width}; "
            'put {"model_args": {"num_heads": ...}} in a config.json beside model.safetensors and give the folder'
        )
    return told or known[width]


def _square(tree: Tree, patch: tuple[int, int]) -> tuple[int, int]:
    places = tree.shape("pos_embed")[1] - ("cls_token" in tree)
    side = math.isqrt(places)
    if side * side != places:
        raise WeightsError(f"{tree.origin}: {places} positions are no square grid, and no config.json tells the size")
    return side * patch[0], side * patch[1]


def _tasks(tree: Tree, config: Mapping[str, Any]) -> dict[str, ClassCard]:
    if "head.weight" not in tree:
        return {}
    count = tree.shape("head.weight")[0]
    names = tuple(config.get("label_names", ()))
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
