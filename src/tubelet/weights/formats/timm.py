"""timm's image ViTs: a file of their tensors, or a folder that also has timm's config.json, which is written, too."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

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
from tubelet.weights.formats.tree import (
    Places,
    Tree,
    foreign,
    gather,
    gather_blocks,
    rearranged,
    restored,
    scatter,
    scatter_blocks,
)
from tubelet.weights.formats.written import MisfitError, Outgoing, Written
from tubelet.weights.loaded import LoadedModel

_BLOCK = {
    "norm_attention": ["norm1"],
    "attention.qkv": ["attn.qkv"],
    "attention.out": ["attn.proj"],
    "norm_mlp": ["norm2"],
    "mlp.0": ["mlp.fc1"],
    "mlp.3": ["mlp.fc2"],
}
_PATCHES: Places = {
    "tokenizer.projection.weight": ("patch_embed.proj.weight", "D c h w -> D (c h w)"),
    "tokenizer.projection.bias": ("patch_embed.proj.bias", "D -> D"),
}
_NORM, _TABLE = {"encoder.transformer.norm": ["norm"]}, "encoder.positions.table"
_SCALES = {"attention.out.gamma": "ls1.gamma", "mlp.3.gamma": "ls2.gamma"}

_Act = Literal["gelu", "gelu_tanh", "quick_gelu"]
_GELU: dict[_Act, Literal["exact", "tanh", "quick"]] = {"gelu": "exact", "gelu_tanh": "tanh", "quick_gelu": "quick"}

LOADS = "timm's ViTs"
WRITES, FAMILY = "timm's ViT", ViTConfig
_NAMES = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 1024: "vit_large_patch16_224"}
_NAME = "vit_base_patch16_224"  # of all others; model_args say what is different


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
    crop_pct: float = 1.0
    crop_mode: str = "center"


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    num_heads: int = 0
    act_layer: _Act = "gelu"


def _config(tree: Tree, config: _Config) -> ViTConfig:
    width, channels, h, w = tree.shape("patch_embed.proj.weight", 4)
    told = part_of(_Pretrained, config.pretrained_cfg)
    size = told.input_size[1:] if told.input_size else _square(tree, (h, w))
    mean, std = told.mean or (0.5,) * channels, told.std or (0.5,) * channels
    arguments = part_of(_Arguments, config.model_args)
    return ViTConfig(
        backbone=TransformerConfig(
            width=width,
            depth=tree.count("blocks.{}.norm1.weight"),
            heads=_heads(tree, width, arguments),
            mlp=tree.shape("blocks.0.mlp.fc1.weight", 2)[0],
            gelu=_GELU[arguments.act_layer],
            layer_scale=1.0 if "blocks.0.ls1.gamma" in tree else 0.0,
        ),
        patch=(h, w),
        image=ImageSpec(size=size, mean=mean, std=std, **_fit(size, told)),
        pool="token" if "cls_token" in tree else "mean",
        registers=_registers(tree),
    )


def _fit(size: tuple[int, int], told: _Pretrained) -> dict[str, Any]:
    """How pictures are brought to ``size``: the crop is ``crop_pct`` of the short side, or the whole is stretched."""
    if told.crop_mode == "squash":
        return {"short_side": min(size), "fit": "stretch"}
    return {"short_side": max(min(size), math.floor(min(size) / told.crop_pct)) if told.crop_pct > 0 else min(size)}


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
        **rearranged(_PATCHES, tree),
        **gather(_NORM, tree.layer),
        **gather_blocks(_BLOCK, tree.layer, "blocks.{}.", depth, "encoder."),
    }
    return state | {ours: tree.take(theirs) for ours, theirs in _scales(config.backbone).items()}


def _scales(size: TransformerConfig) -> dict[str, str]:
    """The factors of all blocks, where there are any: their names by ours."""
    blocks = range(size.depth if size.layer_scale else 0)
    return {
        f"encoder.transformer.blocks.{i}.{ours}": f"blocks.{i}.{theirs}"
        for i in blocks
        for ours, theirs in _SCALES.items()
    }


def _places(tree: Tree, config: ViTConfig) -> dict[str, Tensor]:
    """The class token, the registers and the table of positions, in which special tokens may have rows of theirs."""
    _, height, width = config.image.extent
    table, patches = tree.take("pos_embed")[0], (height // config.patch[0]) * (width // config.patch[1])
    special, table = table[: len(table) - patches], table[len(table) - patches :]
    token, state = "cls_token" in tree, dict[str, Tensor]()
    if token:
        row = special[:1] if len(special) else torch.zeros_like(table[:1])
        state["encoder.cls"], table = tree.take("cls_token")[0], torch.cat([row, table])
    if config.registers:
        registers, rows = tree.take("reg_token")[0], special[token:]
        state["encoder.registers"] = registers + rows if len(rows) else registers
    return {**state, _TABLE: table}


def write(model: Outgoing) -> Written:
    """A folder of timm's hub layout, which ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads."""
    config = model.config
    assert isinstance(config, FAMILY)
    spec, size, (h, w) = config.image, config.backbone, config.patch
    held = ViTConfig(
        backbone=TransformerConfig(
            width=size.width,
            depth=size.depth,
            heads=size.heads,
            mlp=size.mlp,
            gelu=size.gelu,
            layer_scale=size.layer_scale,
        ),
        patch=config.patch,
        image=replace(spec, short_side=math.floor(min(spec.size) / _crop_pct(spec))),
        pool="mean" if config.pool == "mean" else "token",
        registers=config.registers,
    )
    model.check(WRITES, held, ignore=("resize",))
    if model.card and model.card.multilabel:
        raise MisfitError(f"{WRITES} cannot say that an example may have several of the classes")
    tensors = {
        **_places_there(model.tree, config),
        **restored(_PATCHES, model.tree, c=spec.channels, h=h, w=w),
        **scatter(_NORM, model.tree.layer),
        **scatter_blocks(_BLOCK, model.tree.layer, "blocks.{}.", size.depth, "encoder."),
        **{theirs: model.tree.take(ours) for ours, theirs in _scales(size).items()},
        **model.classifier("head"),
    }
    token = config.pool == "token"
    skipped = token + config.registers
    return Written("timm.create_model", tensors, _config_json(config, model.card), {}, lambda x: x[:, skipped:])


