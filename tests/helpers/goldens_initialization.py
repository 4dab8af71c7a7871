"""Goldens of starting a video model from an image ViT (ViViT Sec. 3.4)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from goldens_checkpoint import loaded_from
from goldens_golden import Golden, close
from goldens_models import vivit_config
from tubelet.models import Model, ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.heads import LinearHead
from tubelet.nn.inflation import inflate
from tubelet.nn.initializers import lecun_normal_
from tubelet.nn.positions import Grid, LearnedPositions
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.formats import scenic
from tubelet.weights.formats.scenic_vivit import vivit
from tubelet.weights.formats.tree import Tree
from tubelet.weights.loaded import LoadedModel, build_model, load_state
from tubelet.weights.transfer import Init, initialize_from

KERNELS = {
    "central_frame_initializer": "central",
    "average_frame_initializer": "average",
    "average_arp_frame_initializer": "rank",
}


def check_from_image(golden: Golden) -> None:
    """A whole ViViT, freshly built, started from an image ViT, with the released code's own choices."""
    config = target_config(golden)
    copied = golden.config["init_from"].get("init_temporal_transformer", True)
    config = replace(config, temporal_start="copy" if copied else "fresh")
    model = Model(config.build(), {})
    load_state(model.encoder, vivit(golden.tree("fresh/"), config), "fresh")
    initialize_from(loaded_from(golden.under("restored/")), model, config, released_init(golden.config))
    expected = golden.tree("initialised/")
    for name, value in vivit(expected, config).items():
        close(model.encoder.state_dict()[name], value, tolerance=1e-6, what=name)
    head = LinearHead(model.encoder.width, expected.shape("output_projection/bias")[0])
    load_state(head, scenic.head(expected), expected.origin)
    with torch.no_grad():
        video = rearrange(golden.tensor("input/video"), "B T H W C -> B T C H W")
        features = model.encoder.eval()({"video": video})
        close(head(features), golden.arrays["output/logits"], what="logits")
        close(features.pooled, golden.arrays["output/pre_logits"], what="pre_logits")


def resized(source: LearnedPositions, target: LearnedPositions) -> Tensor:
    """The table of one as the other starts from it."""
    return target.resample("table", source.table, source, "central")


def released_init(config: dict) -> Init:
    """Our option for each of the released code's. It looks for a class token under Model 2's name for it, does not find
    it in an image ViT, and leaves Model 2's at zero, which ours does only when told to."""
    released, model = config["init_from"], config["model"]
    fresh: list[str] = []
    if not released.get("restore_positional_embedding", True):
        fresh.append("encoder.*positions.table")
    if not released.get("init_spatial_transformer", True):
        fresh.append("*.attention.*")
    if model["attention_config"]["type"] == "factorized_encoder" and model["classifier"] == "token":
        fresh.append("encoder.spatial.cls")
    method = model["temporal_encoding_config"].get("kernel_init_method", "central_frame_initializer")
    return Init(
        source="golden",
        kernel=KERNELS[method] if released.get("restore_input_embedding", True) else "random",
        fresh=tuple(fresh),
    )


def target_config(golden: Golden) -> ViViTConfig:
    """The video model's config, its sizes read off the fresh parameters."""
    tree, model = golden.tree("fresh/"), golden.config["model"]
    is_factorized = model["attention_config"]["type"] == "factorized_encoder"
    spatial = sizes(tree, "SpatialTransformer" if is_factorized else "Transformer")
    has_temporal = is_factorized and "TemporalTransformer/encoder_norm/scale" in tree
    temporal = sizes(tree, "TemporalTransformer") if has_temporal else {}
    released = {
        **model,
        **spatial,
        "temporal_transformer": temporal or {"num_layers": 0},
        "input_shape_BTHWC": golden.arrays["input/video"].shape,
        "patches_size_hwt": model["patches"]["size"],
        "hidden_size": tree.shape("embedding/bias")[0],
    }
    return vivit_config(released)


