"""The vision towers of CLIP and SigLIP: alone, with a classifier, or out of the whole model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.vit import ViTConfig
from tubelet.nn.encoding import ImagePool
from tubelet.specs import ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.huggingface import CLIP_BLOCK, Act, Settings, filled, label_task, pixels, prefix_of, rows
from tubelet.weights.formats.tree import Tree, foreign, gather, gather_blocks
from tubelet.weights.loaded import LoadedModel

LOADS = "the vision towers of transformers' CLIP and SigLIP"

_POOL = {"attention.out": ["attention.out_proj"], "norm": ["layernorm"], "mlp.0": ["mlp.fc1"], "mlp.3": ["mlp.fc2"]}
_TEXT = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias")


@dataclass(frozen=True, kw_only=True)
class _Clip(Settings):
    hidden_act: Act = "quick_gelu"
    layer_norm_eps: float = 1e-5
    patch_size: int | tuple[int, int] = 32


@dataclass(frozen=True, kw_only=True)
class _Siglip(Settings):
    hidden_act: Act = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """The config of both towers; the labels of a classifier stand in it, too."""

    vision_config: dict[str, Any] = field(default_factory=dict[str, Any])
    id2label: dict[Any, str] | None = None
    problem_type: str | None = None


_KINDS: dict[str, type[Settings]] = {
    "clip": _Clip,
    "clip_vision_model": _Clip,
    "siglip": _Siglip,
    "siglip_vision_model": _Siglip,
}


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type in _KINDS


def read(checkpoint: Checkpoint) -> LoadedModel:
    """The vision tower as an image ViT. Texts, and the projections into the space shared with them, are dropped.

    Tokens are those after the tower's last norm. CLIP's patches have no bias: it is zero. SigLIP's pooled feature is
    that of its attention pool, and the mean of its tokens where a classifier, the task "label", was trained on that.
    """
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        kind = _KINDS[checkpoint.model_type]
        whole = part_of(_Whole, checkpoint.config)
        told = part_of(kind, whole.vision_config or checkpoint.config)
        prefix = prefix_of(tree, ("vision_model.",))
        classes = rows(tree, "classifier.weight") if kind is _Siglip else 0
        config = ViTConfig(
            backbone=told.backbone(),
            patch=told.patch,
            image=ImageSpec(**pixels(checkpoint.processor, told.size, told.num_channels)),
            pool="token" if kind is _Clip else _siglip_pool(tree, prefix, classes),
            pre_norm=kind is _Clip,
            resize="cubic",
        )
        encoder = _encoder(tree, prefix, config)
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if classes else {}
        tasks = label_task(Settings(id2label=whole.id2label, problem_type=whole.problem_type), classes)
        dropped = tree.finish(may_drop=(*_TEXT, f"{prefix}embeddings.position_ids", f"{prefix}head."))
    return filled(checkpoint, config, tasks, encoder, heads, dropped)


def _siglip_pool(tree: Tree, prefix: str, classes: int) -> ImagePool:
    return "attention" if tree.has(f"{prefix}head.") and not classes else "mean"


def _encoder(tree: Tree, prefix: str, config: ViTConfig) -> dict[str, Tensor]:
    patches, bias = tree.layer_or_unbiased(f"{prefix}embeddings.patch_embedding")
    state = {
        "tokenizer.projection.weight": patches.flatten(1),
        "tokenizer.projection.bias": bias,
        "encoder.positions.table": tree.take(f"{prefix}embeddings.position_embedding.weight"),
        **gather({"norm": [f"{prefix}post_layernorm"]}, tree.layer, "encoder.transformer."),
        **gather_blocks(CLIP_BLOCK, tree.layer, f"{prefix}encoder.layers.{{}}.", config.backbone.depth, "encoder."),
    }
    if config.pool == "token":
        state["encoder.cls"] = tree.take(f"{prefix}embeddings.class_embedding")[None]
    if config.pre_norm:  # "layrnorm" is how the released names spell it
        state |= gather({"norm_tokens": [f"{prefix}pre_layrnorm"]}, tree.layer, "encoder.")
    if config.pool == "attention":
        state |= _attention_pool(tree, f"{prefix}head.")
    return state


def _attention_pool(tree: Tree, theirs: str) -> dict[str, Tensor]:
    weight, bias = tree.take(f"{theirs}attention.in_proj_weight"), tree.take(f"{theirs}attention.in_proj_bias")
    width = weight.shape[1]
    ours = "encoder.attention_pool."
    return {
        f"{ours}query": tree.take(f"{theirs}probe")[0],
        f"{ours}attention.q.weight": weight[:width],
        f"{ours}attention.q.bias": bias[:width],
        f"{ours}attention.kv.weight": weight[width:],
        f"{ours}attention.kv.bias": bias[width:],
        **gather({name: [theirs + part for part in parts] for name, parts in _POOL.items()}, tree.layer, ours),
    }
