"""The released JAX code's parameters (scenic, big_vision, and the ViTs of the augreg release) in our names.

A parameter tree is flat: names joined by "/", such as ``Transformer/encoderblock_0/LayerNorm_0/scale``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.specs import ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.tree import Leaf, Tree, foreign, gather, gather_blocks
from tubelet.weights.loaded import LoadedModel, filled_model

HEAD_NAMES = ("output_projection", "head")
_PREFIXES = ("opt/target/", "params/", "target/")


Table = dict[str, list[str]]


def _attention(ours: str, theirs: str) -> Table:
    return {f"{ours}.qkv": [f"{theirs}/{part}" for part in ("query", "key", "value")], f"{ours}.out": [f"{theirs}/out"]}


def _block(norm_attention: str, attention: str, norm_mlp: str, mlp: str) -> Table:
    """Our layers of a block, and the released ones that make each of them up."""
    return {
        "norm_attention": [norm_attention],
        **_attention("attention", attention),
        "norm_mlp": [norm_mlp],
        "mlp.0": [f"{mlp}/Dense_0"],
        "mlp.3": [f"{mlp}/Dense_1"],
    }


BLOCK = _block("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
AUGREG_BLOCK = _block("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
FACTORIZED_BLOCK = {
    **_block("LayerNorm_space", "MultiHeadDotProductAttention_space", "LayerNorm_mlp", "MlpBlock"),
    "norm_time": ["LayerNorm_time"],
    **_attention("attention_time", "MultiHeadDotProductAttention_time"),
}


LOADS = "ViT .npz files of the released JAX code"


def recognizes(checkpoint: Checkpoint) -> bool:
    return not checkpoint.config and any(name.endswith("embedding/kernel") for name in checkpoint.tensors)


def read(checkpoint: Checkpoint) -> LoadedModel:
    """An image ViT from a flat .npz, as the augreg and big_vision releases have them; its size is read off the shapes.

    The image is taken to be square. A head is given as the task "label", its classes named by their numbers.
    """
    tree = Tree(_without_prefix(checkpoint.tensors), checkpoint.origin)
    with foreign(tree.origin):
        config = vit_config(tree)
        tasks = {"label": ClassCard(classes=tuple(map(str, range(n))))} if (n := _classes(tree)) else {}
        state = {f"encoder.{name}": x for name, x in vit(tree, config).items()}
        if tasks:
            state |= {f"heads.label.{name}": x for name, x in head(tree).items()}
        dropped = tree.finish()
    model = filled_model(config, tasks, state, tree.origin)
    return LoadedModel(model, config, tasks, {"source": tree.origin}, dropped)


def _without_prefix(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in arrays)), "")
    return {name.removeprefix(prefix): x for name, x in arrays.items()}


def vit_config(tree: Tree) -> ViTConfig:
    """The config of an image ViT, read off its shapes."""
    h, w, channels, width = tree.shape("embedding/kernel", 4)
    block = block_of(tree, "Transformer")
    heads = tree.shape(f"Transformer/encoderblock_0/{block['attention.qkv'][0]}/bias", 2)[0]
    mlp = tree.shape(f"Transformer/encoderblock_0/{block['mlp.0'][0]}/bias", 1)[0]
    depth = tree.count("Transformer/encoderblock_{}/LayerNorm_0/scale")
    pool: Pool = "token" if "cls" in tree else "mean"
    places = tree.shape(_positions(tree, "Transformer"), 3)[1] - (pool == "token")
    side = math.isqrt(places)
    if side * side != places:
        raise WeightsError(f"{tree.origin}: {places} positions are no square grid; only square images can be read")
    return ViTConfig(
        backbone=TransformerConfig(width=width, depth=depth, heads=heads, mlp=mlp),
        patch=(h, w),
        image=ImageSpec(
            size=(side * h, side * w), short_side=side * min(h, w), mean=(0.5,) * channels, std=(0.5,) * channels
        ),
        pool=pool,
        representation=tree.shape("pre_logits/bias", 1)[0] if "pre_logits/bias" in tree else 0,
    )


def vit(tree: Tree, config: ViTConfig) -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.models.vit.ViT`."""
    return {
        **tokenizer(tree),
        **token_encoder(tree, "Transformer", "cls", config.backbone.depth, "encoder."),
        **representation(tree, config.representation),
    }


