"""transformers' DINOv2, with registers too, and the ViTs of DINOv3: layer scale, registers, rotary positions.

DINOv2 is written, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from tubelet.configs import part_of
from tubelet.models.vit import ViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats import huggingface
from tubelet.weights.formats.huggingface import IMAGE_PATCHES, Naming, Settings, Table
from tubelet.weights.formats.tree import (
    Places,
    Tree,
    foreign,
    gather,
    gather_blocks,
    rearranged,
    restored,
    scatter,
    scatter_blocks,
)
from tubelet.weights.formats.vit import TOKENS, image_processor
from tubelet.weights.formats.written import MisfitError, Outgoing, Written
from tubelet.weights.loaded import LoadedModel

LOADS = "transformers' DINOv2 and DINOv3 ViTs"
WRITES, FAMILY = "transformers' DINOv2", ViTConfig

_NORMS = {"norm_attention": ["norm1"], "norm_mlp": ["norm2"]}
_ATTENTIONS: tuple[Table, ...] = (
    {
        "attention.qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "attention.out": ["attention.o_proj"],
    },
    {
        "attention.qkv": [f"attention.attention.{part}" for part in ("query", "key", "value")],
        "attention.out": ["attention.output.dense"],
    },
)
_MLPS: dict[bool, tuple[Table, ...]] = {
    False: (
        {"mlp.0": ["mlp.fc1"], "mlp.3": ["mlp.fc2"]},
        {"mlp.0": ["mlp.up_proj"], "mlp.3": ["mlp.down_proj"]},
    ),
    True: (
        {"mlp.0": ["mlp.gate_proj", "mlp.up_proj"], "mlp.3": ["mlp.down_proj"]},
        {"mlp.0": ["mlp.weights_in"], "mlp.3": ["mlp.weights_out"]},
    ),
}
"""The layers of a plain and of a gated MLP, as the versions name them."""
_SCALES = {"attention.out.gamma": "layer_scale1.lambda1", "mlp.3.gamma": "layer_scale2.lambda1"}
_STACKS = ("layers", "encoder.layer", "model.layer", "layer")
_REGISTERS: Places = {"encoder.registers": ("embeddings.register_tokens", "1 n D -> n D")}
_NORM = "encoder.transformer.norm"


@dataclass(frozen=True, kw_only=True)
class _Dinov2(Settings):
    layer_norm_eps: float = 1e-6
    patch_size: int | tuple[int, int] = 14
    mlp_ratio: float = 4
    use_swiglu_ffn: bool = False
    num_register_tokens: int = 0

    @property
    def gated(self) -> bool:
        return self.use_swiglu_ffn

    def backbone(self) -> TransformerConfig:
        mlp = int(self.hidden_size * self.mlp_ratio)
        mlp = (int(mlp * 2 / 3) + 7) // 8 * 8 if self.gated else mlp
        return replace(super().backbone(), mlp=mlp, gated=self.gated, layer_scale=1.0)


@dataclass(frozen=True, kw_only=True)
class _Dinov2WithRegisters(_Dinov2):
    patch_size: int | tuple[int, int] = 16
    num_register_tokens: int = 4


@dataclass(frozen=True, kw_only=True)
class _Dinov3(Settings):
    hidden_size: int = 384
    num_attention_heads: int = 6
    intermediate_size: int = 1536
    hidden_act: Literal["gelu", "silu"] = "gelu"  # pyright: ignore[reportIncompatibleVariableOverride]
    layer_norm_eps: float = 1e-5
    rope_theta: float = 100.0
    use_gated_mlp: bool = False
    num_register_tokens: int = 0

    def __post_init__(self) -> None:
        if self.hidden_act != ("silu" if self.gated else "gelu"):
            raise ValueError(f"hidden_act {self.hidden_act!r} is not read; plain MLPs have gelu, gated ones silu")

    @property
    def gated(self) -> bool:
        return self.use_gated_mlp

    def backbone(self) -> TransformerConfig:
        return replace(super().backbone(), gated=self.gated, layer_scale=1.0)


_KINDS: dict[str, type[_Dinov2 | _Dinov3]] = {
    "dinov2": _Dinov2,
    "dinov2_with_registers": _Dinov2WithRegisters,
    "dinov3_vit": _Dinov3,
}


def recognizes(checkpoint: Checkpoint) -> bool:
    return checkpoint.model_type in _KINDS


def read(checkpoint: Checkpoint) -> LoadedModel:
    """An image ViT of the size that its processor cuts; positions that were learned at another are interpolated.

    A classifier, the task "label", reads the class token and the mean of the patches. Biases that DINOv3 leaves out,
    as that of its keys, are zero.
    """
    tree = Tree(checkpoint.tensors, checkpoint.origin)
    with foreign(checkpoint.origin):
        told = part_of(_KINDS[checkpoint.model_type], checkpoint.config)
        classes = huggingface.rows(tree, "classifier.weight")
        config = _config(told, checkpoint.processor, bool(classes))
        prefix = huggingface.prefix_of(tree, ("dinov2.", "dinov2_with_registers."))
        encoder = _encoder(tree, prefix, config)
        heads = gather({"projection": ["classifier"]}, tree.layer, "label.") if classes else {}
        unused = ("mask_token",) if config.registers else ("mask_token", "register_tokens")
        dropped = tree.finish(may_drop=[f"{prefix}embeddings.{name}" for name in unused])
    tasks = huggingface.label_task(told, classes)
    return huggingface.filled(checkpoint, config, tasks, encoder, heads, dropped)


def write(model: Outgoing) -> Written:
    """As Dinov2Model or Dinov2WithRegistersModel, or as their ForImageClassification where there is a task."""
    config = model.config
    assert isinstance(config, FAMILY)
    size, (h, w), depth = config.backbone, config.patch, config.backbone.depth
    cut = tuple(pixels // patch for pixels, patch in zip(config.image.size, config.patch, strict=True))
    rows, columns = config.position_grid or cut
    if rows != columns:
        raise MisfitError(f"{WRITES} cannot hold a table of {rows} x {columns} positions, only square ones")
    told = (_Dinov2WithRegisters if config.registers else _Dinov2)(
        **huggingface.sizes(size, model.card),
        image_size=huggingface.side(config.image.size if (rows, columns) == cut else (rows * h, columns * w)),
        patch_size=huggingface.side(config.patch),
        num_channels=config.image.channels,
        mlp_ratio=round((size.mlp * 1.5 if size.gated else size.mlp) / size.width),
        use_swiglu_ffn=size.gated,
        num_register_tokens=config.registers,
    )
    processor = image_processor(config.image)
    unused = ("position_grid", *(("resize",) if (rows, columns) == cut else ()))
    model.check(WRITES, _config(told, processor, bool(model.card)), ignore=unused)
    name = "Dinov2WithRegisters" if config.registers else "Dinov2"
    model_type = "dinov2_with_registers" if config.registers else "dinov2"
    kind, prefix = (f"{name}ForImageClassification", f"{model_type}.") if model.card else (f"{name}Model", "")
    theirs, table = (
        f"{prefix}encoder.layer.{{}}.",
        {**_NORMS, **_ATTENTIONS[-1], **_MLPS[size.gated][-1 if size.gated else 0]},
    )
    places = {**IMAGE_PATCHES, **TOKENS, **(_REGISTERS if config.registers else {})}
    tensors = {
        **restored(places, model.tree, prefix, c=config.image.channels, h=h, w=w),
        f"{prefix}embeddings.mask_token": torch.zeros(1, size.width),
        **scatter({_NORM: [f"{prefix}layernorm"]}, model.tree.layer),
        **scatter_blocks(table, model.tree.layer, theirs, depth, "encoder."),
        **{there: model.tree.take(ours) for ours, there in _scales(theirs, depth).items()},
        **model.classifier("classifier"),
    }
    written = huggingface.config_json(told, model_type, kind, leave_out=("intermediate_size",))
    skipped = 1 + config.registers
    return Written(kind, tensors, written, processor, lambda hidden: hidden[:, skipped:])


def _config(told: _Dinov2 | _Dinov3, processor: Mapping[str, Any], classes: bool) -> ViTConfig:
    rotary = told.rope_theta if isinstance(told, _Dinov3) else 0.0
    (height, width), (h, w) = told.size, told.patch
    return ViTConfig(
        backbone=told.backbone(),
        patch=told.patch,
        image=ImageSpec(**huggingface.pixels(processor, told.size, told.num_channels, any_size=True)),
        pool="token+mean" if classes else "token",
        registers=told.num_register_tokens,
        rotary=rotary,
        position_grid=None if rotary else (height // h, width // w),
        resize="antialiased" if isinstance(told, _Dinov2WithRegisters) else "cubic",
    )


def _encoder(tree: Tree, prefix: str, config: ViTConfig) -> dict[str, Tensor]:
    embeddings, depth = f"{prefix}embeddings.", config.backbone.depth
    patches, norm = ("patch_embeddings", "norm") if config.rotary else ("patch_embeddings.projection", "layernorm")
    leaf = tree.layer_or_unbiased if config.rotary else tree.layer
    theirs, table = huggingface.naming_of(tree, _namings(prefix, config.backbone.gated))
    state = {
        "tokenizer.projection.weight": tree.take(f"{embeddings}{patches}.weight").flatten(1),
        "tokenizer.projection.bias": tree.take(f"{embeddings}{patches}.bias"),
        "encoder.cls": tree.take(f"{embeddings}cls_token")[0],
        **gather({_NORM: [f"{prefix}{norm}"]}, tree.layer),
        **gather_blocks(table, leaf, theirs, depth, "encoder."),
    }
    if not config.rotary:
        state["encoder.positions.table"] = tree.take(f"{embeddings}position_embeddings")[0]
    if config.registers:
        state |= rearranged(_REGISTERS, tree, prefix)
    return state | {ours: tree.take(there) for ours, there in _scales(theirs, depth).items()}


def _scales(theirs: str, depth: int) -> dict[str, str]:
    """The factors of all blocks: their names by ours."""
    ours = "encoder.transformer.blocks."
    return {f"{ours}{i}.{name}": theirs.format(i) + scale for i in range(depth) for name, scale in _SCALES.items()}


def _namings(prefix: str, gated: bool) -> list[Naming]:
    tables = [{**_NORMS, **attention, **mlp} for attention in _ATTENTIONS for mlp in _MLPS[gated]]
    return [(f"{prefix}{stack}.{{}}.", table) for stack in _STACKS for table in tables]
