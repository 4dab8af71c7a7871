"""transformers' ViT, DeiT, ViTMAE and ViTMSN: a class token, learned positions, and plain blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.vit import ViTConfig
from tubelet.nn.encoding import ImagePool
from tubelet.specs import ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.huggingface import Settings, blocks, filled, label_task, pixels, prefix_of, rows
from tubelet.weights.formats.tree import Tree, foreign, gather
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' ViT, DeiT, ViTMAE and ViTMSN"


@dataclass(frozen=True, kw_only=True)
class _MSN(Settings):
    layer_norm_eps: float = 1e-6


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
        config = ViTConfig(
            backbone=told.backbone(),
            patch=told.patch,
            image=ImageSpec(**pixels(checkpoint.processor, told.size, told.num_channels)),
            pool=pool,
            registers=int(distilled),
            resize="cubic",
        )
        encoder = encoder_state(tree, prefix, config.backbone.depth)
        if distilled:
            encoder |= _distillation(tree, prefix, encoder["encoder.positions.table"])
        heads = {f"label.{name}": x for name, x in _head(tree, pool).items()}
        tasks = label_task(told, len(heads["label.projection.bias"]) if heads else 0)
        may_drop = ("decoder.", f"{prefix}pooler.", f"{prefix}embeddings.mask_token")
        dropped = tree.finish(may_drop=may_drop)
    return filled(checkpoint, config, tasks, encoder, heads, dropped)


def encoder_state(tree: Tree, prefix: str, depth: int) -> dict[str, Tensor]:
    """The state of an encoder of patches, a class token and learned positions, as ViT and ViViT name it."""
    patches = f"{prefix}embeddings.patch_embeddings.projection"
    return {
        "tokenizer.projection.weight": tree.take(f"{patches}.weight").flatten(1),
        "tokenizer.projection.bias": tree.take(f"{patches}.bias"),
        "encoder.cls": tree.take(f"{prefix}embeddings.cls_token")[0],
        "encoder.positions.table": tree.take(f"{prefix}embeddings.position_embeddings")[0],
        **gather({"norm": [f"{prefix}layernorm"]}, tree.layer, "encoder.transformer."),
        **blocks(tree, prefix, depth),
    }


def _distillation(tree: Tree, prefix: str, table: Tensor) -> dict[str, Tensor]:
    token = tree.take(f"{prefix}embeddings.distillation_token")[0]
    return {"encoder.registers": token + table[1:2], "encoder.positions.table": torch.cat([table[:1], table[2:]])}


def _head(tree: Tree, pool: ImagePool) -> dict[str, Tensor]:
    if pool == "tokens":
        (a, a_bias), (b, b_bias) = tree.layer("cls_classifier"), tree.layer("distillation_classifier")
        return {"projection.weight": torch.cat([a, b], 1) / 2, "projection.bias": (a_bias + b_bias) / 2}
    return gather({"projection": ["classifier"]}, tree.layer) if rows(tree, "classifier.weight") else {}
