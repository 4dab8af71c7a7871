"""Goldens of MBT: models of video, of sound and of both, and starting one from an image ViT."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from goldens_checkpoint import check_checkpoint, loaded_from
from goldens_golden import RELATIVE, Golden, close
from goldens_initialization import KERNELS, positions, resized, sizes
from goldens_models import INNER_TOLERANCE, before_tanh, pool
from tubelet.models import MBTConfig, Modality, Model
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.heads import LinearHead
from tubelet.nn.positions import LearnedPositions
from tubelet.nn.tokenizers import uniform_frames
from tubelet.specs import InputSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.formats import scenic
from tubelet.weights.formats.scenic_mbt import mbt
from tubelet.weights.formats.tree import Tree
from tubelet.weights.loaded import LoadedModel, load_state
from tubelet.weights.transfer import Init, initialize_from

NAMES = {"rgb": "video", "spectrogram": "audio"}


@torch.no_grad()
def check_mbt(golden: Golden) -> None:
    c, tree = golden.config, golden.tree("param/")
    inputs = {name: golden.tensor(f"input/{name}").movedim(-1, -3) for name in c["modality_fusion"]}
    config = mbt_config(c, tree, {name: tuple(x.shape[1:]) for name, x in inputs.items()})
    encoder = config.build().eval()
    load_state(encoder, mbt(tree, config), tree.origin)
    check_checkpoint(golden.under("param/"), config, encoder.state_dict())
    head = LinearHead(encoder.width, c["num_classes"])
    load_state(head, scenic.head(tree), tree.origin)
    assert tree.finish() == (), "the golden's parameters are all used"

    with before_tanh(encoder) as untamed:
        features = encoder({NAMES[name]: x for name, x in inputs.items()})
    answer = head(replace(features, pooled=pooled(features, c["classifier"])))
    close(answer, golden.arrays["output/logits"], what="logits")
    for name, expected in golden.under("output/pre_logits/").items():
        ours = features.parts[NAMES[name]].pooled
        if untamed and not np.allclose(ours, expected, RELATIVE, INNER_TOLERANCE):
            ours = untamed[list(features.parts).index(NAMES[name])]
        close(ours, expected, INNER_TOLERANCE, what=name)
    if "output/inter/encoder_norm" in golden.arrays:
        expected = golden.arrays["output/inter/encoder_norm"]
        close(sequence(features, config), expected, INNER_TOLERANCE, what="tokens")
    encoder.train()
    answers = head(encoder({NAMES[name]: x for name, x in inputs.items()})).view(len(inputs), -1, c["num_classes"])
    for name, expected in golden.under("output/train_logits/").items():
        close(answers[list(inputs).index(name)], expected, what=f"{name} in training")


def pooled(features: Features, classifier: str) -> Tensor:
    """The pooled features; the released code's three other classifiers are computed from the tokens."""
    match classifier:
        case "0":
            return torch.stack([part.tokens[:, 0] for part in features.parts.values()]).mean(0)
        case "gmp":
            return features.tokens.amax(1)
        case "gsp":
            return features.tokens.sum(1)
        case _:
            return features.pooled


def sequence(features: Features, config: MBTConfig) -> Tensor:
    """The tokens of one modality after the other, class tokens first."""
    parts = features.parts.values()
    if config.pool == "mean":
        return features.tokens
    return torch.cat([torch.cat([part.pooled[:, None], part.tokens], dim=1) for part in parts], dim=1)


def mbt_config(c: dict[str, Any], tree: Tree, shapes: dict[str, tuple[int, ...]]) -> MBTConfig:
    h, w, t = c["patches"]
    patches = {"rgb": (t, h, w), "spectrogram": (1, h, w)}
    return MBTConfig(
        backbone=TransformerConfig(
            width=c["hidden_size"], depth=c["num_layers"], heads=c["num_heads"], mlp=c["mlp_dim"]
        ),
        modalities={NAMES[n]: Modality(spec=spec_of(shape), patch=patches[n]) for n, shape in shapes.items()},
        fusion_layer=c["fusion_layer"],
        fusion="bottleneck" if c["use_bottleneck"] else "concatenate",
        bottlenecks=c["n_bottlenecks"],
        shared=c["share_encoder"],
        pool=pool(c["classifier"]),
        fused_at_test=c["test_with_bottlenecks"] or not c["use_bottleneck"],
        representation=c.get("representation_size") or 0,
    )


def spec_of(shape: tuple[int, ...]) -> InputSpec:
    """Of a channels-first video, or of a spectrogram whose channels differ: it goes as an image."""
    *frames, channels, height, width = shape
    if not frames:
        return SpectrogramSpec(frames=height, bins=width, channels=channels)
    scale = (0.5,) * channels
    return VideoSpec(frames=frames[0], size=(height, width), short_side=min(height, width), mean=scale, std=scale)


