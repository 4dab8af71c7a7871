"""Goldens of MTV: whole models, starting one from image ViTs, and the helpers that start one from another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from goldens_golden import Golden, close
from goldens_models import INNER_TOLERANCE, check_logits, pool
from tubelet.models import MTVConfig
from tubelet.models.mtv import BottleneckFusion, CrossViewFusion, Fusion, Stream
from tubelet.nn.blocks import Backbone
from tubelet.specs import VideoSpec
from tubelet.weights.loaded import fill
from tubelet.weights.scenic_mtv import mtv


def check_mtv(golden: Golden) -> None:
    c = golden.config
    config = mtv_config(c, c["input_shape_BTHWC"][1:])
    tree = golden.tree("param/")
    encoder = config.build()
    fill(encoder, mtv(tree, config), tree.origin)
    video = golden.tensor("input/video").permute(0, 1, 4, 2, 3)
    check_logits(golden, tree, encoder, {"video": video}, c["classifier"])
    with torch.no_grad():
        parts = encoder({"video": video}).parts
    for i, (name, part) in enumerate(parts.items()):
        close(part.tokens, encoded(golden, config, i), tolerance=INNER_TOLERANCE, what=name)


def encoded(golden: Golden, config: MTVConfig, i: int) -> Tensor:
    """A stream's tokens as the released encoder leaves them, which has them by time step, without the class tokens."""
    t, h, w = list(config.grids.values())[i]
    tokens = golden.tensor(f"output/inter/encoded_view{i}(B,Tmin,N,C)")
    frames = tokens.flatten(1, 2).unflatten(1, (t, -1))
    return frames[:, :, -h * w :].flatten(1, 2)


def mtv_config(c: dict[str, Any], shape: list[int]) -> MTVConfig:
    frames, height, width, channels = shape
    scale = (0.5,) * channels
    spec = VideoSpec(frames=frames, size=(height, width), short_side=min(height, width), mean=scale, std=scale)
    streams = {f"view{i}": stream(view) for i, view in enumerate(c["view_configs"])}
    g = c["global_encoder_config"]
    joined = g["merge_axis"] == "channel"
    total = sum(s.backbone.width for s in streams.values())
    return MTVConfig(
        streams=streams,
        media={"video": spec},
        global_encoder=Backbone(
            width=total if joined else g["hidden_size"], depth=g["num_layers"], heads=g["num_heads"], mlp=g["mlp_dim"]
        ),
        fusion=fusion(c.get("cross_view_fusion")),
        merge="channel" if joined else "time",
        pool=pool(c["classifier"]),
        keep_space=c.get("keep_spatiotemporal_features", False),
    )


def stream(view: dict[str, Any]) -> Stream:
    h, w, t = view["patches"]["size"]
    return Stream(
        backbone=Backbone(
            width=view["hidden_size"], depth=view["num_layers"], heads=view["num_heads"], mlp=view["mlp_dim"]
        ),
        tubelet=(t, h, w),
    )


def fusion(c: dict[str, Any] | None) -> Fusion | None:
    if not c or not c.get("type"):
        return None
    layers, towards = tuple(c["fusion_layers"]), "coarse" if c["fuse_in_descending_order"] else "fine"
    if c["type"] == "bottleneck":
        return BottleneckFusion(layers=layers, tokens=c["bottleneck_tokens"], towards=towards)
    assert c["type"] == "cross_view_attention", c
    return CrossViewFusion(layers=layers, width="query" if c["use_query_config"] else "source", towards=towards)
