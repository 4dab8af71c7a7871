"""transformers' VideoMAE: classifiers, encoders, and pre-training models, of which the encoder is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.positions import sinusoid_1d
from tubelet.specs import VideoSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.huggingface import OLD_BLOCK, Settings, filled, label_task, pixels, prefix_of, rows
from tubelet.weights.formats.tree import Tree, foreign, gather, gather_blocks
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' VideoMAE"
_STRIDE = 4  # frames, as on Kinetics; no file says it
_POOLED_EPS = 1e-5  # PyTorch's default, which the norm before the classifier has, whatever the others have
_DECODER = ("encoder_to_decoder.", "decoder.", "mask_token")


@dataclass(frozen=True, kw_only=True)
class _VideoMae(Settings):
    num_frames: int = 16
    tubelet_size: int = 2


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type == "videomae"


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A ViViT (Model 1) with fixed positions, whose pooled feature is the mean of all tokens; its head is "label".

    A classifier norms that mean, and not the tokens. An encoder may norm the tokens; one that does not gets a fresh
    norm of the mean, as its fine-tuning begins.
    """
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_VideoMae, checkpoint.config)
        tasks = label_task(told, rows(tree, "classifier.weight"))
        prefix = prefix_of(tree, ("videomae.",))
        final_norm = f"{prefix}layernorm.weight" in tree
        if tasks and final_norm:
            raise WeightsError(
                f"{checkpoint.origin}: classifies by its first token alone; use_mean_pooling models load"
            )
        video = VideoSpec(
            frames=told.num_frames, stride=_STRIDE, **pixels(checkpoint.processor, told.size, told.num_channels)
        )
        config = ViViTConfig(
            backbone=told.backbone(),
            tubelet=(told.tubelet_size, *told.patch),
            video=video,
            pool="mean",
            positions="sinusoids",
            final_norm=final_norm,
            norm_pooled=0.0 if final_norm else _POOLED_EPS,
        )
        encoder = _encoder(tree, prefix, config)
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if tasks else {}
        dropped = tree.finish(may_drop=_DECODER)
    return filled(checkpoint, config, tasks, encoder, heads, dropped)


def _encoder(tree: Tree, prefix: str, config: ViViTConfig) -> dict[str, Tensor]:
    patches, width = f"{prefix}embeddings.patch_embeddings.projection", config.backbone.width
    return {
        "tokenizer.projection.weight": tree.take(f"{patches}.weight").flatten(1),
        "tokenizer.projection.bias": tree.take(f"{patches}.bias"),
        "encoder.positions.table": _positions(tree, config),
        **gather_blocks(OLD_BLOCK, _leaf(tree), f"{prefix}encoder.layer.{{}}.", config.backbone.depth, "encoder."),
        **_norm(tree, prefix, config, width),
    }


def _norm(tree: Tree, prefix: str, config: ViViTConfig, width: int) -> dict[str, Tensor]:
    if config.final_norm:
        return gather({"norm": [f"{prefix}layernorm"]}, tree.layer, "encoder.transformer.")
    if "fc_norm.weight" in tree:
        return gather({"norm": ["fc_norm"]}, tree.layer, "representation.")
    return {"representation.norm.weight": torch.ones(width), "representation.norm.bias": torch.zeros(width)}


def _positions(tree: Tree, config: ViViTConfig) -> Tensor:
    """The fixed positions, which no file holds."""
    places, width = math.prod(config.grid), config.backbone.width
    tree.check_made("positions", places, width)
    return sinusoid_1d(places, width, dtype=torch.float64).float()


def _leaf(tree: Tree) -> Callable[[str], tuple[Tensor, Tensor]]:
    """A layer's weight and bias: keys have none, which attention would not see; those of queries and values have had
    another name."""

    def leaf(name: str) -> tuple[Tensor, Tensor]:
        layer, _, part = name.rpartition(".")
        if part not in ("query", "key", "value"):
            return tree.layer(name)
        weight = tree.take(f"{name}.weight")
        told = next((bias for bias in (f"{name}.bias", f"{layer}.{part[0]}_bias") if bias in tree), "")
        return weight, tree.take(told) if told else weight.new_zeros(len(weight))

    return leaf
