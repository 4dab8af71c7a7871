"""The released PolyViT's parameters, and those of MBT's model of sound alone (an AST), in our names."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from tubelet.models.ast import ASTConfig
from tubelet.models.polyvit import PolyViTConfig
from tubelet.specs import ImageSpec, InputSpec, VideoSpec
from tubelet.weights.formats.scenic import BLOCK, leaf, tokenizer
from tubelet.weights.formats.tree import Tree, gather


def polyvit(tree: Tree, config: PolyViTConfig) -> dict[str, Tensor]:
    """The state of a :class:`~tubelet.models.polyvit.PolyViT`; the released blocks are numbered through."""
    own, depth = config.adaptor_depth, config.backbone.depth
    state = gather({"norm": ["vit_encoder/encoder_norm"]}, leaf(tree), "transformer.")
    state |= blocks(tree, (f"vit_encoder/encoderblock_{i}" for i in range(own, depth)), "transformer.")
    for name, modality in config.modalities.items():
        ours, theirs = f"modalities.{name}.", f"tokenizer/{_tokenizer(modality.spec)}/"
        token = {f"{ours}cls": tree.take(f"{theirs}cls")[0]} if config.pool == "token" else {}
        adaptors = (f"{theirs}encoderblock_{i}" for i in range(own))
        state |= {
            **token,
            **tokenizer(tree, f"{theirs}embedding", f"{ours}tokenizer."),
            f"{ours}positions.table": tree.take(f"{theirs}posembed_input/pos_embedding")[0],
            **blocks(tree, adaptors, f"{ours}adaptor."),
        }
    return state


def polyvit_head(tree: Tree, name: str) -> dict[str, Tensor]:
    """The state of a head with any number of hidden layers; ``name``: "classification_head_imagenet2012"."""
    hidden = tree.count(f"{name}/Dense_{{}}/bias")
    layers = {f"hidden.{i}": [f"{name}/Dense_{i}"] for i in range(hidden)}
    return gather(layers | {"projection": [f"{name}/output_projection"]}, leaf(tree))


def ast(tree: Tree, config: ASTConfig) -> dict[str, Tensor]:
    """The state of an :class:`~tubelet.models.ast.AST` from an MBT whose only modality is the spectrogram.

    Blocks that MBT would share between modalities have no suffix.
    """
    numbered = [f"Transformer/encoderblock_{i}" for i in range(config.backbone.depth)]
    names = [name if f"{name}/LayerNorm_0/scale" in tree else f"{name}_spectrogram" for name in numbered]
    token = {"encoder.cls": tree.take("cls")[0]} if config.pool == "token" else {}
    return {
        **token,
        **tokenizer(tree, "embedding_spectrogram"),
        "encoder.positions.table": tree.take("Transformer/posembed_input_spectrogram/pos_embedding")[0],
        **gather({"norm": ["Transformer/encoder_norm"]}, leaf(tree), "encoder.transformer."),
        **blocks(tree, names, "encoder.transformer."),
    }


def _tokenizer(spec: InputSpec) -> str:
    match spec:
        case ImageSpec():
            return "tokenizer2d"
        case VideoSpec():
            return "tokenizer3d"
        case _:
            return "tokenizer_spec"


def blocks(tree: Tree, names: Iterable[str], prefix: str) -> dict[str, Tensor]:
    """The blocks of these names as those of a stack."""
    state: dict[str, Tensor] = {}
    for i, name in enumerate(names):
        table = {ours: [f"{name}/{layer}" for layer in theirs] for ours, theirs in BLOCK.items()}
        state |= gather(table, leaf(tree), f"{prefix}blocks.{i}.")
    return state
