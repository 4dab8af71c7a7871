"""A model as a folder in the layout of another library, and on the Hugging Face hub in any layout."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from safetensors.torch import save_file

from tubelet.weights.card import Publication, model_card
from tubelet.weights.files import WeightsError, share
from tubelet.weights.folder import WEIGHTS, save_model
from tubelet.weights.formats import Layout, written
from tubelet.weights.formats.written import Written
from tubelet.weights.loaded import LoadedModel
from tubelet.writing import write_json, write_text, written_beside


def save_layout(
    folder: str | Path,
    loaded: LoadedModel,
    layout: Layout,
    task: str = "",
    *,
    publication: Publication | None = None,
    origin: str = "this model",
) -> Written:
    """Write a folder that another library loads: weights, config.json, its preprocessing, and a model card.

    ``task``: whose head becomes the classifier; the only one, if empty. ``publication``: what the card says beside what
    the model knows of itself. The folder is there whole or not at all. Raises WeightsError for one that has files
    already, and for a model that the layout cannot hold, naming the setting.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise WeightsError(f"{folder}: has files; nothing was written: name a new folder")
    made = written(loaded, layout, task, origin=origin)
    kept = {name: card for name, card in loaded.tasks.items() if name == (task or next(iter(loaded.tasks)))}
    about = publication or Publication(name=folder.name)
    card = model_card(LoadedModel(loaded.model, loaded.config, kept, loaded.provenance), about, (layout, made.kind))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(folder) as beside:
        beside.mkdir()
        tensors = {name: x.float().contiguous() for name, x in made.tensors.items()}
        save_file(tensors, beside / WEIGHTS, metadata={"format": "pt"})
        write_json(beside / "config.json", made.config)
        if made.processor:
            write_json(beside / "preprocessor_config.json", made.processor)
        write_text(beside / "README.md", card)
    return made


def publish(
    loaded: LoadedModel,
    about: Publication,
    layout: Literal["tubelet"] | Layout = "tubelet",
    task: str = "",
    *,
    private: bool = False,
) -> str:
    """Upload a model to the hub's repository ``about.name``, which is created if needed, with a card that says what
    ``about`` does. Returns the address of the commit. Raises WeightsError as :func:`save_layout` does, and where the
    hub cannot be reached or refuses.
    """
    with TemporaryDirectory() as place:
        folder = Path(place, "model")
        if layout == "tubelet":
            save_model(folder, loaded.model, loaded.config, loaded.tasks, loaded.provenance, about)
        else:
            save_layout(folder, loaded, layout, task, publication=about)
        return share(folder, about.name, private=private)
