"""A run of images, videos and sounds is evaluated in one go; what was not heard is told."""

from __future__ import annotations

import json

import pytest

from senses import write_senses, write_senses_run
from tubelet.cli import main
from tubelet.configs import ConfigError
from tubelet.data.views import Views
from tubelet.evaluation.run import evaluate_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = write_senses(tmp_path_factory.mktemp("senses") / "data")
    return write_senses_run(data.parent / "run", data)


def test_one_command_prints_one_table_of_all_tasks(run, capsys):
    assert main(["eval", str(run)]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["task", "modality", "metric", "value", "views", "scored"]
    assert ["picture", "image", "top1", "100.00%", "1x1", "1", "/", "1"] in lines
    assert ["film", "video", "top1", "50.00%", "2x1", "2", "/", "2"] in lines
    assert ["pitch", "audio", "top1", "100.00%", "3x1", "5", "/", "6"] in lines
    assert ["pitch", "audio", "top1", "100.00%", "1x1", "5", "/", "6"] in lines
    assert "pitch: the sound of 1 of 5 examples is digital silence" in err
    assert "pitch: not scored: " in err
    assert "mute_red.mp4" in err
    assert "film: the sound" not in err
    written = json.loads((run / "results.json").read_text())["tasks"]
    assert {name: task["inputs"] for name, task in written.items()} == {
        "picture": ["image"], "film": ["video"], "pitch": ["audio"],
    }  # fmt: skip


def test_an_evaluation_leaves_the_comparison_alone(run):
    (run / "comparison.json").write_text("{}")
    evaluate_run(run, workers=0, progress=False)
    assert (run / "comparison.json").read_text() == "{}"
    (run / "comparison.json").unlink()


def test_each_task_takes_of_the_views_what_its_input_has(run):
    results = evaluate_run(run, views=Views(clips=4, crops=3), workers=0, progress=False)
    assert {name: result.views for name, result in results.items()} == {
        "picture": "1x3", "film": "4x3", "pitch": "4x1",
    }  # fmt: skip


def test_other_data_are_of_one_task(run):
    data = str(run.parent / "data" / "pitch.csv")
    with pytest.raises(ConfigError, match="say of which of picture, film, pitch"):
        evaluate_run(run, data=data, workers=0)
    (result,) = evaluate_run(run / "model", data=data, task="pitch", workers=0, progress=False).values()
    assert (result.views, result.coverage) == ("4x1", "5/6")


def test_clips_of_a_sound_no_longer_than_one_are_told(run):
    data = run.parent / "data" / "short.csv"
    data.write_text("path,label,end\nlow.wav,low,0.4\nhigh.wav,high,0.3\nnone.wav,low,0.3\n")
    (result,) = evaluate_run(run, data=str(data), task="pitch", workers=0, progress=False).values()
    same, silent = result.warnings
    assert same.startswith("the 3 clips of 2 of 3 sounds are the same")
    assert silent.startswith("the sound of 1 of 3 examples is digital silence")
