"""The released ViViT's parameters in our names: Models 1 to 4."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from tubelet.models import ModelConfig
from tubelet.models.vivit import AttentionType, ViViTConfig
from tubelet.weights.formats.scenic import (
    backbone_of,
    places_of,
    pool_of,
    representation,
    representation_width,
    token_encoder,
    tokenizer,
    transformer,
)
from tubelet.weights.formats.scenic_shapes import frames_spec, is_video, patch_of, untold, video_spec
from tubelet.weights.formats.tree import Tree


def is_vivit(tree: Tree, like: ModelConfig | None) -> bool:
    """Whether it is a ViViT: by its names, by a kernel with frames, or, where single frames are embedded, because
    ``like`` samples as many frames as there are positions for."""
    if "SpatialTransformer/encoder_norm/scale" in tree or is_video(tree):
        return True
    if not isinstance(like, ViViTConfig) or not like.sampled_frames:
        return False
    return math.prod(like.grid) == places_of(tree, "Transformer", pool_of(tree, "cls"))


def vivit_config(tree: Tree, like: ModelConfig | None = None) -> ViViTConfig:
    """The config of a ViViT, read off its names and shapes.

    Models 1 and 4 have the same parameters where there is no class token, and Model 3 does not say its order: then
    ``like`` must be a ViViT, as for sizes that are not the released ones.
    """
    told = like if isinstance(like, ViViTConfig) else None
    if "SpatialTransformer/encoder_norm/scale" in tree:
        return _factorized_encoder_config(tree, told)
    attention_type = _attention_type(tree, told)
    patch, channels = patch_of(tree)
    pool, sampled = pool_of(tree, "cls"), 0 if is_video(tree) else told.sampled_frames if told else 0
    places = places_of(tree, "Transformer", pool)
    if told and sampled:
        video = replace(told.video, mean=(0.5,) * channels, std=(0.5,) * channels)
    else:
        video = video_spec(tree, like, patch, places, channels)
    if attention_type == "factorized_self_attention" and (told is None or told.attention_type != attention_type):
        raise untold(tree, "whether Model 3 attends over space or over time first", "vivit-b/16x2-fsa")
    return ViViTConfig(
        backbone=backbone_of(tree, "Transformer"),
        tubelet=patch,
        video=video,
        attention_type=attention_type,
        pool=pool,
        sampled_frames=sampled,
        temporal_depth=told.temporal_depth if told else ViViTConfig.temporal_depth,
        order=told.order if told else ViViTConfig.order,
        representation=representation_width(tree),
    )


def _attention_type(tree: Tree, told: ViViTConfig | None) -> AttentionType:
    if "Transformer/encoderblock_0/LayerNorm_time/scale" in tree:
        return "factorized_self_attention"
    if "cls" in tree:
        return "joint"
    if told is None or told.attention_type not in ("joint", "factorized_dot_product"):
        raise untold(tree, "whether it is a Model 1 without class token or a Model 4", "vivit-b/16x2-fdp")
    return told.attention_type


def _factorized_encoder_config(tree: Tree, told: ViViTConfig | None) -> ViViTConfig:
    """Model 2, whose two tables of positions tell frames and patches apart."""
    patch, channels = patch_of(tree)
    pool = pool_of(tree, "cls_SpatialTransformer")
    sampled = 0 if is_video(tree) else told.sampled_frames if told else 0
    if not is_video(tree) and not sampled:
        raise untold(tree, "which frames of a clip it embeds, one by one (sampled_frames)", "vivit-b/16x2-fe")
    spatial = backbone_of(tree, "SpatialTransformer")
    temporal = replace(spatial, depth=0)
    times = told.grid[0] if told else 32 // patch[0]
    if "TemporalTransformer/encoder_norm/scale" in tree:
        temporal = backbone_of(tree, "TemporalTransformer")
        times = places_of(tree, "TemporalTransformer", pool)
    places = places_of(tree, "SpatialTransformer", pool)
    if told and sampled:
        video = replace(told.video, mean=(0.5,) * channels, std=(0.5,) * channels)
    else:
        video = frames_spec(tree, told, patch, times * patch[0], places, channels)
    return ViViTConfig(
        backbone=spatial,
        tubelet=patch,
        video=video,
        attention_type="factorized_encoder",
        pool=pool,
        sampled_frames=sampled,
        temporal_depth=temporal.depth,
        temporal_heads=0 if temporal.heads == spatial.heads else temporal.heads,
        temporal_mlp=0 if temporal.mlp == spatial.mlp else temporal.mlp,
        order=told.order if told else ViViTConfig.order,
        representation=representation_width(tree),
    )


def vivit(tree: Tree, config: ViViTConfig) -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.models.vivit.ViViT`: any of the four models."""
    match config.attention_type:
        case "joint":
            encoder = token_encoder(tree, "Transformer", "cls", config.backbone.depth, "encoder.")
        case "factorized_encoder":
            encoder = _factorized_encoder(tree, config)
        case "factorized_self_attention" | "factorized_dot_product":
            encoder = transformer(tree, "Transformer", config.backbone.depth, "encoder.")
    return {**tokenizer(tree), **encoder, **representation(tree, config.representation)}


def _factorized_encoder(tree: Tree, config: ViViTConfig) -> dict[str, Tensor]:
    """Model 2; the released checkpoints have their own class token in each of the two transformers."""
    depths = {"Spatial": config.backbone.depth, "Temporal": config.temporal_depth}
    parts = [
        token_encoder(tree, f"{part}Transformer", f"cls_{part}Transformer", depth, f"encoder.{part.lower()}.")
        for part, depth in depths.items()
        if depth
    ]
    return {name: x for part in parts for name, x in part.items()}