def sizes(tree: Tree, transformer: str, block: str = "encoderblock_0") -> dict[str, int]:
    """``block``: the name of the first one."""
    table = scenic.block_of(tree, transformer)
    first, numbered = f"{transformer}/{block}", f"{transformer}/{block.replace('_0', '_{}')}"
    return {
        "num_layers": tree.count(f"{numbered}/{table['norm_mlp'][0]}/scale"),
        "num_heads": tree.shape(f"{first}/{table['attention.qkv'][0]}/bias")[0],
        "mlp_dim": tree.shape(f"{first}/{table['mlp.0'][0]}/bias")[0],
    }


def check_inflation(golden: Golden) -> None:
    for name, expected in golden.under("output/").items():
        case, method, what = name.split("/")
        if what == "bias":
            close(golden.arrays[f"input/{case}/bias"], expected, what=name)
            continue
        kernel = rearrange(golden.tensor(f"input/{case}/kernel2d(h,w,cin,cout)"), "h w C D -> D C h w")
        ours = inflate(kernel, int(case.removeprefix("t")), KERNELS[method])
        close(rearrange(ours, "D C t h w -> t h w C D"), expected, tolerance=1e-6, what=name)


def positions(grid: Grid, special: int, table: Tensor) -> LearnedPositions:
    made = LearnedPositions(grid, table.shape[-1], special)
    load_state(made, {"table": table.reshape(-1, table.shape[-1])}, "positions")
    return made


def square(places: int) -> Grid:
    side = math.isqrt(places)
    assert side * side == places, places
    return 1, side, side


def check_positions(golden: Golden) -> None:
    """A defect that is not copied: the released code takes tables of equal length for tables of equal grids, and copies
    a 4x4 image's table unchanged to 4 frames of 2x2. Ours resizes it to 2x2 and repeats it."""
    for case in golden.config["cases"]:
        given, fresh = golden.tensor(f"input/{case['i']}/restored"), golden.tensor(f"input/{case['i']}/target_init")
        special = {"token": 1, "gap": 0}
        places = given.shape[1] - special[case["src"]], fresh.shape[1] - special[case["dst"]]
        if case["change"] == "temporal 1d linear":
            grids = (places[0], 1, 1), (places[1], 1, 1)
        else:
            grids = square(places[0]), (case["n_frames"], case["grid"], case["grid"])
        source = positions(grids[0], special[case["src"]], given)
        target = positions(grids[1], special[case["dst"]], fresh)
        ours, expected = resized(source, target)[None], golden.arrays[f"output/{case['i']}/out"]
        if places[0] == places[1] and grids[0] != grids[1]:
            close(given[0, special[case["src"]] :], expected[0, special[case["dst"]] :], what="the released copy")
            per_frame = LearnedPositions((1, *grids[1][1:]), given.shape[-1])
            frame = resized(positions(grids[0], 0, given[0, special[case["src"]] :]), per_frame)
            close(ours[0, special[case["dst"]] :], frame.repeat(case["n_frames"], 1).detach(), what=str(case))
        else:
            close(ours, expected, what=str(case))


