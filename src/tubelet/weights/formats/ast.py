"""transformers' AST, read and written, and how its feature extractor hears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.ast import ASTConfig
from tubelet.nn.positions import Grid
from tubelet.specs import SpectrogramSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.huggingface import (
    Settings,
    blocks,
    blocks_there,
    config_json,
    filled,
    label_task,
    prefix_of,
    rows,
    sizes,
)
from tubelet.weights.formats.tree import Places, Tree, foreign, gather, rearranged, restored, scatter
from tubelet.weights.formats.written import Outgoing, Written
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' AST"
WRITES, FAMILY = LOADS, ASTConfig
_FLOOR = 2.0**-23  # of energies: the smallest step of a float32 from 1
_PATCHES = "embeddings.patch_embeddings.projection"
_PLACES: Places = {
    "tokenizer.projection.weight": (f"{_PATCHES}.weight", "D 1 f t -> D (t f)"),
    "tokenizer.projection.bias": (f"{_PATCHES}.bias", "D -> D"),
    "encoder.cls": ("embeddings.cls_token", "1 n D -> n D"),
    "encoder.registers": ("embeddings.distillation_token", "1 n D -> n D"),
}
_TABLE, _POSITIONS = "encoder.positions.table", "embeddings.position_embeddings"
_NORM, _POOLED_NORM = "encoder.transformer.norm", "representation.norm"


@dataclass(frozen=True, kw_only=True)
class _Ast(Settings):
    max_length: int = 1024
    num_mel_bins: int = 128
    time_stride: int = 10
    frequency_stride: int = 10


@dataclass(frozen=True, kw_only=True)
class _Extractor:
    """What is read of a feature extractor's file."""

    sampling_rate: int = 16_000
    do_normalize: bool = True
    mean: float = -4.2677393
    std: float = 4.5689974


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type == "audio-spectrogram-transformer"


def read(checkpoint: Checkpoint) -> LoadedModel:
    """An AST; its head is the task "label", and the layer norm before that head the encoder's."""
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_Ast, checkpoint.config)
        tasks = label_task(told, rows(tree, "classifier.dense.weight"))
        config = _config(told, checkpoint.processor, norm_pooled=bool(tasks))
        prefix = prefix_of(tree, ("audio_spectrogram_transformer.",))
        encoder = _encoder(tree, prefix, config.backbone.depth, config.grid)
        heads: Mapping[str, Tensor] = {}
        if tasks:
            encoder |= gather({_POOLED_NORM: ["classifier.layernorm"]}, tree.layer)
            heads = gather({"projection": ["classifier.dense"]}, tree.layer, "label.")
        tree.finish()
    return filled(checkpoint, config, tasks, encoder, heads)


def write(model: Outgoing) -> Written:
    """As ASTModel, or as ASTForAudioClassification where there is a task.

    The register's place goes with it: that of the distillation token is zero.
    """
    config = model.config
    assert isinstance(config, FAMILY)
    spec, (_, t, f), tree = config.audio, config.grid, model.tree
    told = _Ast(
        **sizes(config.backbone, model.card),
        patch_size=config.patch[0],
        max_length=spec.frames,
        num_mel_bins=spec.bins,
        time_stride=config.steps[1],
        frequency_stride=config.steps[2],
    )
    processor = {
        "feature_extractor_type": "ASTFeatureExtractor",
        "feature_size": 1,
        "sampling_rate": spec.rate,
        "num_mel_bins": spec.bins,
        "max_length": spec.frames,
        "padding_value": 0.0,
        "do_normalize": True,
        "mean": spec.mean,
        "std": spec.std / 2,
        "return_attention_mask": False,
    }
    model.check(WRITES, _config(told, processor, norm_pooled=bool(model.card)), ignore=("stride",))
    kind = "ASTForAudioClassification" if model.card else "ASTModel"
    prefix = "audio_spectrogram_transformer." if model.card else ""
    norms = {_NORM: [f"{prefix}layernorm"]} | ({_POOLED_NORM: ["classifier.layernorm"]} if model.card else {})
    tensors = {
        **restored(_PLACES, tree, prefix, t=config.patch[0], f=config.patch[1]),
        f"{prefix}{_POSITIONS}": _table_there(tree.take(_TABLE), t, f),
        **blocks_there(tree, prefix, config.backbone.depth),
        **scatter(norms, tree.layer),
        **model.classifier("classifier.dense"),
    }
    written = config_json(told, "audio-spectrogram-transformer", kind, leave_out=("image_size", "num_channels"))
    return Written(
        kind, tensors, written, processor, lambda hidden: rearrange(hidden[:, 2:], "B (f t) D -> B (t f) D", t=t)
    )


def _config(told: _Ast, processor: Mapping[str, Any], norm_pooled: bool) -> ASTConfig:
    return ASTConfig(
        backbone=told.backbone(),
        patch=told.patch,
        stride=(told.time_stride, told.frequency_stride),
        audio=_heard(told, processor),
        pool="tokens-mean",
        registers=1,
        norm_pooled=told.layer_norm_eps if norm_pooled else 0.0,
    )


def _heard(told: _Ast, processor: Mapping[str, Any]) -> SpectrogramSpec:
    """Kaldi's filter bank, as the feature extractor has it: normalized by twice the deviation that its file says."""
    extractor = part_of(_Extractor, processor)
    return SpectrogramSpec(
        frames=told.max_length,
        bins=told.num_mel_bins,
        rate=extractor.sampling_rate,
        taper="hann",
        fft=512,
        high=extractor.sampling_rate / 2,
        offset=_FLOOR,
        mean=extractor.mean if extractor.do_normalize else 0.0,
        std=2 * extractor.std if extractor.do_normalize else 1.0,
        style="kaldi",
        short="blank",
        channels=1,
    )


def _encoder(tree: Tree, prefix: str, depth: int, grid: Grid) -> dict[str, Tensor]:
    """Its patches and positions have frequency before time; ours, time before frequency. Its distillation token becomes
    a register, its place added to it."""
    positions = tree.take(f"{prefix}{_POSITIONS}")[0]
    cls, distillation, places = positions[:1], positions[1:2], positions[2:]
    state = rearranged(_PLACES, tree, prefix)
    return {
        **state,
        "encoder.registers": state["encoder.registers"] + distillation,
        _TABLE: torch.cat([cls, rearrange(places, "(f t) D -> (t f) D", t=grid[1])]),
        **gather({_NORM: [f"{prefix}layernorm"]}, tree.layer),
        **blocks(tree, prefix, depth),
    }


def _table_there(table: Tensor, t: int, f: int) -> Tensor:
    places = rearrange(table[1:], "(t f) D -> (f t) D", t=t, f=f)
    return torch.cat([table[:1], torch.zeros_like(table[:1]), places])[None]
