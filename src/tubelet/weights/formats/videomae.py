"""transformers' VideoMAE: classifiers and encoders, read and written; of pre-training models the encoder is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.positions import sinusoid_1d
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.huggingface import (
    OLD_BLOCK,
    VIDEO_PATCHES,
    VideoSettings,
    blocks_there,
    config_json,
    filled,
    label_task,
    prefix_of,
    processor_json,
    raster_sizes,
    rows,
    side,
    sizes,
)
from tubelet.weights.formats.tree import Tree, foreign, gather, gather_blocks, rearranged, restored, scatter
from tubelet.weights.formats.vivit import NOT_OF_MODEL_1
from tubelet.weights.formats.written import MisfitError, Outgoing, Written
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' VideoMAE"
WRITES, FAMILY = LOADS, ViViTConfig
_STRIDE = 4  # frames, as on Kinetics; no file says it
_POOLED_EPS = 1e-5  # PyTorch's default, which the norm before the classifier has, whatever the others have
_DECODER = ("encoder_to_decoder.", "decoder.", "mask_token")
_TOKENS_NORM, _POOLED_NORM = "encoder.transformer.norm", "representation.norm"


@dataclass(frozen=True, kw_only=True)
class _VideoMae(VideoSettings):
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
        config = _config(told, checkpoint.processor, final_norm)
        encoder = _encoder(tree, prefix, config)
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if tasks else {}
        dropped = tree.finish(may_drop=_DECODER)
    return filled(checkpoint, config, tasks, encoder, heads, dropped)


def write(model: Outgoing) -> Written:
    """As VideoMAEForVideoClassification where there is a task, which norms the mean of the tokens; else as
    VideoMAEModel, which norms the tokens or nothing.

    Biases of keys have no place and need none: they add the same to all scores of a query.
    """
    config = model.config
    assert isinstance(config, FAMILY)
    t, h, w = config.tubelet
    told = _VideoMae(
        **sizes(config.backbone, model.card), **raster_sizes(config.video), tubelet_size=t, patch_size=side((h, w))
    )
    processor = processor_json(config.video, "VideoMAEImageProcessor")
    final_norm = config.final_norm and not model.card
    model.check(WRITES, _config(told, processor, final_norm), ignore=NOT_OF_MODEL_1)
    if not torch.allclose(model.tree.take("encoder.positions.table"), _fixed(config), rtol=0, atol=1e-6):
        raise MisfitError(f"{WRITES} has fixed positions of its own, and this model's are others")
    kind, prefix = ("VideoMAEForVideoClassification", "videomae.") if model.card else ("VideoMAEModel", "")
    tensors = {
        **restored(VIDEO_PATCHES, model.tree, prefix, c=config.video.channels, t=t, h=h, w=w),
        **blocks_there(model.tree, prefix, config.backbone.depth),
        **_norm_there(model, f"{prefix}layernorm"),
        **model.classifier("classifier"),
    }
    for i in range(config.backbone.depth):
        attention = f"{prefix}encoder.layer.{i}.attention.attention."
        del tensors[f"{attention}key.bias"]
        tensors |= {f"{attention}{part[0]}_bias": tensors.pop(f"{attention}{part}.bias") for part in ("query", "value")}
    written = config_json(told, "videomae", kind) | {"use_mean_pooling": not final_norm}
    return Written(kind, tensors, written, processor, lambda hidden: hidden)


def _config(told: _VideoMae, processor: Mapping[str, Any], final_norm: bool) -> ViViTConfig:
    return ViViTConfig(
        backbone=told.backbone(),
        tubelet=(told.tubelet_size, *told.patch),
        video=told.video(processor, stride=_STRIDE),
        pool="mean",
        positions="sinusoids",
        final_norm=final_norm,
        norm_pooled=0.0 if final_norm else _POOLED_EPS,
    )


def _encoder(tree: Tree, prefix: str, config: ViViTConfig) -> dict[str, Tensor]:
    return {
        **rearranged(VIDEO_PATCHES, tree, prefix),
        "encoder.positions.table": _positions(tree, config),
        **gather_blocks(OLD_BLOCK, _leaf(tree), f"{prefix}encoder.layer.{{}}.", config.backbone.depth, "encoder."),
        **_norm(tree, prefix, config),
    }


def _norm(tree: Tree, prefix: str, config: ViViTConfig) -> dict[str, Tensor]:
    if config.final_norm:
        return gather({_TOKENS_NORM: [f"{prefix}layernorm"]}, tree.layer)
    if "fc_norm.weight" in tree:
        return gather({_POOLED_NORM: ["fc_norm"]}, tree.layer)
    width = config.backbone.width
    return {f"{_POOLED_NORM}.weight": torch.ones(width), f"{_POOLED_NORM}.bias": torch.zeros(width)}


def _norm_there(model: Outgoing, tokens_norm: str) -> dict[str, Tensor]:
    """The inverse of :func:`_norm`. An encoder alone has no place for a norm of the mean but a fresh one."""
    norms = (_POOLED_NORM, "fc_norm") if f"{_POOLED_NORM}.weight" in model.tree else (_TOKENS_NORM, tokens_norm)
    tensors = scatter({norms[0]: [norms[1]]}, model.tree.layer)
    if norms[0] == _TOKENS_NORM or model.card:
        return tensors
    weight, bias = tensors.values()
    if not torch.equal(weight, torch.ones_like(weight)) or bias.any():
        raise MisfitError(f"{WRITES} cannot hold a norm of the mean ({_POOLED_NORM}) without a task")
    return {}


def _positions(tree: Tree, config: ViViTConfig) -> Tensor:
    """The fixed positions, which no file holds."""
    tree.check_made("positions", math.prod(config.grid), config.backbone.width)
    return _fixed(config)


def _fixed(config: ViViTConfig) -> Tensor:
    return sinusoid_1d(math.prod(config.grid), config.backbone.width, dtype=torch.float64).float()


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
