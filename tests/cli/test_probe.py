"""``tubelet probe`` at the command line: its table, its JSON, and a head that ``predict`` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probe_toys import VIT, save_tiny, write_media
from tubelet.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("models") / "vit", VIT))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("pictures"), {"train": 8, "val": 3}, broken=["val"])


def test_a_fast_probe_prints_one_table(
    model: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["probe", model, "--data", str(pictures), "--fast", "--steps", "30", "--workers", "0", "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    head, linear, neighbors = (line.split() for line in shown.out.splitlines()[:3])
    assert head[:3] == ["dataset", "modality", "method"]
    assert linear[:5] == ["toys", "image", "linear,", "cached", "features"]
    assert linear[-7:] == ["top-1", "100.0%", "1x1", "24", "9", "/", "10"]
    assert neighbors[2:6] == ["k-NN", "(k", "=", "20)"]
    assert "The head: 30 updates" in shown.out
    assert "Note: learning rate" in shown.out
    assert shown.err.startswith(f"tubelet: val: left out: {pictures.with_name('val_broken.png')}: ")
    assert main(["predict", str(tmp_path / "out" / "final"), str(pictures.with_name("val_green_0.png")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["labels"][0]["label"] == "green"


def test_json_says_the_same_of_a_training(
    model: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--steps", "20", "--batch-size", "8", "--rates", "0.3", "--workers", "0", "--json", "--out", str(out)]
    assert main(["probe", model, "--data", str(pictures), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "probe.json").read_text())
    (row,) = told["rows"]
    assert (row["method"], row["learning_rate"], row["metrics"]["top1"]) == ("linear, trained on files", 0.3, 1.0)
    assert (row["scored"], row["expected"], row["train"]) == (9, 10, 24)
    assert [file["split"] for file in told["unreadable"]] == ["val"]


def test_errors_teach(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = write_media(tmp_path, {"train": 2})
    assert main(["probe", model, "--data", str(alone), "--out", str(tmp_path / "out")]) == 1
    assert "there is no split 'test' or 'val' (splits: 'train')" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
