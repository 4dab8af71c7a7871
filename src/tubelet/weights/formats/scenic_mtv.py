"""The released MTV's parameters in our names."""

from __future__ import annotations

from torch import Tensor

from tubelet.models.mtv import BottleneckFusion, CrossViewFusion, MTVConfig
from tubelet.weights.formats.scenic import BLOCK, leaf, token_encoder, tokenizer
from tubelet.weights.formats.tree import Tree, gather


def mtv(tree: Tree, config: MTVConfig) -> dict[str, Tensor]:
    """The state of an :class:`~tubelet.models.mtv.MTV`; released streams are numbered in the order of ``config``."""
    state = token_encoder(tree, "global_encoder", "cls_global", config.global_encoder.depth, "global_encoder.")
    numbers = {name: f"view{i}" for i, name in enumerate(config.streams)}
    for name, view in numbers.items():
        state |= _stream(tree, config, name, view)
        if config.merge == "time":
            state |= gather({f"project.{name}": [f"global_encoder_linear_{view}"]}, leaf(tree))
    match config.fusion:
        case CrossViewFusion():
            state |= _cross_views(tree, config, numbers)
        case BottleneckFusion():
            state["bottleneck.table"] = tree.take("bottleneck")[0]
            state |= _projections(tree, config, numbers)
        case _:
            pass
    return state


def _stream(tree: Tree, config: MTVConfig, name: str, view: str) -> dict[str, Tensor]:
    ours = f"streams.{name}."
    state = tokenizer(tree, f"embedding_{view}", f"{ours}tokenizer.")
    state[f"{ours}positions.table"] = tree.take(f"MultiviewEncoder/posembed_input_{view}/pos_embedding")[0]
    if config.pool == "token":
        state[f"{ours}cls.table"] = tree.take(f"cls_{view}")[0]
    crossing = config.fusion_layers if isinstance(config.fusion, CrossViewFusion) else ()
    for layer in range(config.streams[name].backbone.depth):
        if layer in crossing:
            table = _renamed(f"MultiviewEncoder/cross_view_encoderblock_{layer}", view)
        else:
            theirs = f"MultiviewEncoder/encoderblock_{layer}_{view}"
            table = {part: [f"{theirs}/{x}" for x in names] for part, names in BLOCK.items()}
        state |= gather(table, leaf(tree), f"{ours}stack.blocks.{layer}.")
    return state


def _renamed(layer: str, view: str) -> dict[str, list[str]]:
    """The parts of a block where streams cross: one module holds those of all streams."""
    names = {
        "LayerNorm_0": f"msa_ln_{view}",
        "MultiHeadDotProductAttention_0": f"msa_{view}",
        "LayerNorm_1": f"mlp_ln_{view}",
        "MlpBlock_0": f"mlp_{view}",
    }
    table: dict[str, list[str]] = {}
    for part, theirs in BLOCK.items():
        split = [name.partition("/") for name in theirs]
        table[part] = [f"{layer}/{names[module]}{slash}{rest}" for module, slash, rest in split]
    return table


def _cross_views(tree: Tree, config: MTVConfig, numbers: dict[str, str]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for layer in config.fusion_layers:
        theirs = f"MultiviewEncoder/cross_view_encoderblock_{layer}"
        norms = {f"norms.{name}": [f"{theirs}/cross_attention_ln_{view}"] for name, view in numbers.items()}
        state |= gather(norms, leaf(tree), f"laterals.{layer}.")
        for query, source in config.reads.items():
            attention = f"{theirs}/cross_attention_{numbers[query]}_{numbers[source].removeprefix('view')}"
            table = {"q": [f"{attention}/query"], "kv": [f"{attention}/key", f"{attention}/value"]}
            table["out"] = [f"{attention}/out"]
            state |= gather(table, leaf(tree), f"laterals.{layer}.cross.{query}.attention.")
    return state


def _projections(tree: Tree, config: MTVConfig, numbers: dict[str, str]) -> dict[str, Tensor]:
    """Those of the bottleneck, where its width changes."""
    state: dict[str, Tensor] = {}
    for layer in config.fusion_layers:
        for name, view in numbers.items():
            theirs = f"MultiviewEncoder/bottleneck_linear_{layer}_{view}"
            if f"{theirs}/kernel" in tree:
                state |= gather({f"laterals.{layer}.project.{name}": [theirs]}, leaf(tree))
    return state
