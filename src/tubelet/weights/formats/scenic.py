"""The released JAX code's parameters (scenic, big_vision, and the ViTs of the augreg release) in our names.

A parameter tree is flat: names joined by "/", such as ``Transformer/encoderblock_0/LayerNorm_0/scale``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from tubelet.models import ModelConfig
from tubelet.models.vit import ViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.weights.formats.scenic_shapes import backbone, image_spec, patch_of
from tubelet.weights.formats.tree import Leaf, Tree, gather, gather_blocks

HEAD_NAMES = ("output_projection", "head")

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


def vit_config(tree: Tree, like: ModelConfig | None = None) -> ViTConfig:
    """The config of an image ViT, read off its shapes; pictures are square, or as ``like`` has them."""
    patch, channels = patch_of(tree)
    pool = pool_of(tree, "cls")
    return ViTConfig(
        backbone=backbone_of(tree, "Transformer"),
        patch=patch[1:],
        image=image_spec(tree, like, patch, places_of(tree, "Transformer", pool), channels),
        pool=pool,
        representation=representation_width(tree),
    )


def backbone_of(tree: Tree, transformer: str) -> TransformerConfig:
    """The size of a whole transformer."""
    first, table = f"{transformer}/encoderblock_0/", block_of(tree, transformer)
    depth = tree.count(f"{transformer}/encoderblock_{{}}/{table['norm_mlp'][0]}/scale")
    attention = table["attention.out"][0].removesuffix("/out")
    return backbone(tree, depth, first + attention, first + table["mlp.0"][0])


def pool_of(tree: Tree, *tokens: str) -> Pool:
    """By whether one of the class tokens is there."""
    return "token" if any(token in tree for token in tokens) else "mean"


def places_of(tree: Tree, transformer: str, pool: Pool) -> int:
    """The positions without the class token's."""
    return tree.shape(_positions(tree, transformer), 3)[1] - (pool == "token")


def representation_width(tree: Tree) -> int:
    return tree.shape("pre_logits/bias", 1)[0] if "pre_logits/bias" in tree else 0


def vit(tree: Tree, config: ViTConfig) -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.models.vit.ViT`."""
    return {
        **tokenizer(tree),
        **token_encoder(tree, "Transformer", "cls", config.backbone.depth, "encoder."),
        **representation(tree, config.representation),
    }


def head(tree: Tree) -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.nn.heads.LinearHead`."""
    return gather({"projection": [head_name(tree)]}, leaf(tree))


def head_name(tree: Tree) -> str:
    return next((name for name in HEAD_NAMES if f"{name}/bias" in tree), HEAD_NAMES[0])


def token_encoder(tree: Tree, theirs: str, cls: str, depth: int, ours: str) -> dict[str, Tensor]:
    token = {f"{ours}cls": tree.take(cls)[0]} if cls in tree else {}
    return {**token, **transformer(tree, theirs, depth, ours)}


def transformer(tree: Tree, theirs: str, depth: int, ours: str) -> dict[str, Tensor]:
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
