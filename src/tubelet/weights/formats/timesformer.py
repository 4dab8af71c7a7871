"""transformers' TimeSformer: divided attention, or joint, which is ViViT's Model 1 on single frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.timesformer import TimeSformerConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.specs import VideoSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.huggingface import OLD_BLOCK, Settings, filled, label_task, pixels, prefix_of, rows
from tubelet.weights.formats.tree import Tree, foreign, gather, gather_blocks
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' TimeSformer"
_SPAN = 256  # frames that a clip covers (8 x 32 and 16 x 16, Sec. 4); no file says it
_STRIDES = {96: 4}  # TimeSformer-L's, which covers more

_BLOCK = OLD_BLOCK | {"attention.qkv": ["attention.attention.qkv"]}
_DIVIDED_BLOCK = _BLOCK | {
    "norm_time": ["temporal_layernorm"],
    "attention_time.qkv": ["temporal_attention.attention.qkv"],
    "attention_time.out": ["temporal_attention.output.dense"],
    "project_time": ["temporal_dense"],
}


@dataclass(frozen=True, kw_only=True)
class _TimeSformer(Settings):
    layer_norm_eps: float = 1e-6
    num_frames: int = 8
    attention_type: Literal["divided_space_time", "joint_space_time", "space_only"] = "divided_space_time"


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type == "timesformer"


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A TimeSformer, or a ViViT where attention is joint; its head is the task "label"."""
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_TimeSformer, checkpoint.config)
        if told.attention_type == "space_only":
            raise WeightsError(
                f"{checkpoint.origin}: attends over space only, frame by frame; TimeSformers with divided or joint "
                "space-time attention load, and for frames alone a ViT"
            )
        video = VideoSpec(
            frames=told.num_frames,
            stride=_STRIDES.get(told.num_frames, max(1, _SPAN // max(1, told.num_frames))),
            **pixels(checkpoint.processor, told.size, told.num_channels),
        )
        prefix, backbone = prefix_of(tree, ("timesformer.",)), told.backbone()
        if told.attention_type == "joint_space_time":
            config = ViViTConfig(backbone=backbone, tubelet=(1, *told.patch), video=video)
            encoder = _joint(tree, prefix, backbone.depth)
        else:
            config = TimeSformerConfig(backbone=backbone, patch=told.patch, video=video)
            encoder = _divided(tree, prefix, backbone.depth)
        tasks = label_task(told, rows(tree, "classifier.weight"))
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if tasks else {}
        tree.finish()
    return filled(checkpoint, config, tasks, encoder, heads)


def _tokenizer(tree: Tree, prefix: str) -> dict[str, Tensor]:
    patches = f"{prefix}embeddings.patch_embeddings.projection"
    return {
        "tokenizer.projection.weight": tree.take(f"{patches}.weight").flatten(1),
        "tokenizer.projection.bias": tree.take(f"{patches}.bias"),
    }


def _divided(tree: Tree, prefix: str, depth: int) -> dict[str, Tensor]:
    return {
        **_tokenizer(tree, prefix),
        "cls": tree.take(f"{prefix}embeddings.cls_token")[0],
        "positions.table": tree.take(f"{prefix}embeddings.position_embeddings")[0],
        "time.table": tree.take(f"{prefix}embeddings.time_embeddings")[0],
        **gather({"norm": [f"{prefix}layernorm"]}, tree.layer, "transformer."),
        **gather_blocks(_DIVIDED_BLOCK, tree.layer, f"{prefix}encoder.layer.{{}}.", depth, ""),
    }


def _joint(tree: Tree, prefix: str, depth: int) -> dict[str, Tensor]:
    """A place's row is the sum of its own and its frame's, for all places of a frame, frame after frame."""
    space = tree.take(f"{prefix}embeddings.position_embeddings")[0]
    time = tree.take(f"{prefix}embeddings.time_embeddings")[0]
    tree.check_made("positions", len(time), *space.shape)
    return {
        **_tokenizer(tree, prefix),
        "encoder.cls": tree.take(f"{prefix}embeddings.cls_token")[0],
        "encoder.positions.table": torch.cat([space[:1], (time[:, None] + space[1:]).flatten(0, 1)]),
        **gather({"norm": [f"{prefix}layernorm"]}, tree.layer, "encoder.transformer."),
        **gather_blocks(_BLOCK, tree.layer, f"{prefix}encoder.layer.{{}}.", depth, "encoder."),
    }
