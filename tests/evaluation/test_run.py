"""Evaluating what is on disk: a run's own test data, a model with other data, and what is written where."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from colors import NAMES, write_colors
from tubelet.cli import main
from tubelet.configs import ConfigError
from tubelet.data.manifest import ManifestError
from tubelet.data.views import Views
from tubelet.evaluation.run import evaluate_run, evaluator
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import VideoSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task, Training
from tubelet.training.outcome import cards
from tubelet.training.ranks import Ranks
from tubelet.training.resolve import Resolved, write_run
from tubelet.training.run import initial_model
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import save_model

MODEL = ViViTConfig(
    backbone=TransformerConfig(width=16, depth=1, heads=2, mlp=32),
    tubelet=(2, 8, 8),
    video=VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16),
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    data = write_colors(tmp_path_factory.mktemp("data"), [("red",), ("green",), ("blue",)], NAMES, broken=1)
    task = Task(
        source=Source(path=str(data)),
        objective=Classification(classes=NAMES, head_init="lecun"),
        length=Length(steps=1),
        views=Views(clips=2),
    )
    return Experiment(model=MODEL, tasks={"color": task}, training=Training(workers=0))


@pytest.fixture
def run(experiment, tmp_path):
    """A run as training leaves it, without having trained."""
    folder = tmp_path / "run"
    write_run(folder, Resolved(experiment=experiment, data={}))
    save_model(folder / "model", initial_model(experiment), MODEL, cards(experiment, {}), {})
    return folder


def test_a_run_is_evaluated_on_its_own_test_data_and_keeps_the_results(run):
    results = evaluate_run(run, workers=0, progress=False)
    written = json.loads((run / "results.json").read_text())
    assert written["tasks"]["color"] == results["color"].as_json()
    assert written["tasks"]["color"]["views"] == "2x1"
    assert written["tasks"]["color"]["coverage"] == {"scored": 3, "expected": 4}
    assert len((run / "predictions.jsonl").read_text().splitlines()) == 3
    assert (run / "classes.json").is_file()


def test_other_views_or_data_leave_the_runs_results_alone(run, experiment, tmp_path):
    result = evaluate_run(run, views=Views(clips=3, crops=3), workers=0, progress=False)["color"]
    assert result.views == "3x3"
    data = experiment.tasks["color"].source.path
    evaluate_run(run, data=data, out=tmp_path / "other", workers=0, progress=False)
    assert not (run / "results.json").exists()
    assert (tmp_path / "other" / "results.json").is_file()


def test_fields_of_the_model_that_the_weights_allow_are_changed_and_told(run, capsys):
    """Of two frames that are 0.1 s apart, those of clips that are twice as long."""
    out = run / "slower"
    words = ["--model.video.stride", "2", "--model.video.short-side=20", "--out", str(out)]
    assert main(["eval", str(run), *words]) == 0
    written = json.loads((out / "results.json").read_text())["tasks"]["color"]
    assert written["changed"] == {"video.stride": "2", "video.short_side": "20"}
    assert not (run / "results.json").exists()
    assert "color: model.video.stride 2, model.video.short_side 20." in capsys.readouterr().out
    with pytest.raises(WeightsError, match=r"does not fit --model.video.frames 8: .* wants"):
        evaluate_run(run, model={"video.frames": "8"}, workers=0)
    with pytest.raises(ConfigError, match=r"--model\.video: no field 'strides'; did you mean 'stride'"):
        evaluate_run(run, model={"video.strides": "2"}, workers=0)


def test_a_model_that_is_no_run_needs_data(run, experiment, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(run / "model", model)
    with pytest.raises(ConfigError, match="give the data"):
        evaluate_run(model, workers=0)
    result = evaluate_run(model, data=experiment.tasks["color"].source.path, workers=0, progress=False)["color"]
    assert (result.scored, result.views) == (3, "4x1")
    assert sorted(path.name for path in model.iterdir()) == ["README.md", "model.safetensors", "tubelet.json"]


def test_a_manifest_without_splits_is_scored_whole(run, tmp_path):
    source = write_colors(tmp_path, [("red",), ("blue",)], ["red", "blue"])
    source.write_text("path,label\n0.mp4,red\n1.mp4,blue\n")
    assert evaluate_run(run, data=str(source), workers=0, progress=False)["color"].scored == 2


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"task": "motion"}, ConfigError, "no task 'motion'; it has color"),
        ({"split": "holdout"}, ManifestError, "no split 'holdout'"),
    ],
)
def test_what_is_not_there_is_named(run, options, error, says):
    with pytest.raises(error, match=says):
        evaluate_run(run, workers=0, **options)


def test_labels_that_the_model_does_not_know_are_refused(run, tmp_path):
    source = write_colors(tmp_path, [("red",)], ["purple"])
    with pytest.raises(ValueError, match="'purple' is none of the 3 classes"):
        evaluate_run(run, data=str(source), workers=0)


def test_training_gets_an_evaluator_that_keeps_the_details(experiment, tmp_path):
    model = initial_model(experiment)
    results = evaluator(tmp_path, progress=False)(model, experiment, Ranks(torch.device("cpu")))
    assert set(results["tasks"]["color"]["metrics"]) == {"top1", "mean_class_accuracy"}
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert (tmp_path / "predictions.jsonl").is_file()


def test_the_evaluator_measures_every_task(experiment):
    second = replace(experiment.tasks["color"], views=Views())
    both = replace(experiment, tasks={**experiment.tasks, "second": second})
    results = evaluator(progress=False)(initial_model(both), both, Ranks(torch.device("cpu")))["tasks"]
    assert [results[name]["views"] for name in ("color", "second")] == ["2x1", "1x1"]
    assert "single_view" not in results["second"]
