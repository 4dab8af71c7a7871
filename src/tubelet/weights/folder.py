"""A model on disk: a folder with model.safetensors, tubelet.json and a model card; and reading one from anywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tubelet.cards import TaskCard
from tubelet.configs import ConfigError, part_of, registered, renamed, shown, to_json
from tubelet.data.views import Views
from tubelet.models import Model, ModelConfig
from tubelet.models.model import check_task_name
from tubelet.version import __version__
from tubelet.weights.card import Publication, model_card
from tubelet.weights.checkpoint import open_checkpoint
from tubelet.weights.files import HUB, WeightsError, fetch, read_json, read_tensors
from tubelet.weights.flax import newest_checkpoint
from tubelet.weights.formats import read_checkpoint
from tubelet.weights.loaded import LoadedModel, filled_model
from tubelet.weights.tensor_bundle import bundle_of
from tubelet.writing import bring_to_disk, remove, write_json, write_text

__all__ = ["CARD", "WEIGHTS", "LoadedModel", "load_model", "save_model"]

FORMAT = 2  # in 1, families had the names of their classes, and some fields British spellings
WEIGHTS, CARD = "model.safetensors", "tubelet.json"
_RUN = {"experiment", "data"}  # the keys by which a run's config.json differs from transformers' and timm's


def save_model(
    folder: str | Path,
    model: Model,
    config: ModelConfig,
    tasks: Mapping[str, TaskCard],
    provenance: Mapping[str, Any] | None = None,
    about: Publication | None = None,
) -> None:
    """Write a model folder; one that exists is replaced as a whole, once the new one is complete.

    ``tasks`` describes the heads; ``provenance`` is anything JSON can say about where the weights come from: recipe,
    step, data. ``about``: what the model card says beside it. Raises
    WeightsError where ``folder`` holds something else than a model.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / CARD).is_file() and any(folder.iterdir()):
        raise WeightsError(f"{folder}: is not empty and is no model folder; nothing was written")
    if set(tasks) != set(model.heads):
        raise WeightsError(f"the model has heads for {sorted(model.heads)}, the tasks described are {sorted(tasks)}")
    provenance = dict(provenance or {})
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    remove(beside)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        beside.mkdir(parents=True)
        save_file(state, beside / WEIGHTS, metadata={"format": "pt"})
        write_json(beside / CARD, _describe(config, tasks, provenance))
        write_text(beside / "README.md", _readme(folder, LoadedModel(model, config, tasks, provenance), about))
        bring_to_disk(beside)
        _swap(beside, folder)
    finally:
        remove(beside)


def describe_tasks(folder: str | Path, tasks: Mapping[str, TaskCard]) -> None:
    """Write what is known about the heads now, such as their metrics, into a model folder: its card and its README."""
    folder = Path(folder)
    loaded = load_model(folder)
    loaded = LoadedModel(loaded.model, loaded.config, tasks, loaded.provenance)
    write_json(folder / CARD, _describe(loaded.config, tasks, loaded.provenance))
    write_text(folder / "README.md", _readme(folder, loaded))


def _readme(folder: Path, loaded: LoadedModel, about: Publication | None = None) -> str:
    return model_card(loaded, about or Publication(name=folder.name))


def _swap(new: Path, folder: Path) -> None:
    old = new.with_suffix(".old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    remove(old)


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
        "tasks": {name: to_json(card, TaskCard) for name, card in tasks.items()},
        "provenance": dict(provenance),
    }


def load_model(source: str | Path, like: ModelConfig | None = None) -> LoadedModel:
    """A model from wherever weights are.

    ``source``: a model folder, or a run's folder that has one; a checkpoint of another library that one of
    :data:`~tubelet.weights.formats.FORMATS` recognizes, as a folder with a config.json or a single file; or
    ``hf:org/name`` for any of the folders. ``like``: a config of the same model, for what a checkpoint without a
    config.json does not tell.

    Nothing in a folder chooses code, and what its files say is checked before memory is taken for it. Raises
    WeightsError, naming the file and what is wrong with it, and ConfigError for a run that has no model yet.
    """
    if isinstance(source, str) and source.startswith(HUB):
        return _load_folder(fetch(source), like)
    try:
        return _load_path(Path(source), like)
    except OSError as error:  # a name that is too long, a folder that must not be looked into
        raise WeightsError(f"{source}: cannot be read ({error.strerror})") from error


