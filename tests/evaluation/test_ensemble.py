"""Several models evaluated as one: the mean of what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from colors import NAMES
from senses import senses_model, write_senses, write_senses_run
from tubelet.cli import main
from tubelet.configs import ConfigError
from tubelet.data.views import Views
from tubelet.evaluation.ensemble import evaluate_ensemble
from tubelet.evaluation.results import TaskResult
from tubelet.evaluation.run import evaluate_run
from tubelet.weights.folder import save_model


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, and a model with other heads that was tested with other views and knows the colors in another order."""
    folder = tmp_path_factory.mktemp("ensemble")
    run = write_senses_run(folder / "run", write_senses(folder / "data"))
    loaded = senses_model()
    cards = loaded.tasks | {"film": replace(loaded.tasks["film"], classes=NAMES[::-1], views="1x1")}
    torch.manual_seed(0)
    for head in loaded.model.heads.values():
        torch.nn.init.normal_(head.projection.weight)
    save_model(folder / "other", loaded.model, loaded.config, cards, {})
    return run, folder / "other"


def said(result: TaskResult) -> dict[str, dict[str, float]]:
    return {example.key: dict(example.top["label"]) for example in result.examples}


def test_the_probabilities_of_all_models_are_averaged(runs):
    """Class by class, whatever their order in each model."""
    films = str(runs[0].parent / "data" / "film.csv")
    options = {"task": "film", "views": Views(1, 1), "workers": 0, "progress": False}
    alone = [said(evaluate_run(run, data=films, **options)["film"]) for run in runs]
    both = evaluate_ensemble(runs, **options)["film"]
    assert (both.views, both.coverage) == ("1x1", "2/2")
    assert set(said(both)) == set(alone[0])
    for key, answers in said(both).items():
        assert answers == pytest.approx({label: (alone[0][key][label] + alone[1][key][label]) / 2 for label in NAMES})
        assert alone[0][key] != pytest.approx(alone[1][key])


def test_one_model_twice_is_that_model(runs):
    run, _ = runs
    single = evaluate_run(run, task="film", workers=0, progress=False)["film"]
    twice = evaluate_ensemble([run, run], task="film", workers=0, progress=False)["film"]
    assert (twice.metrics, twice.single_view, twice.views) == (single.metrics, single.single_view, single.views)
    for key, answers in said(single).items():
        assert said(twice)[key] == pytest.approx(answers, abs=1e-6)


def test_each_model_keeps_its_own_views_and_what_is_to_be_told_is_told_once(runs):
    results = evaluate_ensemble(runs, workers=0, progress=False)
    views = {name: result.views for name, result in results.items()}
    assert views == {"picture": "1x1", "film": "2x1 and 1x1", "pitch": "3x1"}
    assert results["pitch"].coverage == "5/6"
    assert len(results["pitch"].errors) == 1
    alone = evaluate_run(runs[0], task="pitch", workers=0, progress=False)["pitch"]
    assert results["pitch"].warnings == alone.warnings
    assert any("digital silence" in warning for warning in alone.warnings)


def test_models_of_other_classes_are_refused(runs, tmp_path):
    loaded = senses_model()
    cards = loaded.tasks | {"film": replace(loaded.tasks["film"], classes=("cat", "dog", "cow"))}
    save_model(tmp_path, loaded.model, loaded.config, cards, {})
    with pytest.raises(ConfigError, match="has no task that answers what 'film' does"):
        evaluate_ensemble([runs[0], tmp_path], task="film", workers=0, progress=False)


def test_the_command_prints_the_ensemble_and_leaves_the_runs_alone(runs, tmp_path, capsys):
    run, other = map(str, runs)
    assert main(["eval", run, "--task", "film", "--ensemble", other, "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tasks"]["film"]
    assert told["views"] == "2x1 and 1x1"
    assert json.loads((tmp_path / "results.json").read_text())["tasks"]["film"] == told
    assert not (runs[0] / "results.json").exists()
    assert main(["eval", run, "--ensemble", other, "--inputs", "video"]) == 2
    assert "--inputs is of one model" in capsys.readouterr().err
