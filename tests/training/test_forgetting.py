"""Sequential fine-tuning (PolyViT Table 4, Table 10): the task before keeps its head, and is scored after the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training_runs import UPDATES, experiment, make_files, weights
from tubelet.configs import ConfigError
from tubelet.training.classification import Classification
from tubelet.training.experiment import SGD, Experiment, Length
from tubelet.training.run import train
from tubelet.training.schedules import Accumulated, Alternating
from tubelet.weights.folder import load_model
from tubelet.weights.transfer import Init


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def before(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("before") / "run"
    train(experiment(files, random_layers=False, workers=0), out, progress=False)
    return out


def afterwards(files: Path, source: Path, **changes: object) -> Experiment:
    """Nouns after motion; decay would shrink whatever the optimizer holds."""
    made = experiment(files, random_layers=False, workers=0)
    motion = made.tasks["motion"]
    noun = replace(motion, objective=Classification(label_sets=("noun",), head_init="lecun"))
    tasks = {"motion": replace(motion, length=Length()), "noun": noun}
    made = replace(made, tasks=tasks, init=(Init(source=str(source)),), optimizer=SGD(weight_decay=0.1))
    return replace(made, **changes)


@pytest.mark.parametrize("schedule", [Alternating(), Accumulated()])
def test_the_task_before_keeps_its_head_and_is_scored(files, before, tmp_path, schedule):
    scored = []

    def evaluate(model, of, ranks):
        scored.extend(of.tasks)
        return {"tasks": {name: {"metrics": {"top1": 0.5}, "views": "4x3"} for name in of.tasks}}

    result = train(afterwards(files, before, schedule=schedule), tmp_path / "run", evaluate=evaluate, progress=False)
    assert (result.updates, scored) == (UPDATES, ["motion", "noun"])
    old, new = weights(before), weights(tmp_path / "run")
    kept = [name for name in old if name.startswith("heads.motion")]
    assert kept
    assert all(torch.equal(new[name], old[name]) for name in kept)
    assert not torch.equal(
        new["encoder.encoder.transformer.norm.weight"], old["encoder.encoder.transformer.norm.weight"]
    )
    assert set(load_model(tmp_path / "run").tasks) == {"motion", "noun"}


def test_a_start_without_the_old_head_is_refused(files, before, tmp_path):
    made = afterwards(files, before)
    tasks = {"direction": made.tasks["motion"], "noun": made.tasks["noun"]}
    with pytest.raises(ConfigError, match=r"tasks\.direction\.length is zero, and init brings no head of that name"):
        train(replace(made, tasks=tasks), tmp_path / "run", progress=False)
