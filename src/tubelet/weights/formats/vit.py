"""transformers' ViT, DeiT, ViTMAE and ViTMSN: a class token, learned positions, and plain blocks.

ViT is written, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.vit import ViTConfig
from tubelet.nn.encoding import ImagePool
from tubelet.specs import Fit, ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.huggingface import (
    IMAGE_PATCHES,
    Settings,
    blocks,
    blocks_there,
    config_json,
    filled,
    label_task,
    pixels,
    prefix_of,
    processor_json,
    raster_sizes,
    rows,
    side,
    sizes,
)
from tubelet.weights.formats.tree import Places, Tree, foreign, gather, rearranged, restored, scatter
from tubelet.weights.formats.written import Outgoing, Written
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' ViT, DeiT, ViTMAE and ViTMSN"
WRITES, FAMILY = "transformers' ViT", ViTConfig

TOKENS: Places = {
    "encoder.cls": ("embeddings.cls_token", "1 n D -> n D"),
    "encoder.positions.table": ("embeddings.position_embeddings", "1 n D -> n D"),
}
_NORM = "encoder.transformer.norm"


@dataclass(frozen=True, kw_only=True)
class _MSN(Settings):
    layer_norm_eps: float = 1e-6


_PROCESSORS: dict[Fit, str] = {
    "crop": "BitImageProcessor",
    "stretch": "ViTImageProcessor",
    "stretch_crop": "DeiTImageProcessor",
}
_KINDS: dict[str, type[Settings]] = {"vit": Settings, "deit": Settings, "vit_mae": Settings, "vit_msn": _MSN}


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type in _KINDS


def read(checkpoint: Checkpoint) -> LoadedModel:
    """An image ViT; its head is the task "label".

    DeiT's distillation token becomes a register, its place added to it. Of its two heads, whose logits it takes the
    mean of, one is made that reads both tokens. MAE's fixed positions become learned ones; its decoder is dropped.
    """
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_KINDS[checkpoint.model_type], checkpoint.config)
        prefix = prefix_of(tree, ("vit.", "deit."))
        distilled = f"{prefix}embeddings.distillation_token" in tree
        pool: ImagePool = "tokens" if "distillation_classifier.weight" in tree else "token"
        config = _config(told, checkpoint.processor, pool, int(distilled))
        encoder = encoder_state(tree, prefix, config.backbone.depth, IMAGE_PATCHES)
        if distilled:
            encoder |= _distillation(tree, prefix, encoder["encoder.positions.table"])
        heads = {f"label.{name}": x for name, x in _head(tree, pool).items()}
        tasks = label_task(told, len(heads["label.projection.bias"]) if heads else 0)
        may_drop = ("decoder.", f"{prefix}pooler.", f"{prefix}embeddings.mask_token")
        dropped = tree.finish(may_drop=may_drop)
    return filled(checkpoint, config, tasks, encoder, heads, dropped)


def write(model: Outgoing) -> Written:
    """As ViTModel, or as ViTForImageClassification where there is a task."""
    config = model.config
    assert isinstance(config, FAMILY)
    told = Settings(**sizes(config.backbone, model.card), **raster_sizes(config.image), patch_size=side(config.patch))
    processor = image_processor(config.image)
    model.check(WRITES, _config(told, processor), ignore=("resize",))
    kind, prefix = ("ViTForImageClassification", "vit.") if model.card else ("ViTModel", "")
    (h, w), c = config.patch, config.image.channels
    tensors = encoder_there(model.tree, prefix, config.backbone.depth, IMAGE_PATCHES, c=c, h=h, w=w)
    tensors |= model.classifier("classifier")
    return Written(kind, tensors, config_json(told, "vit", kind), processor, lambda hidden: hidden[:, 1:])


def _config(told: Settings, processor: Mapping[str, Any], pool: ImagePool = "token", registers: int = 0) -> ViTConfig:
    return ViTConfig(
        backbone=told.backbone(),
        patch=told.patch,
        image=ImageSpec(**pixels(processor, told.size, told.num_channels)),
        pool=pool,
        registers=registers,
        resize="cubic",
    )


def image_processor(spec: ImageSpec) -> dict[str, Any]:
    """The file of an image processor: ViT's own stretches pictures and does not crop, DeiT's does both."""
    return processor_json(spec, _PROCESSORS[spec.fit])


def encoder_state(tree: Tree, prefix: str, depth: int, patches: Places) -> dict[str, Tensor]:
    """The state of an encoder of patches, a class token and learned positions, as ViT and ViViT name it."""
    return {
        **rearranged({**patches, **TOKENS}, tree, prefix),
        **gather({_NORM: [f"{prefix}layernorm"]}, tree.layer),
        **blocks(tree, prefix, depth),
    }


def encoder_there(tree: Tree, prefix: str, depth: int, patches: Places, **sizes: int) -> dict[str, Tensor]:
    """The inverse of :func:`encoder_state`. ``sizes``: of a patch's axes."""
    return {
        **restored({**patches, **TOKENS}, tree, prefix, **sizes),
        **scatter({_NORM: [f"{prefix}layernorm"]}, tree.layer),
        **blocks_there(tree, prefix, depth),
    }


def _distillation(tree: Tree, prefix: str, table: Tensor) -> dict[str, Tensor]:
    token = tree.take(f"{prefix}embeddings.distillation_token")[0]
    return {"encoder.registers": token + table[1:2], "encoder.positions.table": torch.cat([table[:1], table[2:]])}


def _head(tree: Tree, pool: ImagePool) -> dict[str, Tensor]:
    if pool == "tokens":
        (a, a_bias), (b, b_bias) = tree.layer("cls_classifier"), tree.layer("distillation_classifier")
        return {"projection.weight": torch.cat([a, b], 1) / 2, "projection.bias": (a_bias + b_bias) / 2}
    return gather({"projection": ["classifier"]}, tree.layer) if rows(tree, "classifier.weight") else {}