def _places_there(tree: Tree, config: ViTConfig) -> dict[str, Tensor]:
    """The inverse of :func:`_places`; registers have rows of zeros in the table."""
    table = tree.take(_TABLE)
    token = config.pool == "token"
    rows = [table[:token], table.new_zeros(config.registers, table.shape[1]), table[token:]]
    state = {"pos_embed": torch.cat(rows)[None]}
    if token:
        state["cls_token"] = tree.take("encoder.cls")[None]
    if config.registers:
        state["reg_token"] = tree.take("encoder.registers")[None]
    return state


def _config_json(config: ViTConfig, card: ClassCard | None) -> dict[str, Any]:
    spec, size = config.image, config.backbone
    pool = "token" if config.pool == "token" else "avg"
    classes = [str(name) for name in card.classes] if card else []
    return {
        "architecture": _NAMES.get(size.width, _NAME),
        "num_classes": len(classes),
        "num_features": size.width,
        "global_pool": pool,
        **({"label_names": classes} if classes else {}),
        "model_args": {
            "img_size": list(spec.size),
            "patch_size": list(config.patch),
            "in_chans": spec.channels,
            "embed_dim": size.width,
            "depth": size.depth,
            "num_heads": size.heads,
            "mlp_ratio": _ratio(size),
            "act_layer": next(act for act, gelu in _GELU.items() if gelu == size.gelu),
            "init_values": size.layer_scale or None,
            "class_token": config.pool == "token",
            "reg_tokens": config.registers,
            "global_pool": pool,
            "fc_norm": False,
        },
        "pretrained_cfg": {
            "input_size": [spec.channels, *spec.size],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0 if spec.fit == "stretch" else _crop_pct(spec),
            "crop_mode": "squash" if spec.fit == "stretch" else "center",
            "mean": list(spec.mean),
            "std": list(spec.std),
            "num_classes": len(classes),
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def _crop_pct(spec: ImageSpec) -> float:
    """The share of the short side that a crop has, such that timm and :func:`_fit` round to that short side."""
    return min(spec.size) / (spec.short_side + 0.5) if spec.short_side > min(spec.size) else 1.0


def _ratio(size: TransformerConfig) -> float:
    """The width of an MLP by that of the tokens, such that timm's product is not rounded to less."""
    ratio = size.mlp / size.width
    return ratio if int(size.width * ratio) == size.mlp else math.nextafter(ratio, math.inf)
