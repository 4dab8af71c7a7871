"""timm's image ViTs: a file of their tensors, or a folder that also has timm's config.json, which is written, too.

The names and shapes of tensors tell most of what a ViT is; which GELU it has, only the name of its architecture does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.configs import part_of, shown
from tubelet.models import SIZES
from tubelet.models.vit import ViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import ImagePool
from tubelet.specs import Fit, ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.huggingface import filled
from tubelet.weights.formats.tree import (
    Places,
    Tree,
    foreign,
    gather,
    gather_blocks,
    restored,
    scatter,
    scatter_blocks,
)
from tubelet.weights.formats.written import MisfitError, Outgoing, Written
from tubelet.weights.loaded import LoadedModel

LOADS = "timm's ViTs (DeiT, DINOv2, CLIP and SigLIP, too)"
WRITES, FAMILY = "timm's ViT", ViTConfig

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
_TABLE = "encoder.positions.table"
_SCALES = {"attention.out.gamma": "ls1.gamma", "mlp.3.gamma": "ls2.gamma"}
_POOL = {"attention.q": ["q"], "attention.kv": ["kv"], "attention.out": ["proj"], "norm": ["norm"]}
_MLP = {"mlp.0": ["mlp.fc1"], "mlp.3": ["mlp.fc2"]}
_HEADS = {256: 4, 320: 5, 512: 8, 640: 10, 832: 13, 896: 14, 1152: 16, 1408: 16, 1664: 16}
_NAMED_HEADS = {"base_patch16_gap_224": 16, "giantopt_patch": 16, "giant_patch14_dinov2": 24, "giant_patch14_reg4": 24}
_TANH = ("patch32_siglip_256", "large_patch16_siglip_512", "so400m_patch16_siglip", "giantopt_patch16_siglip")
_REFUSED = "_rpn_"
_Act = Literal["gelu", "gelu_tanh", "quick_gelu"]
_GELU: dict[_Act, Literal["exact", "tanh", "quick"]] = {"gelu": "exact", "gelu_tanh": "tanh", "quick_gelu": "quick"}
_NAMES = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 1024: "vit_large_patch16_224"}
_NAME = "vit_base_patch16_224"  # of all others that are written; model_args say what is different
_EPS, _CLIP_EPS = 1e-6, 1e-5


def recognizes(checkpoint: Checkpoint) -> bool:
    return "architecture" in checkpoint.config or (
        not checkpoint.config.get("model_type") and "patch_embed.proj.weight" in checkpoint.tensors
    )


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A ViT, whose head is the task "label".

    Registers that have rows in the table of positions have these added to them. DeiT's distillation token, and a class
    token beside a mean of all patches, become registers. Of DeiT's two heads, whose logits it takes the mean of, one is
    made that reads both tokens. Without timm's config.json pixels are taken to be normalized to [-1, 1] and images to
    be square, and the file's name for that of the architecture.
    """
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_Config, {"architecture": Path(checkpoint.origin).stem, **checkpoint.config})
        if _REFUSED in told.architecture:
            raise WeightsError(f"{checkpoint.origin}: {told.architecture} norms after its layers; what loads: {LOADS}")
        config = _config(tree, told)
        tasks = _tasks(tree, told)
        encoder = _encoder(tree, config)
        heads = {f"label.projection.{name}": x for name, x in _head(tree).items()} if tasks else {}
        tree.finish()
    return filled(checkpoint, config, tasks, encoder, heads)


@dataclass(frozen=True, kw_only=True)
class _Config:
    """What is read of timm's config.json."""

    architecture: str = ""
    global_pool: str | None = None
    pretrained_cfg: dict[str, Any] = field(default_factory=dict[str, Any])
    model_args: dict[str, Any] = field(default_factory=dict[str, Any])
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Pretrained:
    input_size: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    interpolation: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    num_heads: int = 0
    act_layer: _Act | None = None


def _config(tree: Tree, config: _Config) -> ViTConfig:
    width, channels, h, w = tree.shape("patch_embed.proj.weight", 4)
    told = part_of(_Pretrained, config.pretrained_cfg)
    size = told.input_size[1:] if told.input_size else _square(tree, (h, w))
    mean, std = told.mean or (0.5,) * channels, told.std or (0.5,) * channels
    expanded, mlp = tree.shape("blocks.0.mlp.fc1.weight", 2)[0], tree.shape("blocks.0.mlp.fc2.weight", 2)[1]
    pool, pre_norm = _pool(tree, config), "norm_pre.weight" in tree
    eps = _CLIP_EPS if pre_norm else _EPS
    return ViTConfig(
        backbone=TransformerConfig(
            width=width,
            depth=tree.count("blocks.{}.norm1.weight"),
            heads=_heads(tree, width, config),
            mlp=mlp,
            gelu=_gelu(config),
            norm_eps=eps,
            gated=expanded == 2 * mlp,
            layer_scale=1.0 if "blocks.0.ls1.gamma" in tree else 0.0,
        ),
        patch=(h, w),
        image=ImageSpec(size=size, mean=mean, std=std, **_cut(told, size)),
        pool=pool,
        registers=_registers(tree) + ("cls_token" in tree and pool == "mean"),
        pre_norm=pre_norm,
        resize="antialiased",
        final_norm="fc_norm.weight" not in tree,
        norm_pooled=eps if "fc_norm.weight" in tree else 0.0,
    )


