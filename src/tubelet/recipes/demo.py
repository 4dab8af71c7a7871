"""The demo: a small ViViT learns which way a handwritten digit moves, from mp4 files that are made on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Record, read_manifest
from tubelet.data.talking_digits import make
from tubelet.data.views import Views
from tubelet.evaluation.report import write_report
from tubelet.evaluation.results import RESULTS
from tubelet.evaluation.run import evaluator
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import Backbone
from tubelet.specs import VideoSpec
from tubelet.training.experiment import AdamW, Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Classification
from tubelet.training.outcome import write_json
from tubelet.training.run import train

DATA = "runs/talking_digits"

NOTES = """
A small ViViT (Model 1: joint attention over space and time) learned from mp4 files alone which of eight ways a
handwritten digit moves.

What is real: the handwriting, from scikit-learn's digits. What is synthetic: the colours and the motion. The test
videos show the digits of writers who never appear in training. A single frame says nothing about the direction, so a
model that sees one frame can only guess, one in eight: the task "one_frame" shows it.
""".strip()


def demo(
    data: Annotated[str, Doc("the folder of Talking Digits; `tubelet data digits` makes it")] = DATA,
    frames: Annotated[int, Doc("frames of a clip; 1 shows what a model without time knows")] = 16,
) -> Experiment:
    """Talking Digits: which way does a handwritten digit move?

    tubelet demo

    The command also makes the data (once), trains the same model on single frames, and writes a report. Expect at least
    98 % top-1 on unseen writers at 2x1 views, and chance (12.5 %) from one frame, in under four minutes on two cores.
    """
    task = Task(
        source=Source(path=f"{data}/motion.csv"),
        objective=Classification(head_init="lecun"),
        augment=Augmentation.none(),
        batch_size=32,
        length=Length(steps=400),
        warmup=Length(steps=40),
        learning_rate=1e-3,
        views=Views(clips=2, crops=1),
    )
    model = ViViTConfig(
        backbone=Backbone(width=128, depth=4, heads=4, mlp=512),
        tubelet=(min(frames, 4), 8, 8),
        video=VideoSpec(frames=frames, stride=1, size=(32, 32), short_side=32),
    )
    training = Training(checkpoint_every=200, cache_gib=0.5)
    return Experiment(model=model, tasks={"motion": task}, optimizer=AdamW(), training=training, notes=NOTES)


def run_demo(out: str | Path, *, data: str | Path = DATA, progress: bool = True) -> Mapping[str, Any]:
    """Make the data, train on 16 frames and on one, evaluate both, report; returns what results.json holds."""
    out = Path(out)
    make(data)
    tasks = {"motion": _results(demo(str(data)), out, progress)}
    tasks["one_frame"] = _results(demo(str(data), frames=1), out / "one_frame", progress)
    results = {"tasks": tasks}
    write_json(out / RESULTS, results)
    write_report(out)
    return results


def _results(experiment: Experiment, out: Path, progress: bool) -> Any:
    result = train(experiment, out, evaluate=evaluator(out, progress=progress), progress=progress)
    return result.results["tasks"]["motion"]


def unseen(data: str | Path = DATA) -> Record:
    """A test clip to predict on."""
    return read_manifest(Path(data, "motion.csv")).split("val")[0]
