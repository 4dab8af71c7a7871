"""transformers' ViT."""

from __future__ import annotations

from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.vit import ViTConfig
from tubelet.specs import ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.huggingface import Settings, blocks, filled, label_task, pixels, prefix_of, rows
from tubelet.weights.formats.tree import Tree, foreign, gather
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' ViT"


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type == "vit"


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A ViT; its head is the task "label"."""
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(Settings, checkpoint.config)
        image = ImageSpec(**pixels(checkpoint.processor, told.size, told.num_channels))
        config = ViTConfig(backbone=told.backbone(), patch=told.patch, image=image)
        prefix = prefix_of(tree, ("vit.",))
        encoder = encoder_state(tree, prefix, config.backbone.depth)
        tasks = label_task(told, rows(tree, "classifier.weight"))
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if tasks else {}
        dropped = tree.finish(may_drop=(f"{prefix}pooler.",))
    return filled(checkpoint, config, tasks, encoder, heads, dropped)


def encoder_state(tree: Tree, prefix: str, depth: int) -> dict[str, Tensor]:
    """The state of an encoder of patches, a class token and learned positions, as ViT and ViViT name it."""
    patches = f"{prefix}embeddings.patch_embeddings.projection"
    return {
        "tokenizer.projection.weight": tree.take(f"{patches}.weight").flatten(1),
        "tokenizer.projection.bias": tree.take(f"{patches}.bias"),
        "encoder.cls": tree.take(f"{prefix}embeddings.cls_token")[0],
        "encoder.positions.table": tree.take(f"{prefix}embeddings.position_embeddings")[0],
        **gather({"norm": [f"{prefix}layernorm"]}, tree.layer, "encoder.transformer."),
        **blocks(tree, prefix, depth),
    }
