"""The demo: one small PolyViT learns digits, motion and spoken words together, from files that are made first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc

from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Record, read_manifest
from tubelet.data.talking_digits import make
from tubelet.data.views import Views
from tubelet.evaluation.run import evaluator
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.reports.comparison import Comparison, compare
from tubelet.reports.report import write_report
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import AdamW, Experiment, Length, Source, Task, Training
from tubelet.training.run import RunResult, train

DATA = "runs/talking_digits"
Name = Literal["digit", "motion", "spoken"]
TASKS: tuple[Name, ...] = ("digit", "motion", "spoken")

NOTES = """
A small PolyViT learned three tasks from files alone, with one transformer for all of them: which digit a picture shows,
which of eight ways a handwritten digit moves in a video, and which digit a voice says.

What is real: the handwriting, from scikit-learn's digits. What is synthetic: the colors, the motion, and the voices,
which eSpeak NG speaks. Test pictures and videos show the digits of writers, and test sounds have voices, that never
appear in training. A single frame says nothing about the direction. The tasks are small: their accuracy says nothing
about Kinetics, ImageNet or AudioSet.
""".strip()

_MODALITIES = {
    "digit": ("image", Modality(spec=ImageSpec(size=(32, 32), short_side=32), patch=(1, 8, 8))),
    "motion": (
        "video",
        Modality(spec=VideoSpec(frames=16, stride=1, size=(32, 32), short_side=32), patch=(4, 8, 8)),
    ),
    "spoken": ("audio", Modality(spec=SpectrogramSpec(frames=96, bins=64, low=60.0), patch=(1, 8, 16))),
}
_STEPS = {"digit": 1000, "motion": 250, "spoken": 250}
_AUGMENT = {
    "digit": Augmentation(min_scale=1.0, max_scale=1.15, flip=0.0, color=0.0, grayscale=0.0),
    "motion": Augmentation.none(),
    "spoken": Augmentation.none(),
}


def demo(
    data: Annotated[str, Doc("the folder of Talking Digits; `tubelet data digits` makes it")] = DATA,
    alone: Annotated[Name | None, Doc("one of the tasks: its single-task model; empty: all three")] = None,
) -> Experiment:
    """Talking Digits: one transformer for a written digit, the way it moves, and a spoken digit.

    tubelet demo

    The command also makes the data (once) and writes a report: in under three minutes on two cores. With --compare it
    trains a model for each task alone as well, for the same number of updates, and shows both side by side. Expect at
    least 90 % on digit, 98 % on motion and 90 % on spoken, on writers and voices that never appear in training.
    """
    tasks = (alone,) if alone else TASKS
    modalities = dict(_MODALITIES[task] for task in tasks)
    return Experiment(
        model=PolyViTConfig(backbone=TransformerConfig(width=128, depth=4, heads=4, mlp=512), modalities=modalities),
        tasks={task: _task(task, data) for task in tasks},
        optimizer=AdamW(),
        training=Training(workers=1, checkpoint_every=500, cache_gib=0.5),
        notes=NOTES,
    )


def _task(name: Name, data: str) -> Task:
    return Task(
        source=Source(path=f"{data}/{name}.csv"),
        objective=Classification(head_init="lecun", smoothing=0.1),
        inputs=(_MODALITIES[name][0],),
        augment=_AUGMENT[name],
        batch_size=32,
        length=Length(steps=_STEPS[name]),
        warmup=Length(steps=_STEPS[name] // 10),
        learning_rate=1e-3,
        views=Views(clips=2 if name == "motion" else 1),
    )


def run_demo(out: str | Path, *, data: str | Path = DATA, progress: bool = True) -> RunResult:
    """Make the data, co-train, evaluate and report."""
    make(data)
    result = _train(demo(str(data)), Path(out), progress)
    write_report(out)
    return result


def run_comparison(out: str | Path, *, data: str | Path = DATA, progress: bool = True) -> Comparison:
    """The demo, and a model for each task alone; the report of the demo then shows how they compare."""
    out = Path(out)
    run_demo(out, data=data, progress=progress)
    single = [out / "single" / task for task in TASKS]
    for task, folder in zip(TASKS, single, strict=True):
        _train(demo(str(data), task), folder, progress)
    note = (
        f"{sum(_STEPS.values()):,} updates of one PolyViT, or of three single-task models together: each task has the "
        "same number of its own minibatches. Talking Digits: small, its video and speech synthetic."
    )
    comparison = compare({"single-task models": single, "PolyViT": [out]}, note=note)
    comparison.write(out)
    write_report(out)
    return comparison


def _train(experiment: Experiment, folder: Path, progress: bool) -> RunResult:
    return train(experiment, folder, evaluate=evaluator(folder, progress=progress), progress=progress)


def unseen(data: str | Path = DATA) -> dict[Name, Record]:
    """A test file of every task, to predict."""
    return {task: read_manifest(Path(data, f"{task}.csv")).split("val")[0] for task in TASKS}
