"""Any folder of class folders, or several: a model that a small machine trains, chosen by looking at the data."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from statistics import median
from typing import Annotated

from typing_extensions import Doc

from tubelet.configs import ConfigError
from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.models.model import ModelConfig
from tubelet.recipes.folder_look import Look, look, task_names
from tubelet.recipes.folder_model import LONGEST, choose_model
from tubelet.recipes.folder_named import named_model, task_inputs
from tubelet.specs import SpectrogramSpec
from tubelet.training.experiment import AdamW, Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Classification
from tubelet.weights.initialise import Init

_EXAMPLES = 20_000  # seen in training at least, or half as many where weights to start from are given


def folder(
    data: Annotated[tuple[str, ...] | str, Doc("folders of class folders, or manifests (CSV, JSONL, Parquet)")],
    init: Annotated[str, Doc("fine-tune these weights: a run, a model folder, an image ViT such as hf:org/name")] = "",
    epochs: Annotated[float, Doc("passes over the data; chosen by its size if 0")] = 0.0,
    model: Annotated[
        str, Doc("a model by name, such as mtv-s/2+ti/4 or tubevit-s/16; chosen by the data if empty")
    ] = "",
) -> Experiment:
    """Train on a folder of class folders (DIR/CLASS/clip.mp4), or a manifest; on several together.

    tubelet train folder DIR --out runs/mine

    tubelet train folder PICTURES CLIPS SOUNDS --out runs/together

    tubelet train folder VIDEOS_WITH_SOUND --model mbt-s/16x2 --out runs/both

    Subfolders train and val (or test) above the class folders are respected; without them a fifth of the files, chosen
    by a hash of their content, is kept for testing. Pictures train an image ViT, videos a ViViT, sounds an AST; several
    folders co-train one PolyViT with a head for each, whose task has the folder's name. --model names another family,
    which trains in the same way: MBT takes every video and its sound together, and TubeViT a folder of pictures and one
    of videos. The recipe looks at the data, chooses a model that a small machine can train, and says why;
    --print-config shows all of it. Training mirrors pictures and videos at random: --tasks.folder.augment.flip 0 where
    left and right matter. Expected metric, hardware and time: unknown, for they depend on the data.
    """
    paths = (data,) if isinstance(data, str) else data
    if not paths:
        raise ConfigError("no data: name a folder of class folders first, as in `tubelet train folder DIR --epochs 10`")
    looks = {name: look(path) for name, path in zip(task_names(paths), paths, strict=True)}
    seen = list(looks.values())
    chosen, said = named_model(model, seen, init) if model else choose_model(seen, init)
    inputs = {name: task_inputs(chosen, look, model or init) for name, look in looks.items()}
    tasks = {n: _task(look, chosen, inputs[n], epochs, started=bool(init)) for n, look in looks.items()}
    found = [f"{seen}" if len(looks) == 1 else f"{name}: {seen}" for name, seen in looks.items()]
    return Experiment(
        model=chosen,
        tasks=tasks,
        optimizer=AdamW(),
        training=Training(checkpoint_every=200, cache_gib=0.5),
        init=(Init(source=init),) if init else (),
        notes=" ".join([*found, *said, *_lengths(tasks)]),
    )


def _task(seen: Look, model: ModelConfig, inputs: tuple[str, ...], epochs: float, *, started: bool) -> Task:
    specs = [model.inputs[name] for name in inputs]
    span = specs[0].seconds if isinstance(specs[0], SpectrogramSpec) else LONGEST
    length = Length(epochs=epochs or _epochs(len(seen.train), started=started))
    return Task(
        source=Source(path=seen.path, train="train", test=seen.test),
        objective=_objective(seen),
        inputs=inputs,
        augment=Augmentation(),
        batch_size=max(2, min(16, len(seen.train) // 4)),
        length=length,
        warmup=Length(epochs=length.epochs / 10),
        learning_rate=1e-4 if started else 5e-4,
        views=Views(clips=min(4, max(1, ceil(median(seen.seconds) / span))) if seen.seconds else 1),
    )


def _objective(seen: Look) -> Classification:
    if seen.several:
        return Classification(label_sets=seen.label_sets, labels="several", loss="sigmoid")
    return Classification(label_sets=seen.label_sets, smoothing=0.1)


def _epochs(examples: int, *, started: bool) -> float:
    wanted = (_EXAMPLES // 2 if started else _EXAMPLES) / examples
    return round(min(max(wanted, 5 if started else 15), 100))


def _lengths(tasks: Mapping[str, Task]) -> list[str]:
    if len(tasks) == 1:
        (task,) = tasks.values()
        return [f"Epochs: {task.length.epochs:g}, in minibatches of {task.batch_size}."]
    each = (f"{name} {task.length.epochs:g} in minibatches of {task.batch_size}" for name, task in tasks.items())
    return [f"Epochs: {', '.join(each)}; every update trains one task, as often as it would be trained alone."]