@torch.no_grad()
def check_from_image(golden: Golden) -> None:
    """Both modalities started from one image ViT, with the released code's own choices.

    A defect that is not copied: it looks for the class token of sound under another name than the model gives it, and
    leaves it at zero, which ours does only when told to.
    """
    c, fresh, expected = golden.config, golden.tree("fresh/"), golden.tree("initialised/")
    inputs = released_inputs(golden)
    config = config_from_shapes(c, fresh, {name: tuple(x.shape[1:]) for name, x in inputs.items()})
    restored = c["init_from"].get("restore_positional_embedding", True)
    config = replace(config, bottleneck_start="positions" if restored else "fresh")
    model = Model(config.build(), {}).eval()
    load_state(model.encoder, mbt(fresh, config), fresh.origin)
    source = loaded_from(golden.under("restored/"))
    initialize_from(source, model, config, released_init(c, config))
    state, released = model.encoder.state_dict(), mbt(expected, config)
    if c["init_from"].get("restore_positional_embedding", True):
        for name in config.modalities:
            table = model.encoder.get_submodule(f"modalities.{name}.positions")
            if not positions_as_meant(c, source, table):
                state[f"modalities.{name}.positions.table"].copy_(released[f"modalities.{name}.positions.table"])
    for name, value in released.items():
        close(state[name], value, tolerance=1e-6, what=name)
    check_pooled(golden, expected, config, {NAMES[name]: x for name, x in inputs.items()})


def check_pooled(golden: Golden, tree: Tree, config: MBTConfig, inputs: dict[str, Tensor]) -> None:
    """What the initialized model answers, for one of the layers that fusion may begin at: the golden does not say."""
    answers = {name: x for name, x in golden.arrays.items() if name.startswith("output/pre_logits")}
    failures: list[AssertionError] = []
    for layer in range(config.backbone.depth + 1):
        encoder = replace(config, fusion_layer=layer).build().eval()
        state = mbt(tree, config)
        if encoder.bottleneck is None:
            state.pop("bottleneck", None)
        load_state(encoder, state, tree.origin)
        features = encoder(inputs)
        try:
            for name, expected in answers.items():
                modality = name.removeprefix("output/pre_logits").removeprefix("/")
                ours = features.parts[NAMES[modality]] if modality else features
                close(ours.pooled, expected, INNER_TOLERANCE, what=name)
        except AssertionError as error:
            failures.append(error)
        else:
            return
    raise failures[0]


def released_inputs(golden: Golden) -> dict[str, Tensor]:
    """Channels first; a video of which frames are sampled holds these alone."""
    inputs = {name: golden.tensor(f"input/{name}").movedim(-1, -3) for name in golden.under("input/")}
    encoding = golden.config["model"].get("temporal_encoding_config", {})
    if encoding.get("method") == "temporal_sampling":
        video = inputs["rgb"]
        inputs["rgb"] = video[:, uniform_frames(video.shape[1], encoding["n_sampled_frames"])]
    return inputs


def config_from_shapes(c: dict[str, Any], tree: Tree, shapes: dict[str, tuple[int, ...]]) -> MBTConfig:
    """The config of a freshly built model, of which the golden tells only what starting it asks for."""
    block = "encoderblock_0" if "Transformer/encoderblock_0/LayerNorm_0/scale" in tree else "encoderblock_0_spectrogram"
    size, model = sizes(tree, "Transformer", block), c["model"]
    kernel = tree.shape("embedding/kernel") if "rgb" in shapes else ()
    h, w, *_ = model["patches"]["size"]
    special = model["classifier"] == "token"
    released = {
        "hidden_size": tree.shape("Transformer/encoder_norm/scale")[0],
        **size,
        "patches": (h, w, kernel[0] if len(kernel) == 5 else 1),
        "fusion_layer": 0,
        "use_bottleneck": "bottleneck" in tree,
        "n_bottlenecks": tree.shape("bottleneck")[1] - special if "bottleneck" in tree else 1,
        "share_encoder": "spectrogram" in shapes
        and "Transformer/encoderblock_0_spectrogram/LayerNorm_0/scale" not in tree,
        "classifier": model["classifier"],
        "test_with_bottlenecks": True,
        "representation_size": model.get("representation_size"),
    }
    return mbt_config(released, tree, shapes)


def released_init(c: dict[str, Any], config: MBTConfig) -> Init:
    released, model = c["init_from"], c["model"]
    restored = released.get("restore_positional_embedding", True)
    fresh = [] if restored else ["*.positions.table"]
    if config.pool == "token" and len(config.modalities) == 2:
        fresh.append("modalities.audio.cls")
    method = model["temporal_encoding_config"].get("kernel_init_method", "central_frame_initializer")
    return Init(
        source="golden",
        kernel=KERNELS[method] if released.get("restore_input_embedding", True) else "random",
        fresh=tuple(fresh),
    )


def positions_as_meant(c: dict[str, Any], source: LoadedModel, ours: LearnedPositions) -> bool:
    """Ours is the image's table resized to a frame or a spectrogram and repeated; whether the released one is the same.

    A defect that is not copied: "tile" does not resize, "resize" gives a table of one frame, and a table of equal
    length is copied whatever its grid.
    """
    given, (t, h, w) = source.model.encoder.encoder.positions, ours.grid
    frame = LearnedPositions((1, h, w), ours.table.shape[1], ours.special)
    expected = resized(positions(given.grid, given.special, given.table), frame)
    repeated = torch.cat([expected[: ours.special], expected[ours.special :].repeat(t, 1)])
    close(ours.table, repeated, tolerance=1e-6, what="positions")
    same_length = math.prod(given.grid) == t * h * w
    how = c["init_from"]["positional_embed_size_change"]
    as_meant = {"tile": (1, h, w) == given.grid, "resize": t == 1, "resize_tile": t == 1 or h == w}[how]
    return (given.grid == ours.grid) if same_length else as_meant