def vivit(tree: Tree, config: ViViTConfig) -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.models.vivit.ViViT`: any of the four models."""
    match config.attention_type:
        case "joint":
            encoder = token_encoder(tree, "Transformer", "cls", config.backbone.depth, "encoder.")
        case "factorized_encoder":
            encoder = _factorized_encoder(tree, config)
        case "factorized_self_attention" | "factorized_dot_product":
            encoder = _transformer(tree, "Transformer", config.backbone.depth, "encoder.")
    return {**tokenizer(tree), **encoder, **representation(tree, config.representation)}


def head(tree: Tree) -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.nn.heads.LinearHead`."""
    return gather({"projection": [_head_name(tree)]}, leaf(tree))


def _head_name(tree: Tree) -> str:
    return next((name for name in HEAD_NAMES if f"{name}/bias" in tree), HEAD_NAMES[0])


def _classes(tree: Tree) -> int:
    name = f"{_head_name(tree)}/bias"
    return tree.shape(name, 1)[0] if name in tree else 0


def _factorized_encoder(tree: Tree, config: ViViTConfig) -> dict[str, Tensor]:
    """Model 2; the released checkpoints have their own class token in each of the two transformers."""
    depths = {"Spatial": config.backbone.depth, "Temporal": config.temporal_depth}
    parts = [
        token_encoder(tree, f"{part}Transformer", f"cls_{part}Transformer", depth, f"encoder.{part.lower()}.")
        for part, depth in depths.items()
        if depth
    ]
    return {name: x for part in parts for name, x in part.items()}


def token_encoder(tree: Tree, theirs: str, cls: str, depth: int, ours: str) -> dict[str, Tensor]:
    token = {f"{ours}cls": tree.take(cls)[0]} if cls in tree else {}
    return {**token, **_transformer(tree, theirs, depth, ours)}


def _transformer(tree: Tree, theirs: str, depth: int, ours: str) -> dict[str, Tensor]:
    return {
        f"{ours}positions.table": tree.take(_positions(tree, theirs))[0],
        **gather({"norm": [f"{theirs}/encoder_norm"]}, leaf(tree), f"{ours}transformer."),
        **gather_blocks(block_of(tree, theirs), leaf(tree), f"{theirs}/encoderblock_{{}}/", depth, ours),
    }


def block_of(tree: Tree, transformer: str) -> Table:
    """Which of the three namings of a block this tree has: the first whose second norm is there."""
    tables = (BLOCK, AUGREG_BLOCK, FACTORIZED_BLOCK)
    return next((t for t in tables if f"{transformer}/encoderblock_0/{t['norm_mlp'][0]}/scale" in tree), BLOCK)


def _positions(tree: Tree, transformer: str) -> str:
    """Where the positions are: inside the transformer, or at the top in newer big_vision checkpoints."""
    return "pos_embedding" if "pos_embedding" in tree else f"{transformer}/posembed_input/pos_embedding"


def tokenizer(tree: Tree, theirs: str = "embedding", ours: str = "tokenizer.") -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.nn.tokenizers.TubeletTokenizer`, its name before it."""
    kernel = tree.take(f"{theirs}/kernel")
    kernel = kernel if kernel.ndim == 5 else kernel[None]
    weight = rearrange(kernel, "t h w C D -> D (C t h w)")
    return {f"{ours}projection.weight": weight, f"{ours}projection.bias": tree.take(f"{theirs}/bias")}


def representation(tree: Tree, width: int) -> dict[str, Tensor]:
    return gather({"representation.dense": ["pre_logits"]}, leaf(tree)) if width else {}


def leaf(tree: Tree) -> Leaf:
    """Reads a layer as (out, in) weight and (out,) bias: heads flattened, kernels transposed; a norm has its scale."""

    def read(name: str) -> tuple[Tensor, Tensor]:
        bias = tree.take(f"{name}/bias").flatten()
        if f"{name}/scale" in tree:
            return tree.take(f"{name}/scale"), bias
        return tree.take(f"{name}/kernel").reshape(-1, len(bias)).T, bias

    return read


def as_tree(arrays: Mapping[str, np.ndarray], origin: str) -> Tree:
    """A flat parameter tree from NumPy arrays."""
    return Tree({name: torch.from_numpy(np.asarray(x, np.float32)) for name, x in arrays.items()}, origin)
