"""What transformers' checkpoints have in common: settings, image processors, labels, the names of blocks.

Files carry the names of transformers 4 (``encoder.layer.0.attention.attention.query``); a state dict taken from a model
of transformers 5 carries newer ones (``layers.0.attention.q_proj``). Both are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from tubelet.cards import ClassCard
from tubelet.configs import ConfigError, part_of, to_json
from tubelet.models import ModelConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import Fit, RasterSpec, VideoSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats.tree import Places, Tree, gather_blocks, scatter_blocks
from tubelet.weights.loaded import LoadedModel, filled_model

Table = Mapping[str, Sequence[str]]
Naming = tuple[str, Table]
"""A block's name, with "{}" for its number, and which of its layers make up each of ours."""

Act = Literal["gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "quick_gelu"]
_GELU: dict[str, Literal["exact", "quick"]] = {"gelu": "exact", "quick_gelu": "quick"}
_ACT: dict[str, Act] = {"exact": "gelu", "quick": "quick_gelu", "tanh": "gelu_pytorch_tanh"}

_MOST_CHANNELS = 1024
_BILINEAR, _BICUBIC = 2, 3  # Pillow's numbers for them

_NEW_BLOCK = {
    "norm_attention": ["layernorm_before"],
    "attention.qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    "attention.out": ["attention.o_proj"],
    "norm_mlp": ["layernorm_after"],
    "mlp.0": ["mlp.fc1"],
    "mlp.3": ["mlp.fc2"],
}
OLD_BLOCK = {
    "norm_attention": ["layernorm_before"],
    "attention.qkv": [f"attention.attention.{part}" for part in ("query", "key", "value")],
    "attention.out": ["attention.output.dense"],
    "norm_mlp": ["layernorm_after"],
    "mlp.0": ["intermediate.dense"],
    "mlp.3": ["output.dense"],
}
CLIP_BLOCK = {
    "norm_attention": ["layer_norm1"],
    "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attention.out": ["self_attn.out_proj"],
    "norm_mlp": ["layer_norm2"],
    "mlp.0": ["mlp.fc1"],
    "mlp.3": ["mlp.fc2"],
}

_PATCHES = "embeddings.patch_embeddings.projection"
_PATCH_BIAS: Places = {"tokenizer.projection.bias": (f"{_PATCHES}.bias", "D -> D")}
IMAGE_PATCHES: Places = {"tokenizer.projection.weight": (f"{_PATCHES}.weight", "D c h w -> D (c h w)"), **_PATCH_BIAS}
VIDEO_PATCHES: Places = {
    "tokenizer.projection.weight": (f"{_PATCHES}.weight", "D c t h w -> D (c t h w)"),
    **_PATCH_BIAS,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is read of the config.json of any transformer for images or video."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: Act = "gelu"
    layer_norm_eps: float = 1e-12
    image_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    num_channels: int = 3
    id2label: dict[Any, str] | None = None  # its keys are text in a file, numbers in memory
    problem_type: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        return pair(self.image_size)

    @property
    def patch(self) -> tuple[int, int]:
        return pair(self.patch_size)

    def backbone(self) -> TransformerConfig:
        return TransformerConfig(
            width=self.hidden_size,
            depth=self.num_hidden_layers,
            heads=self.num_attention_heads,
            mlp=self.intermediate_size,
            gelu=_GELU.get(self.hidden_act, "tanh"),
            norm_eps=self.layer_norm_eps,
        )


@dataclass(frozen=True, kw_only=True)
class VideoSettings(Settings):
    """``frame_stride`` and ``frame_rate`` are ours: a :class:`VideoSpec`'s ``stride`` and ``fps``, which transformers'
    own files do not say."""

    num_frames: int = 32
    frame_stride: int = 0
    frame_rate: float = 0.0

    def video(self, processor: Mapping[str, Any], stride: int) -> VideoSpec:
        """``stride``: where no file says one."""
        cut = pixels(processor, self.size, self.num_channels)
        return VideoSpec(frames=self.num_frames, stride=self.frame_stride or stride, fps=self.frame_rate, **cut)


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class _Processor:
    """What is read of an image processor's file."""

    size: int | dict[str, int | None] | None = None
    crop_size: int | dict[str, int | None] | None = None
    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool | None = True
    resample: int | None = None
    do_center_crop: bool | None = False
    do_rescale: bool | None = True
    rescale_factor: float | None = 1 / 255
    offset: bool | None = False
    do_normalize: bool | None = True
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None


def pixels(
    processor: Mapping[str, Any], size: tuple[int, int], channels: int, *, any_size: bool = False
) -> dict[str, Any]:
    """The fields of an ImageSpec or a VideoSpec of ``size`` that cuts and scales pictures as the image processor does.

    ``any_size``: the processor's own size counts, for a model that takes any. A processor that neither keeps
    proportions nor crops stretches pictures, as the spec then does; so does one that stretches and then crops (DeiT's).
    Filters that are neither bilinear nor bicubic become bilinear. The mean and deviation do in one step, from pixels in
    [0, 1], what the processor does in up to three: scale by a factor, take an offset of one away, and normalize.
    """
    if not 1 <= channels <= _MOST_CHANNELS:
        raise ConfigError(f"num_channels: {channels:,} is not from 1 to {_MOST_CHANNELS:,}")
    told = part_of(_Processor, processor)
    mean, std = (0.0,) * channels, (1.0,) * channels
    if told.do_normalize:
        mean, std = told.image_mean or (0.5,) * channels, told.image_std or (0.5,) * channels
    factor = 255.0
    if told.do_rescale and told.rescale_factor is not None:
        factor *= told.rescale_factor
    elif told.do_rescale:
        factor = 1.0
    offset = 1.0 if told.offset else 0.0
    whole = _whole(told.size)
    asked = _whole(told.crop_size) if told.do_center_crop else whole
    size = asked if any_size and asked else size
    return {
        "size": size,
        "short_side": max(min(size), _shortest(told)),
        "fit": _fit(told, size),
        "resample": "bicubic" if told.resample == _BICUBIC else "bilinear",
        "mean": tuple((offset + m) / factor for m in mean),
        "std": tuple(s / factor for s in std),
    }


def _fit(processor: _Processor, size: tuple[int, int]) -> Fit:
    """Whether pictures keep their proportions. Before a crop, a number alone is a square to DeiT, the short side to
    others; a square is all that "stretch_crop" can say."""
    whole = _whole(processor.size)
    if not processor.do_resize or whole is None:
        return "crop"
    if not processor.do_center_crop:
        return "stretch"
    kind = processor.image_processor_type or processor.feature_extractor_type or ""
    square = isinstance(processor.size, dict) or kind.startswith("DeiT")
    return "stretch_crop" if square and whole[0] == whole[1] >= max(size) else "crop"


def _shortest(processor: _Processor) -> int:
    """What the short side becomes before a crop; 0 where nothing tells."""
    size = processor.size if processor.do_resize else None
    if isinstance(size, dict):
        return size.get("shortest_edge") or min(_whole(size) or (0,))
    return size if size and processor.do_center_crop else 0


def _whole(size: int | dict[str, int | None] | None) -> tuple[int, int] | None:
    """A (height, width) that a processor tells; a number alone is a square."""
    if isinstance(size, int):
        return size, size
    height, width = (size or {}).get("height"), (size or {}).get("width")
    return (height, width) if height and width else None


def label_task(settings: Settings, count: int) -> dict[str, ClassCard]:
    """The task "label" of ``count`` classes, with their names; none where there is no head."""
    names = {str(number): name for number, name in (settings.id2label or {}).items()}
    multilabel = settings.problem_type == "multi_label_classification"
    classes = tuple(names.get(str(i), str(i)) for i in range(count))
    return {"label": ClassCard(classes=classes, multilabel=multilabel)} if count else {}


def rows(tree: Tree, name: str) -> int:
    """The rows of a matrix: a head's classes; 0 where it is not there."""
    return tree.shape(name, 2)[0] if name in tree else 0


def prefix_of(tree: Tree, known: Sequence[str]) -> str:
    """The first of ``known`` that names of the tree begin with; "" for an encoder that was saved alone."""
    return next((prefix for prefix in known if tree.has(prefix)), "")


def blocks(tree: Tree, prefix: str, depth: int) -> dict[str, Tensor]:
    """The state of a stack of ViT's blocks, as either of the two versions names them."""
    files = (f"{prefix}encoder.layer.{{}}.", "encoder.layer.{}.")  # transformers 5 may leave the prefix out
    namings = ((f"{prefix}layers.{{}}.", _NEW_BLOCK), *((stack, OLD_BLOCK) for stack in files))
    theirs, table = naming_of(tree, namings)
    return gather_blocks(table, tree.layer, theirs, depth, "encoder.")


def naming_of(tree: Tree, namings: Sequence[Naming]) -> Naming:
    """The first of ``namings`` whose layers the first block has; the first of all where it has those of none."""

    def fits(naming: Naming) -> bool:
        theirs, table = naming
        return all(f"{theirs.format(0)}{name}.weight" in tree for names in table.values() for name in names)

    return next(filter(fits, namings), namings[0])


def filled(
    checkpoint: Checkpoint,
    config: ModelConfig,
    tasks: Mapping[str, ClassCard],
    encoder: Mapping[str, Tensor],
    heads: Mapping[str, Tensor],
    dropped: tuple[str, ...] = (),
) -> LoadedModel:
    """The model of an encoder's and the heads' states, by names in each."""
    state = {f"encoder.{name}": x for name, x in encoder.items()} | {f"heads.{name}": x for name, x in heads.items()}
    model = filled_model(config, tasks, state, checkpoint.origin)
    return LoadedModel(model, config, tasks, {"source": checkpoint.origin}, dropped)


# Writing -------------------------------------------------------------------------------------------------------------


def sizes(backbone: TransformerConfig, card: ClassCard | None) -> dict[str, Any]:
    """The :class:`Settings` of a transformer and of the classes of its head."""
    names = {str(number): str(name) for number, name in enumerate(card.classes)} if card else None
    return {
        "hidden_size": backbone.width,
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": backbone.heads,
        "intermediate_size": backbone.mlp,
        "hidden_act": _ACT[backbone.gelu],
        "layer_norm_eps": backbone.norm_eps,
        "id2label": names,
        "problem_type": f"{'multi' if card.multilabel else 'single'}_label_classification" if card else None,
    }


def raster_sizes(spec: RasterSpec) -> dict[str, Any]:
    """The :class:`Settings` of an image's or a video's size; of a video's frames, too."""
    told: dict[str, Any] = {"image_size": side(spec.size), "num_channels": spec.channels}
    if isinstance(spec, VideoSpec):
        told |= {"num_frames": spec.frames, "frame_stride": spec.stride, "frame_rate": spec.fps}
    return told


def side(size: tuple[int, int]) -> int | tuple[int, int]:
    """The inverse of :func:`pair`."""
    return size[0] if size[0] == size[1] else size


def config_json(told: Settings, model_type: str, kind: str, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """A config.json. ``kind``: the class that loads it. ``leave_out``: settings that the architecture has not."""
    fields = {name: value for name, value in to_json(told).items() if value is not None and name not in leave_out}
    labels = {"label2id": {name: int(number) for number, name in told.id2label.items()}} if told.id2label else {}
    return {"architectures": [kind], "model_type": model_type, **fields, **labels, "dtype": "float32"}


def processor_json(spec: RasterSpec, kind: str, *, offset: bool = False) -> dict[str, Any]:
    """A preprocessor_config.json of the image processor ``kind`` that does what :func:`pixels` reads of it.

    ``offset``: pixels are scaled to [-1, 1] and then normalized, as ViViT's processors always do.
    """
    height, width = spec.size
    whole = {"height": height, "width": width}
    mean, std = (spec.mean, spec.std)
    if offset:
        mean, std = tuple(2 * m - 1 for m in mean), tuple(2 * s for s in std)
    resized: dict[Fit, dict[str, int]] = {
        "crop": {"shortest_edge": spec.short_side},
        "stretch": whole,
        "stretch_crop": {"height": spec.short_side, "width": spec.short_side},
    }
    crops = spec.fit != "stretch"
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": resized[spec.fit],
        "resample": _BICUBIC if spec.resample == "bicubic" else _BILINEAR,
        "do_center_crop": crops,
        **({"crop_size": whole} if crops else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 127.5 if offset else 1 / 255,
        **({"offset": True} if offset else {}),
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def blocks_there(
    tree: Tree, prefix: str, depth: int, table: Table = OLD_BLOCK, ours: str = "encoder."
) -> dict[str, Tensor]:
    """The inverse of :func:`blocks`, by the names that files have."""
    return scatter_blocks(table, tree.layer, f"{prefix}encoder.layer.{{}}.", depth, ours)
