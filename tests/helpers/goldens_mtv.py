"""Goldens of MTV: whole models, starting one from image ViTs, and the helpers that start one from another."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from goldens_checkpoint import check_checkpoint, loaded_from
from goldens_golden import Golden, close
from goldens_initialization import resized
from goldens_models import INNER_TOLERANCE, check_logits, pool, pooled
from tubelet.models import MTV, Model, MTVConfig
from tubelet.models.mtv import BottleneckFusion, CrossViewFusion, Fusion, Stream
from tubelet.models.mtv.fusion import at_times
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.heads import LinearHead
from tubelet.nn.inflation import inflate, resize
from tubelet.nn.positions import LearnedPositions
from tubelet.specs import VideoSpec
from tubelet.weights.formats import scenic
from tubelet.weights.formats.scenic_mtv import mtv
from tubelet.weights.formats.tree import Tree
from tubelet.weights.loaded import LoadedModel, load_state
from tubelet.weights.transfer import Init, initialize_from


def check_mtv(golden: Golden) -> None:
    c = golden.config
    config = mtv_config(c, c["input_shape_BTHWC"][1:])
    tree = golden.tree("param/")
    encoder = config.build()
    load_state(encoder, mtv(tree, config), tree.origin)
    check_checkpoint(golden.under("param/"), config, encoder.state_dict())
    pool_frames(encoder, c["classifier"])
    video = golden.tensor("input/video").permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        features = encoder.eval()({"video": video})
    for i, (name, part) in enumerate(features.parts.items()):
        close(part.tokens, encoded(golden, config, i), tolerance=INNER_TOLERANCE, what=name)
    if config.keep_space and "output/pre_logits" in golden.arrays:  # all tokens, by time and place
        tokens = golden.arrays["output/pre_logits"]
        close(features.tokens, tokens.reshape(len(video), -1, tokens.shape[-1]), INNER_TOLERANCE, "tokens")
        golden = replace(golden, arrays={n: x for n, x in golden.arrays.items() if n != "output/pre_logits"})
    check_logits(golden, tree, encoder, {"video": video}, c["classifier"])


def pool_frames(encoder: MTV, classifier: str) -> None:
    """The released code's three other classifiers also say what of a frame enters the global encoder."""
    others = {"0": lambda z: z[:, :, :1], "gmp": lambda z: z.amax(2, True), "gsp": lambda z: z.sum(2, True)}
    if classifier in others:
        for stream in encoder.streams.values():
            stream.frame = others[classifier]


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
    joined = g.get("merge_axis", "channel") == "channel"
    total = sum(s.backbone.width for s in streams.values())
    return MTVConfig(
        streams=streams,
        media={"video": spec},
        global_encoder=TransformerConfig(
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
        backbone=TransformerConfig(
            width=view["hidden_size"], depth=view["num_layers"], heads=view["num_heads"], mlp=view["mlp_dim"]
        ),
        tubelet=(t, h, w),
    )


def fusion(c: dict[str, Any] | None) -> Fusion | None:
    if not c or not c.get("type"):
        return None
    layers, towards = tuple(c["fusion_layers"]), "coarse" if c.get("fuse_in_descending_order", True) else "fine"
    if c["type"] == "bottleneck":
        return BottleneckFusion(layers=layers, tokens=c["bottleneck_tokens"], towards=towards)
    assert c["type"] == "cross_view_attention", c
    return CrossViewFusion(layers=layers, width="query" if c["use_query_config"] else "source", towards=towards)


@torch.no_grad()
def check_from_images(golden: Golden) -> None:
    """Every stream started from an image ViT of its own, with the released code's own choices."""
    c, fresh, expected = golden.config, golden.tree("fresh/"), golden.tree("initialised/")
    video = golden.tensor("input/video")
    config = config_from_shapes(c, fresh, list(video.shape[1:]))
    model = Model(config.build(), {}).eval()
    load_state(model.encoder, mtv(fresh, config), fresh.origin)
    sources = [loaded_from(golden.under(f"restored_view{i}/")) for i in range(len(config.streams))]
    for name, source in zip(config.streams, sources, strict=True):
        initialize_from(source, model, config, released_init(c, name))
    state = model.encoder.state_dict()
    released = mtv(expected, config)
    for name, source in zip(config.streams, sources, strict=True):
        table = f"streams.{name}.positions.table"
        if positions_restored(c) and not positions_as_meant(c, source, model.encoder.get_submodule(table[:-6])):
            state[table].copy_(released[table])
    for name, value in released.items():
        close(state[name], value, tolerance=1e-6, what=name)
    head = LinearHead(model.encoder.width, expected.shape("output_projection/bias")[0])
    load_state(head, scenic.head(expected), expected.origin)
    pool_frames(model.encoder, c["model"]["classifier"])
    features = model.encoder({"video": video.permute(0, 1, 4, 2, 3)})
    for name, logits in golden.under("output/logits").items():  # whatever stands after the word
        answer = head(replace(features, pooled=pooled(model.encoder, features, c["model"]["classifier"])))
        close(answer, logits, what=f"logits{name}")


def positions_restored(c: dict[str, Any]) -> bool:
    return c["init_from"].get("restore_positional_embedding", True)


def released_init(c: dict[str, Any], name: str) -> Init:
    """The released code has only the central frame here."""
    kernel = "central" if c["init_from"].get("restore_input_embedding", True) else "random"
    fresh = () if positions_restored(c) else (f"streams.{name}.positions.table",)
    return Init(source="golden", into=name, kernel=kernel, fresh=fresh)


def positions_as_meant(c: dict[str, Any], source: LoadedModel, ours: LearnedPositions) -> bool:
    """Whether the released table means the same as ours, the image's resized to a frame's grid.

    A defect that is not copied: the released code guesses grids from lengths, "tile" does not resize, and a table of
    equal length is copied whatever its grid.
    """
    given = source.model.encoder.encoder.positions
    close(ours.table, resized(given, ours), tolerance=1e-6, what="positions")
    how = c["init_from"].get("positional_embed_size_change")
    _, h, w = ours.grid
    return given.grid == ours.grid or (how == "resize" and h == w and math.prod(given.grid) != h * w)


def config_from_shapes(c: dict[str, Any], tree: Tree, shape: list[int]) -> MTVConfig:
    """The config of a freshly built model, of which the golden tells only the views."""
    encoder, views = "MultiviewEncoder", c["model"]["view_configs"]
    depth = max(view["num_layers"] for view in views)
    crossing = [i for i in range(depth) if f"{encoder}/cross_view_encoderblock_{i}/msa_ln_view0/scale" in tree]
    joined = "global_encoder_linear_view0/kernel" not in tree
    first = "global_encoder/encoderblock_0"
    heads, _ = tree.shape(f"{first}/MultiHeadDotProductAttention_0/query/bias")
    released = {
        **c["model"],
        "cross_view_fusion": None,
        "global_encoder_config": {
            "num_layers": tree.count("global_encoder/encoderblock_{}/LayerNorm_0/scale"),
            "num_heads": heads,
            "mlp_dim": tree.shape(f"{first}/MlpBlock_0/Dense_0/bias")[0],
            "merge_axis": "channel" if joined else "time",
            "hidden_size": tree.shape("global_encoder/encoder_norm/scale")[0],
        },
    }
    if crossing:
        descending = f"{encoder}/cross_view_encoderblock_{crossing[0]}/cross_attention_view0_1/query/kernel"
        ascending = descending.replace("view0_1", "view1_0")
        is_descending = descending in tree
        width, *inner = tree.shape(descending if is_descending else ascending)
        released["cross_view_fusion"] = {
            "type": "cross_view_attention",
            "fusion_layers": crossing,
            "fuse_in_descending_order": is_descending,
            "use_query_config": math.prod(inner) == width,
        }
    elif "bottleneck" in tree:
        _, _, tokens, width = tree.shape("bottleneck")
        projected = [i for i in range(depth) if any(_projection(tree, i, j) for j in range(len(views)))]
        released["cross_view_fusion"] = {
            "type": "bottleneck",
            "fusion_layers": projected or [depth - 1],
            "fuse_in_descending_order": width == views[-1]["hidden_size"],
            "bottleneck_tokens": tokens,
        }
    return mtv_config(released, shape)


def _projection(tree: Tree, layer: int, view: int) -> bool:
    return f"MultiviewEncoder/bottleneck_linear_{layer}_view{view}/kernel" in tree


def check_helpers(golden: Golden) -> None:
    """What is resized in time or space where one MTV starts another, or an image ViT one of other patches."""
    for name, expected in golden.under("output/").items():
        helper, _ = name.split("/")
        ((given,),) = [golden.under(f"input/{helper}/").values()]
        given = torch.from_numpy(given)
        match helper:
            case "interpolate_input_embedding":
                ours = resize(rearrange(given, "t h w C D -> D C t h w"), expected.shape[:3])
                ours = rearrange(ours, "D C t h w -> t h w C D")
            case "central_frame_init_embedding":
                t, h, w = expected.shape[:3]
                flat = resize(rearrange(given, "h w C D -> D C 1 h w"), (1, h, w))
                ours = rearrange(inflate(flat[:, :, 0], t, "central"), "D C t h w -> t h w C D")
            case "interpolate_cls_tokens" | "init_bottleneck":
                ours = at_times(given[0], expected.shape[1])[None]
        close(ours, expected, what=name)
