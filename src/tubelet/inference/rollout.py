"""Attention rollout (Abnar & Zuidema 2020): how much of each token reaches the pooled feature, by factorization.

A block's attention, averaged over its heads and mixed half and half with the residual connection, moves shares of the
result from tokens to the tokens they were made of. Starting at what reads the result (the class token, or the mean of
all tokens) and going backwards costs a product of a vector and a matrix per block, not of two matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from tubelet.inference import rollout_meeting as meeting
from tubelet.inference.rollout_steps import sequence, spread
from tubelet.models.ast import ASTConfig
from tubelet.models.mbt import MBTConfig
from tubelet.models.model import ModelConfig
from tubelet.models.mtv import MTVConfig
from tubelet.models.polyvit import PolyViTConfig
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.models.tubevit import TubeViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.positions import Grid
from tubelet.nn.tokenizers import grid_of

Maps = Mapping[str, Tensor]
Shares = Float[Tensor, "B t h w"]


@singledispatch
def rollout(config: ModelConfig, maps: Maps, modality: str = "") -> Shares:
    """The share of every token of the (t, h, w) grid in the result, class tokens left out.

    Shares sum to 1: those of all inputs that were encoded together.

    A spectrogram's grid is (1, time, frequency). ``maps``: the ``attention`` of the features that ``config``'s encoder
    returned. ``modality``: which input the grid is of, where there are several. Raises TypeError for a model whose
    rollout is not written.
    """
    known = "ViT, ViViT, AST, PolyViT, MTV, TokenLearner, MBT and TubeViT"
    raise TypeError(f"attention rollout is written for {known}, not for {type(config).__name__}")


@rollout.register
def _(config: ViTConfig, maps: Maps, modality: str = "") -> Shares:
    return _joint(maps, grid_of(config.image.extent, (1, *config.patch)))


@rollout.register
def _(config: ASTConfig, maps: Maps, modality: str = "") -> Shares:
    return _joint(maps, grid_of(config.audio.extent, (1, *config.patch)))


@rollout.register
def _(config: PolyViTConfig, maps: Maps, modality: str = "") -> Shares:
    chosen = config.modalities[modality]
    return _joint(maps, grid_of(chosen.spec.extent, chosen.patch))


@rollout.register
def _(config: ViViTConfig, maps: Maps, modality: str = "") -> Shares:
    grid = grid_of((config.clip_frames, *config.video.size), config.tubelet)
    match config.attention_type:
        case "joint":
            return _joint(maps, grid)
        case "factorized_encoder":
            return _factorized_encoder(maps, grid)
        case "factorized_self_attention":
            return _factorized_self_attention(maps, grid)
        case "factorized_dot_product":
            return _factorized_dot_product(maps, grid)


@rollout.register
def _(config: TubeViTConfig, maps: Maps, modality: str = "") -> Shares:
    """The grid is that of single frames and of patches: every token's share is spread evenly over what it reads. What
    a gate adds is left out."""
    tubes = (config.patch, *config.tubes) if modality == "video" else (config.patch,)
    extent, patch = config.inputs[modality].extent, config.patch.kernel
    boxes = torch.cat([tube.boxes(extent) for tube in tubes])
    shares = sequence(list(maps.values()), len(boxes))
    time, height, width = (spread(*axis).to(shares) for axis in zip(boxes.unbind(1), extent, patch, strict=True))
    return einsum(shares, time, height, width, "B n, n t, n h, n w -> B t h w")


@rollout.register
def _(config: TokenLearnerConfig, maps: Maps, modality: str = "") -> Shares:
    return meeting.token_learner(config, maps)


@rollout.register
def _(config: MBTConfig, maps: Maps, modality: str = "") -> Shares:
    return meeting.mbt(config, maps, modality)


@rollout.register
def _(config: MTVConfig, maps: Maps, modality: str = "") -> Shares:
    return meeting.mtv(config, maps, modality)


def _joint(maps: Maps, grid: Grid) -> Shares:
    """ViT, AST, PolyViT and Model 1: attention among all tokens, (B, heads, N, N) per layer."""
    t, h, w = grid
    return sequence(list(maps.values()), t * h * w).unflatten(-1, grid)


def _factorized_encoder(maps: Maps, grid: Grid) -> Shares:
    """Model 2: a time index's share in the temporal encoder, times a token's share in its index's spatial encoder."""
    t, h, w = grid
    space = sequence([a for name, a in maps.items() if name.startswith("spatial/")], h * w)
    temporal = [a for name, a in maps.items() if name.startswith("temporal/")]
    time = sequence(temporal, t) if temporal else torch.full(space.shape[:2], 1 / t, device=space.device)
    return (time[..., None] * space).unflatten(-1, (h, w))


def _factorized_self_attention(maps: Maps, grid: Grid) -> Shares:
    """Model 3: attention over space and over time follow each other in a block, each with its own residual."""
    shares = _uniform(maps, grid)
    for name, weights in reversed(list(maps.items())):
        shares = (shares + _moved(shares, name, weights)) / 2
    return shares.unflatten(-1, grid[1:])


def _factorized_dot_product(maps: Maps, grid: Grid) -> Shares:
    """Model 4: half of a block's heads attend over space, half over time, around one residual."""
    shares = _uniform(maps, grid)
    for layer in reversed(dict.fromkeys(name.partition("/")[0] for name in maps)):
        moved = [_moved(shares, name, maps[name]) for name in (f"{layer}/space", f"{layer}/time")]
        shares = shares / 2 + sum(moved, torch.zeros_like(shares)) / 4
    return shares.unflatten(-1, grid[1:])


def _uniform(maps: Maps, grid: Grid) -> Float[Tensor, "B t n"]:
    t, h, w = grid
    first = next(iter(maps.values()))
    return first.new_full((len(first), t, h * w), 1 / (t * h * w))


def _moved(shares: Float[Tensor, "B t n"], name: str, weights: Tensor) -> Float[Tensor, "B t n"]:
    """One step back through attention over space (B, t, heads, n, n) or over time (B, n, heads, t, t)."""
    mean = weights.mean(2)
    if name.endswith("/space"):
        return einsum(shares, mean, "B t n, B t n m -> B t m")
    return rearrange(einsum(shares, mean, "B t n, B n t s -> B n s"), "B n s -> B s n")
