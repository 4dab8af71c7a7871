"""The released PolyViT's parameters, and those of MBT's model of sound alone (an AST), in our names."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.models import ModelConfig
from tubelet.models.ast import ASTConfig
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.specs import ImageSpec, InputSpec, VideoSpec
from tubelet.weights.formats.scenic import BLOCK, leaf, tokenizer
from tubelet.weights.formats.scenic_shapes import backbone, image_spec, patch_of, spectrogram_spec, video_spec
from tubelet.weights.formats.tree import Tree, gather

_TOKENIZERS = {"image": "tokenizer2d", "video": "tokenizer3d", "audio": "tokenizer_spec"}
_HEADS = {"classification_head_": False, "bag_of_words_head_": True}
_INPUTS = {  # what the released data sets are of, by the beginning of their names
    "image": ("imagenet", "cifar", "oxford_iiit_pet", "resisc45"),
    "video": ("kinetics", "moments_in_time", "epic", "ssv2"),
    "audio": ("vggsound", "audioset", "balanced_audioset", "esc50"),
}


def polyvit_config(tree: Tree, like: ModelConfig | None = None) -> PolyViTConfig:
    """The config of a PolyViT, read off its names and shapes; clips and pictures are as ``like`` has them, or 32 square
    frames and square pictures."""
    theirs = {name: f"tokenizer/{x}" for name, x in _TOKENIZERS.items() if f"tokenizer/{x}/embedding/kernel" in tree}
    names = [name for name in like.inputs if name in theirs] if isinstance(like, PolyViTConfig) else []
    first = next(iter(theirs.values()), "tokenizer/tokenizer2d")
    own = tree.count(f"{first}/encoderblock_{{}}/LayerNorm_0/scale")
    depth = own
    while f"vit_encoder/encoderblock_{depth}/LayerNorm_0/scale" in tree:
        depth += 1
    block = f"{first}/encoderblock_0" if own else "vit_encoder/encoderblock_0"
    token = f"{first}/cls" in tree
    modalities: dict[str, Modality] = {}
    for name in dict.fromkeys([*names, *theirs]):
        places = tree.shape(f"{theirs[name]}/posembed_input/pos_embedding", 3)[1] - token
        modalities[name] = modality_of(tree, like, name, f"{theirs[name]}/embedding", places)
    return PolyViTConfig(
        backbone=backbone(tree, depth, f"{block}/MultiHeadDotProductAttention_0", f"{block}/MlpBlock_0/Dense_0"),
        modalities=modalities,
        adaptor_depth=own,
        pool="token" if token else "mean",
    )


def modality_of(tree: Tree, like: ModelConfig | None, name: str, embedding: str, places: int) -> Modality:
    """An image, a video or sound, whose tokenizer is ``embedding``, with so many positions."""
    patch, channels = patch_of(tree, embedding)
    read = {"image": image_spec, "video": video_spec, "audio": spectrogram_spec}[name]
    return Modality(spec=read(tree, like, patch, places, channels), patch=patch)


def polyvit_tasks(tree: Tree, names: Iterable[str], config: PolyViTConfig) -> dict[str, tuple[str, ClassCard]]:
    """The released name of each head and its card, by its data set; ``names``: of all parameters."""
    found: dict[str, tuple[str, ClassCard]] = {}
    for name in dict.fromkeys(n.partition("/")[0] for n in names):
        for prefix, multilabel in _HEADS.items():
            if name.startswith(prefix):
                task, count = name.removeprefix(prefix), tree.shape(f"{name}/output_projection/bias", 1)[0]
                hidden = tree.count(f"{name}/Dense_{{}}/bias")
                card = ClassCard(
                    classes=tuple(map(str, range(count))),
                    multilabel=multilabel or "audioset" in task,
                    inputs=_inputs(task, config),
                    hidden=tuple(tree.shape(f"{name}/Dense_{i}/bias", 1)[0] for i in range(hidden)),
                )
                found[task] = name, card
    return found


def _inputs(task: str, config: PolyViTConfig) -> tuple[str, ...]:
    """What a released data set is of, where the model takes it; else all."""
    return tuple(n for n, sets in _INPUTS.items() if n in config.modalities and task.startswith(sets))


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
