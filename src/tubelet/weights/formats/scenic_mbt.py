"""The released MBT's parameters in our names."""

from __future__ import annotations

from torch import Tensor

from tubelet.models import ASTConfig, ModelConfig
from tubelet.models.mbt import MBTConfig
from tubelet.models.polyvit import Modality
from tubelet.specs import SpectrogramSpec
from tubelet.weights.formats.scenic import leaf, pool_of, representation, representation_width, tokenizer
from tubelet.weights.formats.scenic_polyvit import blocks, modality_of
from tubelet.weights.formats.scenic_shapes import backbone, is_video, untold
from tubelet.weights.formats.tree import Tree, gather

_SUFFIXES = {"video": "", "audio": "_spectrogram"}


def is_mbt(tree: Tree, like: ModelConfig | None) -> bool:
    """Whether it is an MBT: by its names, or, where it has video alone as a ViViT, because ``like`` is such an MBT."""
    of_video = isinstance(like, MBTConfig) and list(like.modalities) == ["video"]
    return "embedding_spectrogram/kernel" in tree or "bottleneck" in tree or (of_video and is_video(tree))


def mbt_config(tree: Tree, like: ModelConfig | None = None) -> MBTConfig | ASTConfig:
    """The config of an MBT, read off its names and shapes; an AST, of sound alone.

    Where modalities meet, and whether they do at test, no shape tells: ``like`` must be an MBT, unless there is one
    modality.
    """
    told = like if isinstance(like, MBTConfig) else None
    pool = pool_of(tree, "cls", "clsspectrogram")
    inputs = _order(tree, told)
    apart = f"Transformer/encoderblock_0{_SUFFIXES['audio']}/LayerNorm_0/scale" in tree
    block = f"Transformer/encoderblock_{{}}{_SUFFIXES['audio'] if apart and inputs == ('audio',) else ''}"
    size = backbone(
        tree,
        tree.count(f"{block}/LayerNorm_0/scale"),
        f"{block.format(0)}/MultiHeadDotProductAttention_0",
        f"{block.format(0)}/MlpBlock_0/Dense_0",
    )
    modalities = {name: _modality(tree, like, name, pool == "token") for name in inputs}
    audio = modalities["audio"].spec if inputs == ("audio",) else None
    if told is None and isinstance(audio, SpectrogramSpec) and not representation_width(tree):
        return ASTConfig(backbone=size, patch=modalities["audio"].patch[1:], audio=audio, pool=pool)
    if told is None and len(inputs) > 1:
        raise untold(tree, "from which layer on its modalities meet", "mbt-b/16x2")
    bottlenecks = tree.shape("bottleneck", 3)[1] - (pool == "token") if "bottleneck" in tree else 0
    return MBTConfig(
        backbone=size,
        modalities=modalities,
        fusion_layer=min(told.fusion_layer, size.depth) if told else size.depth,
        fusion=told.fusion if told else "bottleneck",
        bottlenecks=bottlenecks or (told.bottlenecks if told else MBTConfig.bottlenecks),
        shared=not apart if "audio" in inputs else told is not None and told.shared,
        pool=pool,
        fused_at_test=told.fused_at_test if told else True,
        representation=representation_width(tree),
    )


def _order(tree: Tree, told: MBTConfig | None) -> tuple[str, ...]:
    """The modalities that are there, in the order of ``told``, which decides what concatenated tokens follow."""
    found = [name for name, suffix in _SUFFIXES.items() if f"embedding{suffix}/kernel" in tree]
    names = list(told.modalities) if told else found
    return tuple(sorted(found, key=lambda name: names.index(name) if name in names else len(names)))


def _modality(tree: Tree, like: ModelConfig | None, name: str, token: bool) -> Modality:
    positions = f"Transformer/posembed_input{_SUFFIXES[name]}/pos_embedding"
    return modality_of(tree, like, name, f"embedding{_SUFFIXES[name]}", tree.shape(positions, 3)[1] - token)


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
