"""Which weights validation keeps, when it ends a training, and that both are resumed exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training_runs import assert_same, experiment, make_files, run, weights
from tubelet.cards import ClassCard
from tubelet.evaluation.run import validator
from tubelet.models import Model
from tubelet.training.experiment import Experiment, Source
from tubelet.training.loop import Update
from tubelet.training.run import train
from tubelet.training.validation import Score, Validation


def score(share: float, examples: int) -> Score:
    """Of a task whose top-1 is ``share``."""
    return Score.mean([share], [ClassCard(classes=("a", "b")).standard_error(share, examples)])


def follow(scores: list[float], examples: int, patience: int = 0) -> tuple[Validation, int]:
    """A training of so many validations, each of weights that are the update's number; and how many came."""
    weights = {"w": torch.zeros(1)}
    left = iter(scores)
    hook = Validation(
        lambda: score(next(left), examples),
        weights,
        every=1,
        patience=patience,
        total=len(scores),
        tell=lambda step, validation: None,
    )
    for step in range(1, len(scores) + 1):
        if hook.enough():
            return hook, step - 1
        weights["w"].fill_(step)
        hook(Update(step, [], [], torch.zeros(()), 0.0, 0.0, 0.0))
    return hook, len(scores)


@pytest.mark.parametrize(
    ("scores", "examples", "kept"),
    [
        ([0.5, 0.9, 0.7], 1_000, 2),  # overfitting: the best
        ([0.5, 0.9, 0.895], 1_000, 3),  # within a standard error of the best: the latest
        ([0.5, 0.9, 0.8], 10, 3),  # of ten examples, one more is luck
        ([0.9, 0.5, 0.6], 1_000, 1),
        ([0.2, 0.4, 0.6], 1_000, 3),
    ],
)
def test_the_latest_weights_within_a_standard_error_of_the_best_are_kept(
    scores: list[float], examples: int, kept: int
) -> None:
    hook, _ = follow(scores, examples)
    assert hook.kept_step == kept
    assert hook.kept["w"].item() == kept
    assert hook.kept_score.value == scores[kept - 1]


def test_a_training_ends_when_nothing_moves() -> None:
    assert follow([0.5, 0.6, 0.6, 0.6, 0.6, 0.9], 100, patience=2)[1] == 4
    assert follow([0.5, 0.6, 0.6, 0.7, 0.7, 0.9], 100, patience=2)[1] == 6
    assert follow([1.0] * 6, 100)[1] == 6, "no patience, no end"


def test_the_score_of_several_tasks_is_their_mean() -> None:
    both = Score.mean([1.0, 0.5], [score(1.0, 10_000).error, score(0.5, 25).error])
    assert both.value == 0.75
    assert both.error == pytest.approx(0.05, abs=1e-3)
    assert score(1.0, 10).error > 0.05, "ten of ten are not certain"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("files"))


def validated(files: Path, **training: object) -> Experiment:
    made = experiment(files, random_layers=True, validate_every=2, workers=0, **training)
    task = made.tasks["motion"]
    return replace(made, tasks={"motion": replace(task, source=Source(path=task.source.path, held_out=0.25))})


def test_held_out_examples_never_train(files: Path, tmp_path: Path) -> None:
    train(validated(files), tmp_path / "run", validate=validator(), progress=False)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["motion"]["examples"] == 12
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4, 6, 8]
    state = json.loads((tmp_path / "run" / "model" / "tubelet.json").read_text())["provenance"]["validation"]
    assert [step for step, _, _ in state["curve"]] == [2, 4, 6, 8]


def test_the_kept_weights_are_exported(files: Path, tmp_path: Path) -> None:
    """Of a training whose second validation is far the best: what was averaged by then, not what came later."""
    seen: list[dict[str, Tensor]] = []

    def validate(model: Model, *_: object) -> dict[str, Any]:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        score = 0.9 if len(seen) == 2 else 0.0
        return {"tasks": {"motion": {"metrics": {"top1": score}, "coverage": {"scored": 1000}}}}

    train(validated(files), tmp_path / "run", validate=validate, progress=False)
    assert len(seen) == 4
    for name, tensor in weights(tmp_path / "run").items():
        assert torch.equal(tensor, seen[1][name]), name
    assert any(not torch.equal(seen[1][name], seen[3][name]) for name in seen[1])


def test_validation_and_its_end_are_resumed_bit_for_bit(files: Path, tmp_path: Path) -> None:
    made = validated(files, patience=2)
    jobs = [{"experiment": made, "out": tmp_path / "whole"}]
    status, said = run([*jobs, {"experiment": made, "out": tmp_path / "killed", "kill_at": 5}])
    assert status != 0, said
    train(made, tmp_path / "killed", validate=validator(), progress=False)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    cards = [json.loads((tmp_path / name / "model" / "tubelet.json").read_text()) for name in ("whole", "killed")]
    whole, killed = (card["provenance"] for card in cards)
    assert killed["validation"] == whole["validation"]
    assert killed["updates"] == whole["updates"]
