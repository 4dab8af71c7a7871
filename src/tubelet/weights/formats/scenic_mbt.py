"""The released MBT's parameters in our names."""

from __future__ import annotations

from torch import Tensor

from tubelet.models.mbt import MBTConfig
from tubelet.specs import SpectrogramSpec
from tubelet.weights.formats.scenic import leaf, representation, tokenizer
from tubelet.weights.formats.scenic_polyvit import blocks
from tubelet.weights.formats.tree import Tree, gather


def mbt(tree: Tree, config: MBTConfig) -> dict[str, Tensor]:
    """The state of an :class:`~tubelet.models.mbt.MBT`. What is of video or shared has no suffix there; the class token
    of a single modality neither."""
    state = gather({"norm": ["Transformer/encoder_norm"]}, leaf(tree))
    state |= representation(tree, config.representation)
    depth = range(config.backbone.depth)
    for name, modality in config.modalities.items():
        ours, suffix = f"modalities.{name}.", "_spectrogram" if isinstance(modality.spec, SpectrogramSpec) else ""
        state |= tokenizer(tree, f"embedding{suffix}", f"{ours}tokenizer.")
        state[f"{ours}positions.table"] = tree.take(f"Transformer/posembed_input{suffix}/pos_embedding")[0]
        if config.pool == "token":
            cls = "cls" if len(config.modalities) == 1 else f"cls{suffix.removeprefix('_')}"
            state[f"{ours}cls"] = tree.take(cls)[0]
        if not config.shared:
            state |= blocks(tree, (f"Transformer/encoderblock_{i}{suffix}" for i in depth), f"{ours}stack.")
    if config.shared:
        state |= blocks(tree, (f"Transformer/encoderblock_{i}" for i in depth), "shared.")
    if "bottleneck" in tree:  # made, and not used, where nothing is fused
        bottleneck = tree.take("bottleneck")[0]
        if config.bottleneck_tokens:
            state["bottleneck"] = bottleneck
    return state
