"""transformers' ViViT, which is the paper's Model 1, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tubelet.configs import part_of
from tubelet.models.vivit import ViViTConfig
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.huggingface import (
    VIDEO_PATCHES,
    Act,
    VideoSettings,
    config_json,
    filled,
    label_task,
    prefix_of,
    processor_json,
    raster_sizes,
    rows,
    sizes,
)
from tubelet.weights.formats.tree import Tree, foreign, gather
from tubelet.weights.formats.vit import encoder_state, encoder_there
from tubelet.weights.formats.written import Outgoing, Written
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' ViViT"
WRITES, FAMILY = LOADS, ViViTConfig
_STRIDE = 2  # frames, as in the paper; transformers' files do not say it


@dataclass(frozen=True, kw_only=True)
class _Vivit(VideoSettings):
    hidden_act: Act = "gelu_fast"
    layer_norm_eps: float = 1e-6
    tubelet_size: tuple[int, int, int] = (2, 16, 16)


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type == "vivit"


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A ViViT; its head is the task "label"."""
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_Vivit, checkpoint.config)
        config = _config(told, checkpoint.processor)
        prefix = prefix_of(tree, ("vivit.",))
        encoder = encoder_state(tree, prefix, config.backbone.depth, VIDEO_PATCHES)
        tasks = label_task(told, rows(tree, "classifier.weight"))
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if tasks else {}
        dropped = tree.finish(may_drop=(f"{prefix}pooler.",))
    return filled(checkpoint, config, tasks, encoder, heads, dropped)


def write(model: Outgoing) -> Written:
    """As VivitModel, or as VivitForVideoClassification where there is a task."""
    config = model.config
    assert isinstance(config, FAMILY)
    told = _Vivit(**sizes(config.backbone, model.card), **raster_sizes(config.video), tubelet_size=config.tubelet)
    processor = processor_json(config.video, "VivitImageProcessor", offset=True)
    model.check(WRITES, _config(told, processor), ignore=NOT_OF_MODEL_1)
    kind, prefix = ("VivitForVideoClassification", "vivit.") if model.card else ("VivitModel", "")
    (t, h, w), c = config.tubelet, config.video.channels
    tensors = encoder_there(model.tree, prefix, config.backbone.depth, VIDEO_PATCHES, c=c, t=t, h=h, w=w)
    tensors |= model.classifier("classifier")
    written = config_json(told, "vivit", kind, leave_out=("patch_size",))
    return Written(kind, tensors, written, processor, lambda hidden: hidden[:, 1:])


NOT_OF_MODEL_1 = ("temporal_depth", "temporal_heads", "temporal_mlp", "temporal_start", "order")
"""Fields of a ViViTConfig that play no role where attention is joint."""


def _config(told: _Vivit, processor: Mapping[str, Any]) -> ViViTConfig:
    return ViViTConfig(backbone=told.backbone(), tubelet=told.tubelet_size, video=told.video(processor, stride=_STRIDE))
