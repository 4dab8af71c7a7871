"""The demo: what it compares is comparable, and it comes to its end."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tubelet.costs.cost import parameters
from tubelet.data.talking_digits import make
from tubelet.recipes import demo as module
from tubelet.recipes.demo import TASKS, demo, run_comparison, run_demo, unseen
from tubelet.reports.comparison import read_comparison


def test_a_task_trains_alike_alone_and_with_the_others() -> None:
    together = demo()
    for task in TASKS:
        alone = demo(alone=task)
        assert alone.tasks == {task: together.tasks[task]}
        assert alone.training == together.training
        (name,) = together.tasks[task].inputs
        assert alone.model.inputs == {name: together.model.inputs[name]}


def test_one_model_has_less_than_two_fifths_of_three() -> None:
    three = sum(parameters(demo(alone=task).model, 10) for task in TASKS)
    assert parameters(demo().model, 28) < 0.4 * three


def test_the_demo_compares_one_model_with_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "make", partial(make, train=40, val=20))
    monkeypatch.setattr(module, "_STEPS", {"digit": 3, "motion": 2, "spoken": 2})
    data, out = tmp_path / "data", tmp_path / "demo"
    first = run_demo(out, data=data, progress=False)
    assert set(first.results["tasks"]) == set(TASKS)
    assert "single-task" not in (out / "report.html").read_text()
    assert not (out / "single").exists()
    comparison = run_comparison(out, data=data, progress=False)
    three, one = comparison.rows
    assert (three.models, one.models) == (3, 1)
    assert three.updates == one.updates == 7
    assert comparison.parameter_share(one) < 0.4
    assert set(three.scores) == set(one.scores) == set(TASKS)
    assert read_comparison(out) == comparison
    assert "single-task" in (out / "report.html").read_text()
    assert {task: record.split for task, record in unseen(data).items()} == dict.fromkeys(TASKS, "val")
    assert run_comparison(out, data=data, progress=False).rows[1].scores == one.scores, "a second one repeats nothing"