def _load_path(path: Path, like: ModelConfig | None) -> LoadedModel:
    if path.is_dir():
        return _load_folder(path, like)
    if not path.exists() and bundle_of(path) is None:
        raise WeightsError(f"{path}: no such file or folder; a model on the Hugging Face hub is written {HUB}org/name")
    return read_checkpoint(open_checkpoint(path, like))


def _load_folder(folder: Path, like: ModelConfig | None) -> LoadedModel:
    if (folder / CARD).is_file():
        return _load_own(folder)
    if (folder / "model" / CARD).is_file():
        return _load_own(folder / "model")
    if unfinished := _unfinished_run(folder):
        raise ConfigError(unfinished)
    if not (folder / "config.json").is_file():
        if (newest := newest_checkpoint(folder)) is not None:
            return read_checkpoint(open_checkpoint(newest, like))
        raise WeightsError(f"{folder}: no model here: neither {CARD} nor transformers' or timm's config.json")
    return read_checkpoint(open_checkpoint(folder))


@dataclass(frozen=True, kw_only=True)
class _Description:
    """What tubelet.json must say; what else it says is for other readers."""

    model: ModelConfig
    tasks: dict[str, TaskCard]
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])


def _load_own(folder: Path) -> LoadedModel:
    path = folder / CARD
    data = read_json(path)
    if (written := data.get("format")) not in (1, FORMAT):
        raise WeightsError(
            f"{path}: format {shown(written)}, written by {data.get('library', 'an unknown library')}; "
            f"Tubelet {__version__} reads formats up to {FORMAT}: use the version that wrote it, or a newer one"
        )
    if "model" in data:
        data["model"] = renamed(data["model"])
    if isinstance(data.get("tasks"), dict):
        data["tasks"] = {name: _with_kind(card) for name, card in data["tasks"].items()}
    try:
        told = part_of(_Description, data)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}{_plugin_hint(data.get('model'))}") from None
    _check_tasks(told, path)
    model = filled_model(told.model, told.tasks, read_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    return LoadedModel(model, told.model, told.tasks, told.provenance)


def _check_tasks(told: _Description, path: Path) -> None:
    """Raise WeightsError for a task that the model's inputs cannot serve, or whose name is none."""
    for name, card in told.tasks.items():
        try:
            check_task_name(name)
            Views.parse(card.views or "1x1")
        except ValueError as error:
            raise WeightsError(f"{path}: tasks.{name}: {error}") from None
        if unknown := [name for name in card.inputs if name not in told.model.inputs]:
            has = ", ".join(told.model.inputs)
            raise WeightsError(f"{path}: tasks.{name}.inputs: the model has {has}, and no input {shown(unknown[0])}")


def _with_kind(card: Any) -> Any:
    """A task's card; before there were others, all were of classes, and did not say so."""
    return {"kind": "classes", **card} if isinstance(card, dict) else card


def _plugin_hint(model: Any) -> str:
    """What to do where the model is of a family from outside the library, which nothing in a folder loads."""
    kind = model.get("kind") if isinstance(model, dict) else None
    known = registered(ModelConfig)
    if not isinstance(kind, str) or kind in known or kind in {cls.__name__ for cls in known.values()}:
        return ""
    return "; a family from outside the library needs its plugin: tubelet --plugin FILE, or import it first"


def _unfinished_run(folder: Path) -> str:
    """How far a run without a model got, and what to do; "" where ``folder`` is no such run."""
    try:
        config = read_json(folder / "config.json")
    except WeightsError:
        return ""
    if not config.keys() >= _RUN:
        return ""
    done, of = _last_checkpoint(folder / "checkpoints"), _updates(config)
    far = f"update {done:,} of {of:,}, from its last checkpoint" if of else f"update {done:,}, from its last checkpoint"
    if not done:
        far = "it has no checkpoint yet"
    return f"{folder}: this run has not finished ({far}): run the same `tubelet train` command again to finish it"


def _last_checkpoint(folder: Path) -> int:
    """The update of the newest checkpoint ``step-N``; 0 if there is none."""
    steps = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return max((int(step) for step in steps if step.isdecimal()), default=0)


def _updates(config: dict[str, Any]) -> int:
    """The number of updates of the whole training; 0 where the config does not say."""
    try:
        lengths = [updates for task in config["data"].values() if (updates := int(task["updates"]))]
        together = config["experiment"]["schedule"]["kind"] == "Accumulated"
    except (AttributeError, KeyError, TypeError, ValueError):
        return 0
    return sum(lengths) // (len(lengths) if together and lengths else 1)