def check_position_helpers(golden: Golden) -> None:
    """A defect that is not copied: where a length is no square, or no multiple of the table's, the released helpers
    give a table that is too short. Ours is asked for a grid, and fills it."""
    folders = {
        "vivit interpolate_positional_embeddings": ("interp2d", "grid"),
        "mbt interpolate_positional_embeddings": ("mbt_interp2d", "grid"),
        "tile_positional_embeddings": ("tile", "grid"),
        "interpolate_1d_positional_embeddings": ("interp1d", "emb"),
    }
    for case in golden.config["cases"]:
        folder, array = folders[case["fn"]]
        given = golden.tensor(f"input/{folder}/{case['i']}/{array}")
        n, wanted = len(given), case["n_tokens"]
        if folder == "tile":
            grids = (1, n, 1), (wanted // n, n, 1)
        elif folder == "interp1d":
            grids = (n, 1, 1), (wanted, 1, 1)
        elif folder == "interp2d":
            side = math.isqrt(wanted)
            grids = square(n), (1, side, side)
        else:
            height, width = wanted if isinstance(wanted, list) else (math.isqrt(wanted), wanted // math.isqrt(wanted))
            grids = square(n), (1, height, width)
        target = LearnedPositions(grids[1], given.shape[-1])
        ours = resized(positions(grids[0], 0, given), target)
        close(ours[None], golden.arrays[f"output/{folder}/{case['i']}/out"], what=str(case))


def check_from_scratch(golden: Golden) -> None:
    """A defect that is not copied: without a checkpoint, the released "central frame" initializer zeroes all but one
    column of the width instead of all but one frame. Ours keeps the frame t // 2, from scratch as from a checkpoint."""
    t, h, w, channels, _ = golden.config["shape"]
    default = golden.tensor("output/default_kernel_init")
    central = golden.tensor("output/central_frame_initializer")
    by_column, by_frame = (central != 0).any(0), (central != 0).flatten(1).any(1)
    assert by_frame.all(), "the released kernel looks at every frame"
    assert by_column.any((0, 2, 3)).nonzero().ravel().tolist() == [t // 2], "but at one column"

    ours = inflate(rearrange(default[0], "h w C D -> D C h w"), t, "central")
    assert (ours != 0).any(2).all(), "every pixel and channel counts"
    assert (ours != 0).transpose(0, 2).flatten(1).any(1).nonzero().ravel().tolist() == [t // 2], "in one frame"

    average = golden.tensor("output/average_frame_initializer")
    ours = inflate(rearrange(t * default[0], "h w C D -> D C h w"), t, "average")
    close(rearrange(ours, "D C t h w -> t h w C D"), average, what="a fresh draw for all frames, repeated")

    torch.manual_seed(0)
    fresh = lecun_normal_(torch.empty(4096, channels * t * h * w))
    tolerance = 0.01 + 5 / math.sqrt(2 * default.numel())
    assert abs(fresh.std() / default.std() - 1) < tolerance, "the default kernel: lecun normal over all t h w C inputs"
    assert fresh.abs().max() <= 2.001 / 0.87962566 / math.sqrt(t * h * w * channels)


def check_dead_saddle(golden: Golden) -> None:
    """A defect that is not copied: with all four kernels of the temporal attention at zero, as the paper and the
    released code have it, nothing but its output bias ever gets a gradient. That is our option "zero"; our default,
    "residual", zeroes the output projection alone, and learns."""
    gradients = golden.under("grad_time/")
    tree = golden.tree("grad_time/")
    layers = tree.count("Transformer/encoderblock_{}/MultiHeadDotProductAttention_time/out/bias")
    heads, head_width = tree.shape("Transformer/encoderblock_0/MultiHeadDotProductAttention_time/query/bias")
    size = TransformerConfig(width=heads * head_width, depth=layers, heads=heads, mlp=32)
    for name, gradient in gradients.items():
        assert (np.abs(gradient).max() > 0) == name.endswith("out/bias"), name

    stuck, first = train_temporal_attention(size, "zero")
    for name, moved in (stuck | first).items():
        assert moved == name.endswith("out.bias"), name
    learning, first = train_temporal_attention(size, "residual")
    assert all(moved == (".out." in name) for name, moved in first.items()), (
        "the first gradient reaches the output only"
    )
    assert all(learning.values()), "and then everything"


def train_temporal_attention(
    size: TransformerConfig, temporal: str, steps: int = 3
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Whether each parameter of the temporal attention gets a gradient: after a few updates, and at the very first."""
    torch.manual_seed(0)
    image = ViTConfig(backbone=size, patch=(4, 4), image=ImageSpec(size=(16, 16), short_side=16))
    video = VideoSpec(frames=4, size=(16, 16), short_side=16)
    config = ViViTConfig(
        backbone=size,
        tubelet=(2, 4, 4),
        video=video,
        attention_type="factorized_self_attention",
        pool="mean",
        temporal_start=temporal,
    )
    model = Model(config.build(), {})
    initialize_from(LoadedModel(build_model(image, {}), image), model, config, Init(source="image"))
    wanted = {n: p for n, p in model.encoder.named_parameters() if ".attention_time." in n}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clip, target = torch.randn(2, 4, 3, 16, 16), torch.randn(2, size.width)
    reached: list[dict[str, bool]] = []
    for _ in range(steps):
        optimizer.zero_grad()
        (model.encoder({"video": clip}).pooled * target).sum().backward()
        reached.append({name: bool((parameter.grad != 0).any()) for name, parameter in wanted.items()})
        optimizer.step()
    return reached[-1], reached[0]
