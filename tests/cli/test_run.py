"""A newcomer's session at the command line, with a broken file among the data: index, train, evaluate, predict."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tubelet.cli import main
from tubelet.media.write import write_video

COLORS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of clips of one color each, and a file that is no video."""
    folder = tmp_path_factory.mktemp("session") / "my clips"
    random = torch.Generator().manual_seed(0)
    for channel, color in enumerate(COLORS):
        (folder / color).mkdir(parents=True)
        for i in range(6):
            frames = torch.randint(0, 60, (12, 3, 48, 64), generator=random, dtype=torch.uint8)
            frames[:, channel] += 180
            write_video(folder / color / f"{i}.mp4", frames, fps=12)
    (folder / "red" / "broken.mp4").write_bytes(b"no video" * 100)
    return folder


@pytest.fixture(scope="module")
def run(clips: Path) -> Path:
    """A run of the recipe ``folder``, made small."""
    out = clips.parent / "run"
    flags = ["--size", "32x2", "--model.video.size", "32,32"]
    flags += ["--tasks.folder.learning-rate", "5e-3", "--tasks.folder.augment.color", "0", "--training.workers", "1"]
    assert main(["train", "folder", str(clips), "--out", str(out), "--epochs", "10", *flags]) == 0
    return out


def result_of(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(words) == status
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_index_writes_a_manifest_and_names_the_broken_file(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = clips.parent / "manifest.csv"
    out, err = result_of(capsys, "data", "index", str(clips), "--out", str(manifest))
    assert "3 classes; 1 cannot be read" in out
    assert err.startswith(f"tubelet: {clips / 'red' / 'broken.mp4'}: ")
    rows = list(csv.DictReader(manifest.open()))
    assert len(rows) == 19
    assert {row["label"] for row in rows} == set(COLORS)
    assert [row["path"] for row in rows if row["error"]] == ["my clips/red/broken.mp4"]
    out, err = result_of(capsys, "data", "check", str(manifest), status=1)
    assert "1 cannot be read" in out
    assert "broken.mp4" in err


def test_training_learns_and_explains_itself(run: Path) -> None:
    task = json.loads((run / "results.json").read_text())["tasks"]["folder"]
    assert task["metrics"]["top1"] > 0.9
    assert task["views"] == "1x1"
    assert (run / "report.html").is_file()
    notes = json.loads((run / "config.json").read_text())["experiment"]["notes"]
    assert "16 training, 0 validation and 3 test clips of 3 classes; a typical clip lasts 1.0 s" in notes
    assert "broken.mp4" in (run / "quarantine.jsonl").read_text()


def test_the_same_command_goes_on_and_another_experiment_is_refused(
    run: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = result_of(capsys, "train", "folder", str(clips), "--out", str(run), "--epochs", "3", status=2)
    assert "tasks.folder.length.steps: 80 -> 24" in err
    assert "--out" in err


def test_evaluation_prints_every_number_with_views_and_coverage(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = json.loads((run / "results.json").read_text())
    out, _ = result_of(capsys, "eval", str(run), "--json")
    assert json.loads(out) == stored
    out, _ = result_of(capsys, "eval", str(run), "--views", "2x3")  # whole pictures have one crop
    scored, expected = (stored["tasks"]["folder"]["coverage"][name] for name in ("scored", "expected"))
    (line,) = [line for line in out.splitlines() if "top1" in line and "2x1" in line]
    assert line.endswith(f"{scored} / {expected}")
    assert json.loads((run / "results.json").read_text()) == stored, "other views do not replace the run's results"


def test_prediction_goes_on_after_a_broken_file(run: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(clips / name) for name in ("red/0.mp4", "red/broken.mp4", "none.mp4", "blue/1.mp4")]
    out, err = result_of(capsys, "predict", str(run), *files, "--json", status=1)
    first, broken, missing, last = json.loads(out)
    assert first["labels"][0]["label"] == "red"
    assert last["labels"][0]["label"] == "blue"
    assert sum(answer["probability"] for answer in first["labels"]) == pytest.approx(1)
    assert "error" in broken
    assert "error" in missing
    assert [line.split(": ")[1] for line in err.splitlines()] == files[1:3]
    out, _ = result_of(capsys, "predict", str(run), files[0], files[3], "--top", "1")
    assert "red/0.mp4" in out
    assert "green" not in out


def test_prediction_as_csv(run: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(clips / "green" / "2.mp4")
    out, _ = result_of(capsys, "predict", str(run), file, "--format", "csv", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["path"], row["rank"]) for row in rows] == [(file, "1"), (file, "2")]
    assert rows[0]["label"] == "green"


def test_a_timeline_covers_the_video(run: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("predict", str(run), str(clips / "blue" / "3.mp4"), "--timeline", "--window", "0.25")
    out, _ = result_of(capsys, *words, "--json")
    (found,) = json.loads(out)
    starts, ends = ([s[key] for s in found["timeline"]] for key in ("start", "end"))
    assert starts == pytest.approx([0, 0.25, 0.5, 0.75])
    assert ends[-1] == pytest.approx(1.0)
    out, _ = result_of(capsys, *words)
    assert "0:00.0" in out


def test_training_runs_under_torchrun(run: Path, clips: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(_MINE)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tubelet"]
    command += ["train", f"{mine}:experiment", str(clips), "--out", str(out)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results: Any = json.loads((out / "results.json").read_text())
    assert results["tasks"]["folder"]["coverage"]["expected"] > 0
    assert done.stdout.count("top1") == done.stdout.count("1x1") // 2, "one rank alone prints"


_MINE = """
from dataclasses import replace
from tubelet.recipes.folder import folder
from tubelet.training.experiment import Length

def experiment(data: str):
    made = folder(data, epochs=1, size="32x1", baseline=False)
    task = replace(made.tasks["folder"], batch_size=4, length=Length(steps=2), warmup=Length())
    video = replace(made.model.video, frames=4, size=(32, 32))
    return replace(made, model=replace(made.model, video=video), tasks={"folder": task})
"""


def test_a_test_split_that_cannot_be_read_loses_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for i, label in enumerate(("a", "b")):
        for split in ("train", "val"):
            (tmp_path / "d" / split / label).mkdir(parents=True)
        for j in range(6):
            Image.new("RGB", (24, 24), (i * 200, j, 0)).save(tmp_path / "d" / "train" / label / f"{j}.png")
        (tmp_path / "d" / "val" / label / "0.png").write_bytes(b"no picture")
    words = ["train", "folder", "d", "--out", "run", "--epochs", "1", "--no-baseline", "--training.workers", "0"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "the model is in run/model, but its evaluation failed" in said
    assert "The same command" in said
    assert main(["predict", "run", "d/train/a/0.png"]) == 0
    for label in ("a", "b"):
        Image.new("RGB", (24, 24), (90, 90, 90)).save(tmp_path / "d" / "val" / label / "0.png")
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert main(words) == 0
    assert (tmp_path / "run" / "log.jsonl").read_text() == log
    assert (tmp_path / "run" / "results.json").is_file()
