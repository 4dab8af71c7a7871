"""A learning rate chosen on held-out examples, then a training on all of them (PolyViT Table 9)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from probe_toys import VIT, write_media
from tubelet.configs import ConfigError
from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.recipes.run import run
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task, Training
from tubelet.training.resolve import read_run
from tubelet.training.run import train


def experiment(data: Path, held_out: float = 0.25) -> Experiment:
    task = Task(
        source=Source(path=str(data), held_out=held_out),
        objective=Classification(head_init="lecun"),
        inputs=("image",),
        augment=Augmentation.none(),
        batch_size=8,
        length=Length(steps=20),
        warmup=Length(),
        views=Views(),
    )
    training = Training(workers=0)
    return Experiment(model=VIT, tasks={"toys": task}, training=training, learning_rates=(0.1, 1e-9))


def test_the_rate_that_validates_best_trains_on_all_examples(tmp_path: Path) -> None:
    """At a rate of next to nothing the head stays random. The same call once more trains nothing again."""
    made = experiment(write_media(tmp_path / "data", {"train": 8, "val": 2}))
    result = run(made, tmp_path / "out", progress=False)
    assert result.results["tasks"]["toys"]["metrics"]["top1"] == 1.0
    chosen = read_run(tmp_path / "out")
    assert chosen.experiment.tasks["toys"].learning_rate == 0.1
    assert chosen.experiment.notes.startswith("Learning rate 0.1, chosen by 6 training examples (1e-09: ")
    tried = read_run(tmp_path / "out_rates" / "rate_0.1")
    assert (tried.data["toys"].examples, chosen.data["toys"].examples) == (18, 24)
    scored = json.loads((tmp_path / "out_rates" / "rate_0.1" / "results.json").read_text())
    assert scored["tasks"]["toys"]["coverage"]["expected"] == 6
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    run(made, tmp_path / "out", progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before


def test_a_choice_needs_examples_and_a_single_task(tmp_path: Path) -> None:
    made = experiment(write_media(tmp_path / "data", {"train": 4, "val": 2}), held_out=0.0)
    with pytest.raises(ConfigError, match="holds nothing out to choose a learning rate by"):
        run(made, tmp_path / "out", progress=False)
    with pytest.raises(ConfigError, match="train\\(\\) takes none"):
        train(made, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="of a single task"):
        replace(made, tasks={**made.tasks, "more": made.tasks["toys"]})