def _gelu(config: _Config) -> Literal["exact", "tanh", "quick"]:
    if told := part_of(_Arguments, config.model_args).act_layer:
        return _GELU[told]
    if "quickgelu" in config.architecture:
        return "quick"
    return "tanh" if any(name in config.architecture for name in _TANH) else "exact"


def _pool(tree: Tree, config: _Config) -> ImagePool:
    if "attn_pool.latent" in tree:
        return "attention"
    if "dist_token" in tree:
        return "tokens"
    told = config.global_pool or ("avg" if "fc_norm.weight" in tree or "cls_token" not in tree else "token")
    if told not in ("avg", "token"):
        raise WeightsError(f"{tree.origin}: global_pool {shown(told)} is not read; avg, token and map are")
    return "mean" if told == "avg" else "token"


def _cut(told: _Pretrained, size: tuple[int, int]) -> dict[str, Any]:
    """How timm cuts a picture for its test: the crop is ``crop_pct`` of what the picture is resized to."""
    side = math.floor(min(size) / told.crop_pct) if told.crop_pct else min(size)
    squash: Fit = "stretch" if side == min(size) else "stretch_crop"
    return {
        "short_side": side,
        "fit": squash if told.crop_mode == "squash" else "crop",
        "resample": "bicubic" if told.interpolation == "bicubic" else "bilinear",
    }


def _heads(tree: Tree, width: int, config: _Config) -> int:
    """timm fuses q, k and v, so that no shape tells the number of heads: the width does, for the sizes with a name."""
    known = _HEADS | {backbone.width: backbone.heads for backbone in SIZES.values()}
    named = next((heads for name, heads in _NAMED_HEADS.items() if name in config.architecture), 0)
    told = part_of(_Arguments, config.model_args).num_heads or named
    if not told and width not in known:
        raise WeightsError(
            f"{tree.origin}: nothing tells the number of heads of a ViT of width {width}; "
            'put {"model_args": {"num_heads": ...}} in a config.json beside model.safetensors and give the folder'
        )
    return told or known[width]


def _registers(tree: Tree) -> int:
    return (tree.shape("reg_token", 3)[1] if "reg_token" in tree else 0) + ("dist_token" in tree)


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


def _head(tree: Tree) -> dict[str, Tensor]:
    weight, bias = tree.layer("head")
    if "head_dist.weight" in tree:
        other, other_bias = tree.layer("head_dist")
        weight, bias = torch.cat([weight, other], 1) / 2, (bias + other_bias) / 2
    return {"weight": weight, "bias": bias}


def _encoder(tree: Tree, config: ViTConfig) -> dict[str, Tensor]:
    depth = config.backbone.depth
    patches, bias = tree.layer_or_unbiased("patch_embed.proj")
    norm, ours = ("norm", "encoder.transformer.") if config.final_norm else ("fc_norm", "representation.")
    state = {
        **_places(tree, config),
        "tokenizer.projection.weight": patches.flatten(1),
        "tokenizer.projection.bias": bias,
        **gather({"norm": [norm]}, tree.layer, ours),
        **gather_blocks(_BLOCK, tree.layer_or_unbiased, "blocks.{}.", depth, "encoder."),
    }
    if config.pre_norm:
        state |= gather({"norm_tokens": ["norm_pre"]}, tree.layer, "encoder.")
    if config.pool == "attention":
        table = {ours: [f"attn_pool.{name}" for name in theirs] for ours, theirs in (_POOL | _MLP).items()}
        state |= gather(table, tree.layer, "encoder.attention_pool.")
        state["encoder.attention_pool.query"] = tree.take("attn_pool.latent")[0]
    state |= {ours: tree.take(theirs) for ours, theirs in _scales(config.backbone).items()}
    return state


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
    names = [name for name in ("cls_token", "dist_token", "reg_token") if name in tree]
    tokens = torch.cat([table[:0], *(tree.take(name)[0] for name in names)])
    rows = torch.cat([special, torch.zeros_like(tokens)])[: len(tokens)]
    if "cls_token" not in tree or config.pool == "mean":
        state = {"encoder.positions.table": table}
    else:
        state = {"encoder.cls": tokens[:1], "encoder.positions.table": torch.cat([rows[:1], table])}
        tokens, rows = tokens[1:], rows[1:]
    return state | {"encoder.registers": tokens + rows} if config.registers else state


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
        **scatter({"encoder.transformer.norm": ["norm"]}, model.tree.layer),
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
            "interpolation": spec.resample,
            "crop_pct": 1.0 if spec.fit == "stretch" else _crop_pct(spec),
            "crop_mode": "center" if spec.fit == "crop" else "squash",
            "mean": list(spec.mean),
            "std": list(spec.std),
            "num_classes": len(classes),
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def _crop_pct(spec: ImageSpec) -> float:
    """The share of the short side that a crop has, such that timm and :func:`_cut` round to that short side."""
    return min(spec.size) / (spec.short_side + 0.5) if spec.short_side > min(spec.size) else 1.0


def _ratio(size: TransformerConfig) -> float:
    """The width of an MLP by that of the tokens, such that timm's product is not rounded to less."""
    ratio = size.mlp / size.width
    return ratio if int(size.width * ratio) == size.mlp else math.nextafter(ratio, math.inf)
