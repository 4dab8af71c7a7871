"""Models side by side: what the rows say is what the runs' folders hold, and shares are of the first row."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from tubelet.configs import ConfigError
from tubelet.reports.comparison import Compared, Comparison, compare, comparison_table, read_comparison


def write_run(folder, scores, *, width, updates=25):
    """What a finished run leaves behind, as far as a comparison reads it: two updates a second, then four."""
    (folder / "model").mkdir(parents=True)
    save_file({"a": torch.zeros(width, 3), "b": torch.zeros(3)}, folder / "model" / "model.safetensors")
    tasks = {name: {"metrics": {"mean_class_accuracy": 0.1, "top1": score}} for name, score in scores.items()}
    (folder / "results.json").write_text(json.dumps({"tasks": tasks}))
    lines = [
        {"step": 10, "task": "t", "loss": 1.0, "updates_per_second": 2.0},
        {"step": 10, "evaluation": {}},
        {"step": updates, "task": "t", "loss": 1.0, "updates_per_second": 4.0},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def comparison(tmp_path):
    digit = write_run(tmp_path / "digit", {"digit": 0.8}, width=10)
    spoken = write_run(tmp_path / "spoken", {"spoken": 0.5}, width=20)
    both = write_run(tmp_path / "both", {"digit": 0.76, "spoken": 0.6}, width=11, updates=50)
    return compare({"one model per task": [digit, spoken], "PolyViT": [both]}, note="The same updates for each task.")


def test_rows_hold_what_the_runs_did(comparison):
    single, poly = comparison.rows
    assert (single.models, single.parameters, single.updates) == (2, 33 + 63, 50)
    assert single.scores == {"digit": 0.8, "spoken": 0.5}
    assert single.seconds == pytest.approx(2 * (10 / 2 + 15 / 4))
    assert (poly.models, poly.parameters, poly.updates) == (1, 36, 50)
    assert poly.seconds == pytest.approx(10 / 2 + 40 / 4)
    assert comparison.metrics == {"digit": "top1", "spoken": "top1"}


def test_shares_are_of_the_first_row(comparison):
    single, poly = comparison.rows
    assert comparison.parameter_share(poly) == pytest.approx(36 / 96)
    assert comparison.score_shares(poly) == pytest.approx({"digit": 0.95, "spoken": 1.2})
    assert comparison.score_shares(single) == {"digit": 1, "spoken": 1}


def test_it_is_kept_in_a_runs_folder(comparison, tmp_path):
    assert read_comparison(tmp_path) is None
    comparison.write(tmp_path)
    assert read_comparison(tmp_path) == comparison
    assert Comparison.from_json(json.loads(json.dumps(comparison.as_json()))) == comparison
    with pytest.raises(ConfigError, match="metrics"):
        Comparison.from_json({"rows": []})


def test_the_table_says_everything_in_a_line_per_row(comparison):
    console = Console(width=160, file=io.StringIO())
    console.print(comparison_table(comparison))
    lines = console.file.getvalue().splitlines()
    assert "digit top1" in lines[0]
    cells = lines[2].split()
    assert cells == ["PolyViT", "1", "0.00", "M", "76.0%", "60.0%", "50", "15", "s", "37.5%", "95.0%,", "120.0%"]
    assert "The same updates for each task." in lines[3]


def test_a_task_that_a_row_lacks_has_no_share():
    rows = [Compared(model=name, models=1, parameters=1, updates=1, seconds=1, scores={}) for name in "ab"]
    assert Comparison(rows=tuple(rows), metrics={"digit": "top1"}).score_shares(rows[1]) == {}


def test_what_cannot_be_compared_is_refused(tmp_path):
    runs = [write_run(tmp_path / name, {"digit": 0.5}, width=1) for name in "ab"]
    with pytest.raises(ValueError, match="'digit' has a score from another run of 'twice'"):
        compare({"twice": runs})
    with pytest.raises(ValueError, match="at least one row"):
        Comparison(rows=(), metrics={})
    with pytest.raises(ValueError, match="no metric is known"):
        Comparison(
            rows=(Compared(model="m", models=1, parameters=1, updates=1, seconds=1, scores={"x": 1}),), metrics={}
        )
