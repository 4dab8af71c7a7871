"""What another library left of a model: its tensors by name and what it says of them, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.models import ModelConfig
from tubelet.weights.files import WeightsError, read_arrays, read_json, read_pickled, read_sharded, read_tensors
from tubelet.weights.flax import is_flax, read_flax
from tubelet.weights.onnx import read_onnx
from tubelet.weights.tensor_bundle import bundle_of, read_bundle

Tensors = Mapping[str, Tensor]

READERS: dict[str, Callable[[Path], Tensors]] = {
    ".safetensors": read_tensors,
    ".npz": read_arrays,
    ".bin": read_pickled,
    ".pt": read_pickled,
    ".pth": read_pickled,
    ".onnx": read_onnx,
}
"""What reads the tensors of a single file, by its suffix."""

_WEIGHTS: dict[str, Callable[[Path], Tensors]] = {
    "model.safetensors": read_tensors,
    "model.safetensors.index.json": read_sharded,
    "pytorch_model.bin": read_pickled,
    "pytorch_model.bin.index.json": read_sharded,
}


@dataclass(frozen=True)
class Checkpoint:
    """Weights of another library, not yet understood.

    ``origin``: the folder or file, for errors. ``read``: gives the tensors, by their names there, and is called once
    they are asked for. ``config``: what config.json holds, and ``processor`` what the image processor's or feature
    extractor's file does; empty where there is none. ``like``: a config of the same model, which says what a checkpoint
    without a config.json does not tell.
    """

    origin: str
    read: Callable[[], Tensors] = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    processor: Mapping[str, Any] = field(default_factory=dict[str, Any])
    like: ModelConfig | None = None

    @cached_property
    def tensors(self) -> Tensors:
        return self.read()

    @property
    def model_type(self) -> str:
        """transformers' name of the architecture; "" where none is told."""
        told = self.config.get("model_type")
        return told if isinstance(told, str) else ""

    @classmethod
    def of(
        cls,
        tensors: Tensors,
        config: Mapping[str, Any] | None = None,
        processor: Mapping[str, Any] | None = None,
        *,
        origin: str = "memory",
    ) -> Checkpoint:
        """A checkpoint from memory: a state dict, and ``model.config.to_dict()`` of transformers."""
        return cls(origin, lambda: tensors, config or {}, processor or {})


def open_checkpoint(path: Path, like: ModelConfig | None = None) -> Checkpoint:
    """The checkpoint in a folder that has a config.json, or in a single file. Raises WeightsError where there is none.

    A file whose suffix is unknown may be flax's, or the name that TensorFlow's files begin with. Of a folder's weights
    the first of model.safetensors, its shards, pytorch_model.bin and its shards is taken.
    """
    if path.is_dir():
        config = read_json(path / "config.json")
        return Checkpoint(str(path), lambda: _read_folder(path), config, _processor(path), like)
    if path.suffix in READERS:
        return Checkpoint(str(path), lambda: READERS[path.suffix](path), like=like)
    if (bundle := bundle_of(path)) is not None:
        return Checkpoint(str(path), lambda: read_bundle(bundle), like=like)
    if is_flax(path):
        return Checkpoint(str(path), lambda: read_flax(path), like=like)
    raise WeightsError(
        f"{path}: weights are read from folders, {_listed(READERS)} files, and flax's and TensorFlow's checkpoints; "
        f"not {path.suffix!r}"
    )


def _read_folder(folder: Path) -> Tensors:
    name = next((name for name in _WEIGHTS if (folder / name).exists()), next(iter(_WEIGHTS)))
    return _WEIGHTS[name](folder / name)


def _processor(folder: Path) -> Mapping[str, Any]:
    """The image or video processor's file; transformers 5 may write it as a part of the whole processor's."""
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        if (folder / name).is_file():
            return read_json(folder / name)
    whole = read_json(folder / "processor_config.json") if (folder / "processor_config.json").is_file() else {}
    parts = (whole.get(key) for key in ("image_processor", "video_processor", "feature_extractor"))
    return next((part for part in parts if isinstance(part, dict)), {})


def _listed(names: Mapping[str, object]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"
