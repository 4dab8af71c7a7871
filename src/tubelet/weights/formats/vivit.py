"""transformers' ViViT, which is the paper's Model 1."""

from __future__ import annotations

from dataclasses import dataclass

from tubelet.configs import part_of
from tubelet.models.vivit import ViViTConfig
from tubelet.specs import VideoSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.huggingface import Act, Settings, filled, label_task, pixels, prefix_of, rows
from tubelet.weights.formats.tree import Tree, foreign, gather
from tubelet.weights.formats.vit import encoder_state
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' ViViT"


@dataclass(frozen=True, kw_only=True)
class _Vivit(Settings):
    hidden_act: Act = "gelu_fast"
    layer_norm_eps: float = 1e-6
    num_frames: int = 32
    tubelet_size: tuple[int, int, int] = (2, 16, 16)


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type == "vivit"


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A ViViT; its head is the task "label"."""
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_Vivit, checkpoint.config)
        video = VideoSpec(frames=told.num_frames, **pixels(checkpoint.processor, told.size, told.num_channels))
        config = ViViTConfig(backbone=told.backbone(), tubelet=told.tubelet_size, video=video)
        prefix = prefix_of(tree, ("vivit.",))
        encoder = encoder_state(tree, prefix, config.backbone.depth)
        tasks = label_task(told, rows(tree, "classifier.weight"))
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if tasks else {}
        dropped = tree.finish(may_drop=(f"{prefix}pooler.",))
    return filled(checkpoint, config, tasks, encoder, heads, dropped)
