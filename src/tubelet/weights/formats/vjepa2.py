"""transformers' V-JEPA 2: encoders and classifiers; the predictor of the pre-training is dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import VideoSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.huggingface import CLIP_BLOCK, Settings, filled, label_task, pair, pixels, prefix_of, rows
from tubelet.weights.formats.tree import Tree, foreign, gather, gather_blocks
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' V-JEPA 2"
_STRIDES = {16: 4, 32: 2}  # the frames of its classifiers' clips, of Something-Something and Diving48; no file says it
_FPS = 4.0  # of the pre-training's
_ROTARY = 10_000.0

_BLOCK = {
    "norm_attention": ["norm1"],
    "attention.qkv": ["attention.query", "attention.key", "attention.value"],
    "attention.out": ["attention.proj"],
    "norm_mlp": ["norm2"],
    "mlp.0": ["mlp.fc1"],
    "mlp.3": ["mlp.fc2"],
}
_POOL = {
    "transformer.norm": ["layer_norm1"],
    "attention.q": ["cross_attn.q_proj"],
    "attention.kv": ["cross_attn.k_proj", "cross_attn.v_proj"],
    "norm": ["layer_norm2"],
    "mlp.0": ["mlp.fc1"],
    "mlp.3": ["mlp.fc2"],
}


@dataclass(frozen=True, kw_only=True)
class _VJepa2(Settings):
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    layer_norm_eps: float = 1e-6
    crop_size: int | tuple[int, int] = 256
    frames_per_clip: int = 64
    tubelet_size: int = 2
    in_chans: int = 3
    mlp_ratio: float = 4.0
    num_pooler_layers: int = 3

    def __post_init__(self) -> None:
        if self.num_pooler_layers < 1:
            raise ValueError(f"num_pooler_layers={self.num_pooler_layers} is not read; one or more are")

    def backbone(self) -> TransformerConfig:
        return replace(super().backbone(), mlp=int(self.hidden_size * self.mlp_ratio))


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type == "vjepa2"


def read(checkpoint: Checkpoint) -> LoadedModel:
    """A ViViT (Model 1) with rotary positions. Its pooled feature is the mean of all tokens, or where there is a
    classifier, the task "label", that of the classifier's pool by attention.

    That pool's attention adds its query and has no output map: here the map is the identity, and the query its bias.
    """
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_VJepa2, checkpoint.config)
        tasks = label_task(told, rows(tree, "classifier.weight"))
        stride = _STRIDES.get(told.frames_per_clip)
        video = VideoSpec(
            frames=told.frames_per_clip,
            stride=stride or 1,
            fps=0.0 if stride else _FPS,
            **pixels(checkpoint.processor, pair(told.crop_size), told.in_chans),
        )
        config = ViViTConfig(
            backbone=told.backbone(),
            tubelet=(told.tubelet_size, *told.patch),
            video=video,
            rotary=_ROTARY,
            pool="attention" if tasks else "mean",
            pool_depth=told.num_pooler_layers if tasks else 0,
            pool_mlp=4 * told.hidden_size if tasks else 0,
        )
        prefix = prefix_of(tree, ("vjepa2.",))
        encoder = _encoder(tree, prefix, config)
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if tasks else {}
        dropped = tree.finish(may_drop=[f"{prefix}predictor."])
    return filled(checkpoint, config, tasks, encoder, heads, dropped)


def _encoder(tree: Tree, prefix: str, config: ViViTConfig) -> dict[str, Tensor]:
    patches, depth = f"{prefix}encoder.embeddings.patch_embeddings.proj", config.backbone.depth
    state = {
        "tokenizer.projection.weight": tree.take(f"{patches}.weight").flatten(1),
        "tokenizer.projection.bias": tree.take(f"{patches}.bias"),
        **gather({"norm": [f"{prefix}encoder.layernorm"]}, tree.layer, "encoder.transformer."),
        **gather_blocks(_BLOCK, tree.layer_or_unbiased, f"{prefix}encoder.layer.{{}}.", depth, "encoder."),
    }
    return state | _pool(tree, config) if config.pool == "attention" else state


def _pool(tree: Tree, config: ViViTConfig) -> dict[str, Tensor]:
    ours, theirs, width = "encoder.attention_pool.", "pooler.cross_attention_layer.", config.backbone.width
    query = tree.take("pooler.query_tokens")[0]
    tree.check_made("output map of the pool", width, width)
    table = {name: [theirs + part for part in parts] for name, parts in _POOL.items()}
    return {
        f"{ours}query": query,
        f"{ours}attention.out.weight": torch.eye(width),
        f"{ours}attention.out.bias": query[0],
        **gather(table, tree.layer, ours),
        **gather_blocks(CLIP_BLOCK, tree.layer, "pooler.self_attention_layers.{}.", config.pool_depth, ours),
    }
