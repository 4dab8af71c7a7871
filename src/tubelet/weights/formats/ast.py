"""transformers' AST, and how its feature extractor hears."""

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
from tubelet.weights.formats.huggingface import Settings, blocks, filled, label_task, prefix_of, rows
from tubelet.weights.formats.tree import Tree, foreign, gather
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' AST"
_FLOOR = 2.0**-23  # of energies: the smallest step of a float32 from 1


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
        config = ASTConfig(
            backbone=told.backbone(),
            patch=told.patch,
            stride=(told.time_stride, told.frequency_stride),
            audio=_heard(told, checkpoint.processor),
            pool="tokens-mean",
            registers=1,
            norm_pooled=told.layer_norm_eps if tasks else 0.0,
        )
        prefix = prefix_of(tree, ("audio_spectrogram_transformer.",))
        encoder = _encoder(tree, prefix, config.backbone.depth, config.grid)
        heads: Mapping[str, Tensor] = {}
        if tasks:
            encoder |= gather({"norm": ["classifier.layernorm"]}, tree.layer, "representation.")
            heads = gather({"projection": ["classifier.dense"]}, tree.layer, "label.")
        tree.finish()
    return filled(checkpoint, config, tasks, encoder, heads)


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
    patches = f"{prefix}embeddings.patch_embeddings.projection"
    positions = tree.take(f"{prefix}embeddings.position_embeddings")[0]
    cls, distillation, places = positions[:1], positions[1:2], positions[2:]
    return {
        "tokenizer.projection.weight": rearrange(tree.take(f"{patches}.weight"), "D 1 f t -> D (t f)"),
        "tokenizer.projection.bias": tree.take(f"{patches}.bias"),
        "encoder.cls": tree.take(f"{prefix}embeddings.cls_token")[0],
        "encoder.registers": tree.take(f"{prefix}embeddings.distillation_token")[0] + distillation,
        "encoder.positions.table": torch.cat([cls, rearrange(places, "(f t) D -> (t f) D", t=grid[1])]),
        **gather({"norm": [f"{prefix}layernorm"]}, tree.layer, "encoder.transformer."),
        **blocks(tree, prefix, depth),
    }
