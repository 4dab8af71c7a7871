"""Goldens of MBT: models of video, of sound and of both, and starting one from an image ViT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from goldens_golden import Golden, close
from goldens_models import INNER_TOLERANCE, pool
from tubelet.models import MBTConfig, Modality
from tubelet.nn.blocks import Backbone
from tubelet.nn.features import Features
from tubelet.nn.heads import LinearHead
from tubelet.specs import InputSpec, SpectrogramSpec, VideoSpec
from tubelet.weights import scenic
from tubelet.weights.loaded import fill
from tubelet.weights.scenic_mbt import mbt
from tubelet.weights.tree import Tree

NAMES = {"rgb": "video", "spectrogram": "audio"}


@torch.no_grad()
def check_mbt(golden: Golden) -> None:
    c, tree = golden.config, golden.tree("param/")
    inputs = {name: golden.tensor(f"input/{name}").movedim(-1, -3) for name in c["modality_fusion"]}
    config = mbt_config(c, tree, {name: tuple(x.shape[1:]) for name, x in inputs.items()})
    encoder = config.build().eval()
    fill(encoder, mbt(tree, config), tree.origin)
    head = LinearHead(encoder.width, c["num_classes"])
    fill(head, scenic.head(tree), tree.origin)
    assert tree.finish() == (), "the golden's parameters are all used"

    features = encoder({NAMES[name]: x for name, x in inputs.items()})
    answer = head(replace(features, pooled=pooled(features, c["classifier"])))
    close(answer, golden.arrays["output/logits"], what="logits")
    for name, expected in golden.under("output/pre_logits/").items():
        close(features.parts[NAMES[name]].pooled, expected, INNER_TOLERANCE, what=name)
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
        backbone=Backbone(width=c["hidden_size"], depth=c["num_layers"], heads=c["num_heads"], mlp=c["mlp_dim"]),
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
