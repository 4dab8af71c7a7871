"""transformers' ViT and ViViT in our names: a folder with config.json and model.safetensors.

Files carry the names of transformers 4 (``encoder.layer.0.attention.attention.query``); a state dict taken from a model
of transformers 5 carries newer ones (``layers.0.attention.q_proj``). Both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.configs import part_of, shown
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.files import WeightsError, read_json, read_tensors
from tubelet.weights.formats.tree import Tree, foreign, gather, gather_blocks
from tubelet.weights.loaded import LoadedModel, filled_model

_NEW_BLOCK = {
    "norm_attention": ["layernorm_before"],
    "attention.qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    "attention.out": ["attention.o_proj"],
    "norm_mlp": ["layernorm_after"],
    "mlp.0": ["mlp.fc1"],
    "mlp.3": ["mlp.fc2"],
}
_OLD_BLOCK = {
    "norm_attention": ["layernorm_before"],
    "attention.qkv": [f"attention.attention.{part}" for part in ("query", "key", "value")],
    "attention.out": ["attention.output.dense"],
    "norm_mlp": ["layernorm_after"],
    "mlp.0": ["intermediate.dense"],
    "mlp.3": ["output.dense"],
}


def read_folder(folder: str | Path) -> LoadedModel:
    """A ViT or ViViT as ``save_pretrained`` writes it; the image processor's file, where present, gives the range."""
    folder = Path(folder)
    processor = folder / "preprocessor_config.json"
    return from_state(
        read_json(folder / "config.json"),
        read_tensors(folder / "model.safetensors"),
        processor=read_json(processor) if processor.is_file() else {},
        origin=str(folder),
    )


def from_state(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    processor: Mapping[str, Any] | None = None,
    origin: str = "transformers",
) -> LoadedModel:
    """A model from transformers' config (``model.config.to_dict()``) and state dict. The head is the task "label"."""
    if config.get("model_type") not in ("vit", "vivit"):
        raise WeightsError(f"{origin}: model_type {shown(config.get('model_type'))} is neither 'vit' nor 'vivit'")
    tree = Tree(state, origin)
    with foreign(origin):
        names = config.get("id2label")
        if isinstance(names, dict):  # of a model in memory, by integers
            config = {**config, "id2label": {str(number): name for number, name in names.items()}}
        told = part_of(_Vivit if config["model_type"] == "vivit" else _Vit, config)
        ours = _config(told, part_of(_Processor, processor or {}))
        tasks = _tasks(told, tree)
        prefix = next((p for p in ("vit.", "vivit.") if any(name.startswith(p) for name in state)), "")
        filled = {f"encoder.{name}": x for name, x in _encoder(tree, prefix, ours.backbone.depth).items()}
        if tasks:
            filled |= gather({"projection": ["classifier"]}, tree.layer, "heads.label.")
        dropped = tree.finish(may_drop=(f"{prefix}pooler.",))
    return LoadedModel(filled_model(ours, tasks, filled, origin), ours, tasks, {"source": origin}, dropped)


@dataclass(frozen=True, kw_only=True)
class _Vit:
    """What is read of transformers' config of a ViT."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: Literal["gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh"]
    layer_norm_eps: float
    image_size: int | tuple[int, int]
    patch_size: int | tuple[int, int] = 16
    num_channels: int = 3
    id2label: dict[str, str] | None = None
    problem_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Vivit(_Vit):
    num_frames: int
    tubelet_size: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class _Processor:
    """What is read of an image processor's file."""

    size: int | dict[str, int | None] | None = None
    do_rescale: bool | None = True
    rescale_factor: float | None = 1 / 255
    offset: bool | None = False
    do_normalize: bool | None = True
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None


def _config(config: _Vit, processor: _Processor) -> ViTConfig | ViViTConfig:
    backbone = TransformerConfig(
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp=config.intermediate_size,
        gelu="exact" if config.hidden_act == "gelu" else "tanh",
        norm_eps=config.layer_norm_eps,
    )
    size = _pair(config.image_size)
    mean, std = _range(processor, config.num_channels)
    told = processor.size.get("shortest_edge") or 0 if isinstance(processor.size, dict) else 0
    short_side = max(min(size), told)
    if not isinstance(config, _Vivit):
        image = ImageSpec(size=size, short_side=short_side, mean=mean, std=std)
        return ViTConfig(backbone=backbone, patch=_pair(config.patch_size), image=image)
    video = VideoSpec(frames=config.num_frames, size=size, short_side=short_side, mean=mean, std=std)
    return ViViTConfig(backbone=backbone, tubelet=config.tubelet_size, video=video)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _range(processor: _Processor, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation that do in one step, from pixels in [0, 1], what the image processor does in up to three:
    scale by a factor, take an offset of one away, and normalize."""
    mean, std = (0.0,) * channels, (1.0,) * channels
    if processor.do_normalize:
        mean, std = processor.image_mean or (0.5,) * channels, processor.image_std or (0.5,) * channels
    factor = 255.0
    if processor.do_rescale and processor.rescale_factor is not None:
        factor *= processor.rescale_factor
    elif processor.do_rescale:
        factor = 1.0
    offset = 1.0 if processor.offset else 0.0
    return tuple((offset + m) / factor for m in mean), tuple(s / factor for s in std)


def _tasks(config: _Vit, tree: Tree) -> dict[str, ClassCard]:
    if "classifier.weight" not in tree:
        return {}
    count = tree.shape("classifier.weight", 2)[0]
    names = {str(number): name for number, name in (config.id2label or {}).items()}
    multilabel = config.problem_type == "multi_label_classification"
    return {"label": ClassCard(classes=tuple(names.get(str(i), str(i)) for i in range(count)), multilabel=multilabel)}


def _encoder(tree: Tree, prefix: str, depth: int) -> dict[str, Tensor]:
    patches = f"{prefix}embeddings.patch_embeddings.projection"
    new = f"{prefix}layers.0.layernorm_before.weight" in tree
    blocks, block = (f"{prefix}layers.{{}}.", _NEW_BLOCK) if new else (f"{prefix}encoder.layer.{{}}.", _OLD_BLOCK)
    return {
        "tokenizer.projection.weight": tree.take(f"{patches}.weight").flatten(1),
        "tokenizer.projection.bias": tree.take(f"{patches}.bias"),
        "encoder.cls": tree.take(f"{prefix}embeddings.cls_token")[0],
        "encoder.positions.table": tree.take(f"{prefix}embeddings.position_embeddings")[0],
        **gather({"norm": [f"{prefix}layernorm"]}, tree.layer, "encoder.transformer."),
        **gather_blocks(block, tree.layer, blocks, depth, "encoder."),
    }
