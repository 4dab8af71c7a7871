"""A model on disk: a folder with model.safetensors, tubelet.json and a model card; and reading one from anywhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tubelet.configs import ConfigError, from_json, to_json
from tubelet.models.model import Model, ModelConfig
from tubelet.version import __version__
from tubelet.weights.card import model_card
from tubelet.weights.errors import WeightsError
from tubelet.weights.files import read_json, read_tensors
from tubelet.weights.formats import huggingface, scenic, timm
from tubelet.weights.hub import HUB, fetch
from tubelet.weights.loaded import LoadedModel, TaskCard, build_model, load_state
from tubelet.weights.unfinished import unfinished_run

__all__ = ["CARD", "WEIGHTS", "LoadedModel", "TaskCard", "load_model", "save_model"]

FORMAT = 1
WEIGHTS, CARD = "model.safetensors", "tubelet.json"


def save_model(
    folder: str | Path,
    model: Model,
    config: ModelConfig,
    tasks: Mapping[str, TaskCard],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder; one that exists is replaced as a whole, once the new one is complete.

    ``tasks`` describes the heads; ``provenance`` is anything JSON can say about where the weights come from: recipe,
    step, data. Raises WeightsError where ``folder`` holds something else than a model.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / CARD).is_file() and any(folder.iterdir()):
        raise WeightsError(f"{folder}: is not empty and is no model folder; nothing was written")
    if set(tasks) != set(model.heads):
        raise WeightsError(f"the model has heads for {sorted(model.heads)}, the tasks described are {sorted(tasks)}")
    provenance = dict(provenance or {})
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, beside / WEIGHTS, metadata={"format": "pt"})
    description = json.dumps(_describe(config, tasks, provenance), indent=2, ensure_ascii=False)
    (beside / CARD).write_text(description + "\n", encoding="utf-8")
    card = model_card(folder.name, LoadedModel(model, config, tasks, provenance))
    (beside / "README.md").write_text(card, encoding="utf-8")
    _swap(beside, folder)


def _swap(new: Path, folder: Path) -> None:
    old = new.with_suffix(".old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _describe(config: ModelConfig, tasks: Mapping[str, TaskCard], provenance: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {
        name: to_json(spec) | ({"range": list(spec.value_range)} if spec.value_range else {})
        for name, spec in config.inputs.items()
    }
    return {
        "format": FORMAT,
        "library": f"tubelet {__version__}",
        "model": to_json(config, ModelConfig),
        "inputs": inputs,
        "tasks": {name: to_json(card) for name, card in tasks.items()},
        "provenance": dict(provenance),
    }


def load_model(source: str | Path) -> LoadedModel:
    """A model from wherever weights are.

    ``source``: a model folder, or a run's folder that has one; a folder as transformers saves ViT and ViViT, or timm
    its ViTs; a timm .safetensors; a ViT .npz of the released JAX code; or ``hf:org/name`` for any of the folders.
    Raises WeightsError, naming the file and what is wrong with it, and ConfigError for a run that has no model yet.
    """
    if isinstance(source, str) and source.startswith(HUB):
        return _load_folder(fetch(source))
    path = Path(source)
    if path.is_dir():
        return _load_folder(path)
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder; a model on the Hugging Face hub is written {HUB}org/name")
    readers = {".npz": scenic.read_npz, ".safetensors": timm.read}
    if path.suffix not in readers:
        raise WeightsError(f"{path}: weights are read from folders, {' and '.join(readers)} files; not {path.suffix!r}")
    return readers[path.suffix](path)


def _load_folder(folder: Path) -> LoadedModel:
    if (folder / CARD).is_file():
        return _load_own(folder)
    if (folder / "model" / CARD).is_file():
        return _load_own(folder / "model")
    if unfinished := unfinished_run(folder):
        raise ConfigError(unfinished)
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder}: no model here: neither {CARD} nor transformers' or timm's config.json")
    return timm.read(folder) if "architecture" in read_json(folder / "config.json") else huggingface.read_folder(folder)


def _load_own(folder: Path) -> LoadedModel:
    path = folder / CARD
    data = read_json(path)
    if (written := data.get("format")) != FORMAT:
        raise WeightsError(
            f"{path}: format {written!r}, written by {data.get('library', 'an unknown library')}; "
            f"Tubelet {__version__} reads format {FORMAT}: use the version that wrote it, or a newer one"
        )
    try:
        config = from_json(ModelConfig, data["model"])
        tasks = {name: from_json(TaskCard, card) for name, card in data["tasks"].items()}
    except KeyError as error:
        raise WeightsError(f"{path}: no {error.args[0]!r}") from None
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None
    model = build_model(config, tasks)
    load_state(model, read_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    return LoadedModel(model, config, tasks, data.get("provenance", {}))
