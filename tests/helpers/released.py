"""Random parameters under the released JAX code's names, of tiny models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Shapes = dict[str, tuple[int, ...]]

WIDTH, HEADS, MLP = 16, 2, 32


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def dense(name: str, source: int, width: int) -> Shapes:
    return {f"{name}/kernel": (source, width), f"{name}/bias": (width,)}


def norm(name: str, width: int = WIDTH) -> Shapes:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def attention(name: str, width: int = WIDTH, heads: int = HEADS, source: int = 0) -> Shapes:
    size = (heads, width // heads)
    shapes: Shapes = {f"{name}/out/kernel": (*size, width), f"{name}/out/bias": (width,)}
    for part in ("query", "key", "value"):
        read = source or width if part != "query" else width
        shapes |= {f"{name}/{part}/kernel": (read, *size), f"{name}/{part}/bias": size}
    return shapes


def mlp(name: str, width: int = WIDTH, hidden: int = MLP) -> Shapes:
    return {**dense(f"{name}/Dense_0", width, hidden), **dense(f"{name}/Dense_1", hidden, width)}


def block(name: str, width: int = WIDTH, heads: int = HEADS, hidden: int = MLP) -> Shapes:
    return {
        **norm(f"{name}/LayerNorm_0", width),
        **attention(f"{name}/MultiHeadDotProductAttention_0", width, heads),
        **norm(f"{name}/LayerNorm_1", width),
        **mlp(f"{name}/MlpBlock_0", width, hidden),
    }


def encoder(
    name: str, places: int, depth: int = 2, width: int = WIDTH, heads: int = HEADS, hidden: int = MLP
) -> Shapes:
    shapes: Shapes = norm(f"{name}/encoder_norm", width)
    shapes[f"{name}/posembed_input/pos_embedding"] = (1, places, width)
    for i in range(depth):
        shapes |= block(f"{name}/encoderblock_{i}", width, heads, hidden)
    return shapes


def embedding(name: str, *patch: int, width: int = WIDTH) -> Shapes:
    return {f"{name}/kernel": (*patch, 3, width), f"{name}/bias": (width,)}


def model_1(places: int, classes: int = 5) -> Shapes:
    """ViViT's Model 1 on tubelets of 2x4x4."""
    return {
        **embedding("embedding", 2, 4, 4),
        "cls": (1, 1, WIDTH),
        **encoder("Transformer", places + 1),
        **dense("output_projection", WIDTH, classes),
    }


def model_2(times: int, places: int, classes: int = 5) -> Shapes:
    """ViViT's Model 2, whose temporal encoder has a layer, four heads and an MLP of its own."""
    return {
        **embedding("embedding", 2, 4, 4),
        "cls_SpatialTransformer": (1, 1, WIDTH),
        "cls_TemporalTransformer": (1, 1, WIDTH),
        **encoder("SpatialTransformer", places + 1),
        **encoder("TemporalTransformer", times + 1, depth=1, heads=4, hidden=48),
        **dense("output_projection", WIDTH, classes),
    }


def mtv() -> Shapes:
    """Two streams of 8 frames of 16x16: the coarse one has one layer, the fine one three, the last with cross-view
    attention, which the coarse one then takes part in without a layer of its own."""
    shapes: Shapes = {**encoder("global_encoder", 5, depth=1, width=40), **dense("output_projection", 40, 5)}
    shapes["cls_global"] = (1, 1, 40)
    for i, (t, width, depth) in enumerate([(4, 16, 1), (2, 24, 3)]):
        shapes |= embedding(f"embedding_view{i}", t, 8, 8, width=width)
        shapes[f"cls_view{i}"] = (1, 8 // t, 1, width)
        shapes[f"MultiviewEncoder/posembed_input_view{i}/pos_embedding"] = (1, 5, width)
        for layer in range(min(depth, 2)):
            shapes |= block(f"MultiviewEncoder/encoderblock_{layer}_view{i}", width)
    crossing = "MultiviewEncoder/cross_view_encoderblock_2"
    return {
        **shapes,
        **norm(f"{crossing}/cross_attention_ln_view0", 16),
        **norm(f"{crossing}/cross_attention_ln_view1", 24),
        **attention(f"{crossing}/cross_attention_view0_1", 16, source=24),
        **norm(f"{crossing}/msa_ln_view1", 24),
        **attention(f"{crossing}/msa_view1", 24),
        **norm(f"{crossing}/mlp_ln_view1", 24),
        **mlp(f"{crossing}/mlp_view1", 24),
    }


def mbt() -> Shapes:
    """Video of 4 frames of 16x16 and spectrograms of 16x8, three layers each."""
    shapes: Shapes = {
        **embedding("embedding", 2, 8, 8),
        **embedding("embedding_spectrogram", 8, 8),
        "cls": (1, 1, WIDTH),
        "clsspectrogram": (1, 1, WIDTH),
        "bottleneck": (1, 3, WIDTH),
        "Transformer/posembed_input/pos_embedding": (1, 9, WIDTH),
        "Transformer/posembed_input_spectrogram/pos_embedding": (1, 3, WIDTH),
        **norm("Transformer/encoder_norm"),
        **dense("output_projection", WIDTH, 5),
    }
    for i in range(3):
        shapes |= {**block(f"Transformer/encoderblock_{i}"), **block(f"Transformer/encoderblock_{i}_spectrogram")}
    return shapes


def polyvit() -> Shapes:
    """Pictures of 16x16 and spectrograms of 128x128, an adaptor layer each and two shared; three data sets."""
    shapes: Shapes = norm("vit_encoder/encoder_norm")
    for name, patch, places in (("tokenizer2d", 8, 4), ("tokenizer_spec", 32, 16)):
        theirs = f"tokenizer/{name}"
        shapes |= embedding(f"{theirs}/embedding", patch, patch)
        shapes |= {f"{theirs}/cls": (1, 1, WIDTH), f"{theirs}/posembed_input/pos_embedding": (1, places + 1, WIDTH)}
        shapes |= block(f"{theirs}/encoderblock_0")
    return {
        **shapes,
        **block("vit_encoder/encoderblock_1"),
        **block("vit_encoder/encoderblock_2"),
        **dense("classification_head_cifar10/output_projection", WIDTH, 10),
        **dense("classification_head_balanced_audioset/Dense_0", WIDTH, 12),
        **dense("classification_head_balanced_audioset/output_projection", 12, 6),
        **dense("bag_of_words_head_words/output_projection", WIDTH, 4),
    }


def token_learner() -> Shapes:
    """Four tokens of pictures of 16x16."""
    shapes = {**embedding("embedding", 4, 4), **encoder("Transformer", 16, depth=3)}
    name = "Transformer/TokenLearnerModuleV11_0"
    masking = {**dense(f"{name}/token_masking/Dense_0", WIDTH, 64), **dense(f"{name}/token_masking/Dense_1", 64, 4)}
    return {**shapes, **norm(f"{name}/LayerNorm_0"), **masking, **dense("output_projection", WIDTH, 5)}
