"""transformers' ViT and ViViT in our names: a folder with config.json and model.safetensors.

Files carry the names of transformers 4 (``encoder.layer.0.attention.attention.query``); a state dict taken from a model
of transformers 5 carries newer ones (``layers.0.attention.q_proj``). Both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.files import WeightsError, read_json, read_tensors
from tubelet.weights.formats.tree import Tree, gather, gather_blocks
from tubelet.weights.loaded import LoadedModel, build_model, load_state

_GELU: dict[str, Literal["tanh", "exact"]] = {
    "gelu": "exact",
    "gelu_fast": "tanh",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
}
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
        raise WeightsError(f"{origin}: model_type {config.get('model_type')!r} is neither 'vit' nor 'vivit'")
    tree = Tree(state, origin)
    ours = _config(config, processor or {}, origin)
    tasks = _tasks(config, tree)
    prefix = next((p for p in ("vit.", "vivit.") if any(name.startswith(p) for name in state)), "")
    filled = {f"encoder.{name}": x for name, x in _encoder(tree, prefix, ours.backbone.depth).items()}
    if tasks:
        filled |= gather({"projection": ["classifier"]}, tree.layer, "heads.label.")
    dropped = tree.finish(may_drop=(f"{prefix}pooler.",))
    model = build_model(ours, tasks)
    load_state(model, filled, origin)
    return LoadedModel(model, ours, tasks, {"source": origin}, dropped)


def _config(config: Mapping[str, Any], processor: Mapping[str, Any], origin: str) -> ViTConfig | ViViTConfig:
    if config["hidden_act"] not in _GELU:
        raise WeightsError(f"{origin}: activation {config['hidden_act']!r} is none of {', '.join(_GELU)}")
    backbone = TransformerConfig(
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        mlp=config["intermediate_size"],
        gelu=_GELU[config["hidden_act"]],
        norm_eps=config["layer_norm_eps"],
    )
    size = _pair(config["image_size"])
    mean, std = _range(processor, config.get("num_channels", 3))
    short_side = max(min(size), processor.get("size", {}).get("shortest_edge", 0))
    if config["model_type"] == "vit":
        image = ImageSpec(size=size, short_side=short_side, mean=mean, std=std)
        return ViTConfig(backbone=backbone, patch=_pair(config["patch_size"]), image=image)
    video = VideoSpec(frames=config["num_frames"], size=size, short_side=short_side, mean=mean, std=std)
    t, h, w = config["tubelet_size"]
    return ViViTConfig(backbone=backbone, tubelet=(t, h, w), video=video)


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _range(processor: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation that do in one step, from pixels in [0, 1], what the image processor does in up to three:
    scale by a factor, take an offset of one away, and normalize."""
    mean = std = (0.5,) * channels
    if not processor:
        return mean, std
    if processor.get("do_normalize", True):
        mean = tuple(processor.get("image_mean") or mean)
        std = tuple(processor.get("image_std") or std)
    else:
        mean, std = (0.0,) * channels, (1.0,) * channels
    factor = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    offset = 1.0 if processor.get("offset", False) else 0.0
    return tuple((offset + m) / factor for m in mean), tuple(s / factor for s in std)


def _tasks(config: Mapping[str, Any], tree: Tree) -> dict[str, ClassCard]:
    if "classifier.weight" not in tree:
        return {}
    count = tree.shape("classifier.weight")[0]
    named = {int(number): name for number, name in config.get("id2label", {}).items()}
    multilabel = config.get("problem_type") == "multi_label_classification"
    return {"label": ClassCard(classes=tuple(named.get(i, str(i)) for i in range(count)), multilabel=multilabel)}


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
