"""transformers' TimeSformer: divided attention, or joint, which is ViViT's Model 1 on single frames.

Divided attention is written, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.timesformer import TimeSformerConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.huggingface import (
    IMAGE_PATCHES,
    OLD_BLOCK,
    VideoSettings,
    blocks_there,
    config_json,
    filled,
    label_task,
    prefix_of,
    processor_json,
    raster_sizes,
    rows,
    sizes,
)
from tubelet.weights.formats.tree import Places, Tree, foreign, gather, gather_blocks, rearranged, restored, scatter
from tubelet.weights.formats.written import Outgoing, Written
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' TimeSformer"
WRITES, FAMILY = LOADS, TimeSformerConfig
_SPAN = 256  # frames that a clip covers (8 x 32 and 16 x 16, Sec. 4); no file says it
_STRIDES = {96: 4}  # TimeSformer-L's, which covers more

_BLOCK = OLD_BLOCK | {"attention.qkv": ["attention.attention.qkv"]}
_DIVIDED_BLOCK = _BLOCK | {
    "norm_time": ["temporal_layernorm"],
    "attention_time.qkv": ["temporal_attention.attention.qkv"],
    "attention_time.out": ["temporal_attention.output.dense"],
    "project_time": ["temporal_dense"],
}
_PLACES: Places = {
    **IMAGE_PATCHES,
    "cls": ("embeddings.cls_token", "1 n D -> n D"),
    "positions.table": ("embeddings.position_embeddings", "1 n D -> n D"),
    "time.table": ("embeddings.time_embeddings", "1 t D -> t D"),
}


@dataclass(frozen=True, kw_only=True)
class _TimeSformer(VideoSettings):
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
        prefix, backbone = prefix_of(tree, ("timesformer.",)), told.backbone()
        if told.attention_type == "joint_space_time":
            video = told.video(checkpoint.processor, _stride(told))
            config = ViViTConfig(backbone=backbone, tubelet=(1, *told.patch), video=video)
            encoder = _joint(tree, prefix, backbone.depth)
        else:
            config = _config(told, checkpoint.processor)
            encoder = _divided(tree, prefix, backbone.depth)
        tasks = label_task(told, rows(tree, "classifier.weight"))
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if tasks else {}
        tree.finish()
    return filled(checkpoint, config, tasks, encoder, heads)


def write(model: Outgoing) -> Written:
    """As TimesformerModel, or as TimesformerForVideoClassification where there is a task."""
    config = model.config
    assert isinstance(config, FAMILY)
    square: dict[str, Any] = {"image_size": config.video.size[0], "patch_size": config.patch[0]}  # as its blocks need
    told = _TimeSformer(**sizes(config.backbone, model.card), **raster_sizes(config.video) | square)
    processor = processor_json(config.video, "VideoMAEImageProcessor")
    model.check(WRITES, _config(told, processor))
    kind, prefix = ("TimesformerForVideoClassification", "timesformer.") if model.card else ("TimesformerModel", "")
    (t, _, _), (h, w), tree = config.grid, config.patch, model.tree
    tensors = {
        **restored(_PLACES, tree, prefix, c=config.video.channels, h=h, w=w),
        **scatter({"transformer.norm": [f"{prefix}layernorm"]}, tree.layer),
        **blocks_there(tree, prefix, config.backbone.depth, _DIVIDED_BLOCK, ours=""),
        **model.classifier("classifier"),
    }
    return Written(
        kind,
        tensors,
        config_json(told, "timesformer", kind),
        processor,
        lambda hidden: rearrange(hidden[:, 1:], "B (n t) D -> B (t n) D", t=t),
    )


def _config(told: _TimeSformer, processor: Mapping[str, Any]) -> TimeSformerConfig:
    video = told.video(processor, _stride(told))
    return TimeSformerConfig(backbone=told.backbone(), patch=told.patch, video=video)


def _stride(told: _TimeSformer) -> int:
    return _STRIDES.get(told.num_frames, max(1, _SPAN // max(1, told.num_frames)))


def _divided(tree: Tree, prefix: str, depth: int) -> dict[str, Tensor]:
    return {
        **rearranged(_PLACES, tree, prefix),
        **gather({"transformer.norm": [f"{prefix}layernorm"]}, tree.layer),
        **gather_blocks(_DIVIDED_BLOCK, tree.layer, f"{prefix}encoder.layer.{{}}.", depth, ""),
    }


def _joint(tree: Tree, prefix: str, depth: int) -> dict[str, Tensor]:
    """A place's row is the sum of its own and its frame's, for all places of a frame, frame after frame."""
    space = tree.take(f"{prefix}embeddings.position_embeddings")[0]
    time = tree.take(f"{prefix}embeddings.time_embeddings")[0]
    tree.check_made("positions", len(time), *space.shape)
    return {
        **rearranged(IMAGE_PATCHES, tree, prefix),
        "encoder.cls": tree.take(f"{prefix}embeddings.cls_token")[0],
        "encoder.positions.table": torch.cat([space[:1], (time[:, None] + space[1:]).flatten(0, 1)]),
        **gather({"norm": [f"{prefix}layernorm"]}, tree.layer, "encoder.transformer."),
        **gather_blocks(_BLOCK, tree.layer, f"{prefix}encoder.layer.{{}}.", depth, "encoder."),
    }
