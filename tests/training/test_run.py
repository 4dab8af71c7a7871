"""Whole runs on small videos: refusals, evaluation, signals, what a run leaves."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training_runs import UPDATES, assert_same, experiment, finish, make_files, start, weights
from tubelet.configs import ConfigError, override
from tubelet.training.lock import RunInUseError, RunLock
from tubelet.training.ranks import Ranks
from tubelet.training.records import DamagedRunError
from tubelet.training.run import DiskFullError, train
from tubelet.weights.folder import load_model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def alone(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process without random layers."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train(experiment(files, random_layers=False), out, progress=False)
    return out


def test_a_finished_run_is_left_as_it_is(alone: Path, files: Path):
    before = {path: path.stat().st_mtime_ns for path in alone.rglob("*") if path.is_file()}
    result = train(experiment(files, random_layers=False), alone, progress=False)
    assert result.updates == UPDATES
    assert {path: path.stat().st_mtime_ns for path in alone.rglob("*") if path.is_file()} == before


def test_the_exported_weights_are_the_moving_average(alone: Path):
    (shard,) = (alone / "checkpoints" / f"step-{UPDATES:08d}").glob("*.safetensors")
    saved = load_file(shard)
    for name, weight in weights(alone).items():
        assert torch.equal(weight, saved[f"average.{name}"]), name
    assert not torch.equal(
        saved["model.heads.motion.projection.weight"], saved["average.heads.motion.projection.weight"]
    )


def test_the_exported_model_knows_its_classes_and_where_it_comes_from(alone: Path):
    loaded = load_model(alone)
    assert loaded.tasks["motion"].classes == ("a", "b", "c")
    assert loaded.provenance["updates"] == UPDATES
    assert loaded.provenance["experiment"]["tasks"]["motion"]["batch_size"] == 4
    assert set(loaded.provenance["data"]["motion"]) == {"examples", "updates", "warmup", "sha256"}


def test_a_failing_evaluation_loses_nothing_and_the_same_call_catches_up(
    alone: Path, files: Path, tmp_path: Path
) -> None:
    made, out, calls = experiment(files, random_layers=False), tmp_path / "run", []

    def evaluate(model, of, ranks):
        calls.append(model.training)
        if len(calls) < 3:
            raise OSError("the test files are gone")
        return {"tasks": {"motion": {"metrics": {"top1": 0.5}, "views": "4x3"}}}

    failed = train(made, out, evaluate=evaluate, progress=False)
    assert failed.problem == "OSError: the test files are gone"
    assert failed.results == {}
    assert failed.updates == UPDATES
    kept = weights(out)
    assert all(torch.equal(kept[name], value) for name, value in weights(alone).items())
    assert load_model(out).tasks["motion"].metrics == {}
    log = (out / "log.jsonl").read_text()
    assert train(made, out, evaluate=evaluate, progress=False).problem
    done = train(made, out, evaluate=evaluate, progress=False)
    assert (done.problem, len(calls), any(calls)) == ("", 3, False)
    assert (out / "log.jsonl").read_text() == log  # nothing was trained again
    assert load_model(out).tasks["motion"].metrics == {"top1": 0.5}
    assert load_model(out).tasks["motion"].views == "4x3"
    assert "top1: 50.0% (4x3 views)" in (out / "model" / "README.md").read_text()
    assert all(torch.equal(kept[name], value) for name, value in weights(out).items())
    train(made, out, evaluate=evaluate, progress=False)
    assert len(calls) == 3


def test_an_evaluation_that_fails_on_the_way_is_logged_and_training_goes_on(files: Path, tmp_path: Path) -> None:
    made = override(experiment(files, random_layers=False), {"training.evaluate_every": "5"})

    def evaluate(model, of, ranks):
        raise ValueError("none of 3 examples can be read")

    result = train(made, tmp_path / "run", evaluate=evaluate, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    told = [line["evaluation"] for line in lines if "evaluation" in line]
    assert told == ["ValueError: none of 3 examples can be read"] * (UPDATES // 5)
    assert result.updates == UPDATES
    assert result.problem


def test_another_experiment_is_refused_with_every_difference(alone: Path, files: Path):
    made = override(
        experiment(files, random_layers=False), {"tasks.motion.batch_size": "8", "optimizer.momentum": ".5"}
    )
    with pytest.raises(ConfigError) as caught:
        train(made, alone, progress=False)
    assert "tasks.motion.batch_size: 4 -> 8" in str(caught.value)
    assert "optimizer.momentum: 0.9 -> 0.5" in str(caught.value)
    assert "another --out" in str(caught.value)


def test_other_data_is_refused(alone: Path, files: Path, tmp_path: Path):
    folder = tmp_path / "files"
    shutil.copytree(files, folder)
    made, out = experiment(folder, random_layers=False), tmp_path / "run"
    train(override(made, {"tasks.motion.length.steps": "1"}), out, progress=False)
    (out / "results.json").unlink(missing_ok=True)
    lines = (folder / "video.csv").read_text().splitlines()
    (folder / "video.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ConfigError, match=r"other training data(.|\n)*motion.examples: 16 -> 15"):
        train(override(made, {"tasks.motion.length.steps": "1"}), out, progress=False)


def test_a_folder_of_something_else_is_refused(files: Path, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"is no run .* not empty: thesis\.tex"):
        train(experiment(files, random_layers=False), tmp_path, progress=False)


def test_a_batch_that_cannot_be_shared_out_is_named(files: Path, tmp_path: Path):
    made = override(experiment(files, random_layers=False), {"training.micro_batches": "5"})
    with pytest.raises(ConfigError, match=r"tasks\.motion\.batch_size: 4 examples cannot .* each of 5 micro-batches"):
        train(made, tmp_path / "run", progress=False)


def test_an_input_that_the_model_lacks_is_named(files: Path, tmp_path: Path):
    made = override(experiment(files, random_layers=False), {"tasks.motion.inputs": "audio"})
    with pytest.raises(ConfigError, match=r"tasks\.motion\.inputs: audio, but the model takes video"):
        train(made, tmp_path / "run", progress=False)


def test_evaluation_is_asked_on_the_way_and_at_the_end_and_its_results_are_kept(files: Path, tmp_path: Path):
    modes: list[bool] = []

    def evaluate(model: torch.nn.Module, *_: object) -> dict[str, object]:
        modes.append(model.training)
        return {"tasks": {"motion": {"metrics": {"top1": 0.5}, "views": "2x1"}}}

    made = override(experiment(files, random_layers=False), {"training.evaluate_every": "3", "training.workers": "0"})
    result = train(made, tmp_path / "run", evaluate=evaluate, progress=False)
    assert modes == [False] * 3
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == result.results
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "evaluation" in line] == [3, 6]
    assert load_model(tmp_path / "run").tasks["motion"].metrics == {"top1": 0.5}


@pytest.fixture
def interrupted(alone: Path, tmp_path: Path) -> Path:
    """As if the run had been killed after its last checkpoint."""
    out = tmp_path / "interrupted"
    shutil.copytree(alone, out)
    shutil.rmtree(out / "model")
    return out


def test_a_damaged_checkpoint_costs_updates_and_nothing_else(
    interrupted: Path, alone: Path, files: Path, capsys: pytest.CaptureFixture[str]
):
    newest = interrupted / "checkpoints" / f"step-{UPDATES:08d}"
    (shard,) = newest.glob("*.safetensors")
    os.truncate(shard, shard.stat().st_size // 2)
    train(experiment(files, random_layers=False), interrupted)
    assert f"{newest} is damaged ({shard.name} is not as it was written); update 6" in capsys.readouterr().err
    assert_same(interrupted, alone)


def test_a_torn_last_line_of_the_log_is_written_again(interrupted: Path, alone: Path, files: Path):
    log = interrupted / "log.jsonl"
    os.truncate(log, log.stat().st_size - 9)
    train(experiment(files, random_layers=False), interrupted, progress=False)
    assert log.read_text() == (alone / "log.jsonl").read_text()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", "", r"config\.json: is damaged .* remove the folder and run the same command again"),
        ("log.jsonl", "{}\n{\n{}\n", r"log\.jsonl:2: is damaged .* remove the line"),
        ("sessions.jsonl", "[]\n", r"sessions\.jsonl:1: is damaged .* remove the line"),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_the_way_out(
    name: str, content: str, says: str, interrupted: Path, files: Path
):
    (interrupted / name).write_text(content)
    with pytest.raises(DamagedRunError, match=says):
        train(experiment(files, random_layers=False), interrupted, progress=False)


def test_a_full_disk_is_told_with_the_last_checkpoint_and_the_same_call_goes_on(
    interrupted: Path, alone: Path, files: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = experiment(files, random_layers=False)
    shutil.rmtree(interrupted / "checkpoints" / f"step-{UPDATES:08d}")
    with monkeypatch.context() as patch:
        patch.setattr("tubelet.training.checkpoints._DigestedFile.write", full)
        with pytest.raises(DiskFullError) as caught:
            train(made, interrupted, progress=False)
    assert str(caught.value) == (
        f"{interrupted / 'checkpoints'}: no space left on the device; the last checkpoint is of update 6: make room, "
        "and run the same command again to go on from it"
    )
    train(made, interrupted, progress=False)
    assert_same(interrupted, alone)


def test_a_run_that_is_written_is_refused(files: Path, tmp_path: Path):
    with RunLock(tmp_path / "run", Ranks(torch.device("cpu"))), pytest.raises(RunInUseError, match="is writing"):
        train(experiment(files, random_layers=False), tmp_path / "run", progress=False)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("ranks", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_saves_and_says_how_to_go_on(ranks: int, files: Path, tmp_path: Path):
    made = override(experiment(files, random_layers=False), {"tasks.motion.length.steps": "100000"})
    process = start([{"experiment": made, "out": tmp_path / "run"}], ranks)
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 4):
        time.sleep(0.05)
    process.terminate()
    status, said = finish(process)
    assert status == (1 if ranks else 143)  # torchrun's own, and ours
    assert "stopped by SIGTERM after update" in said
    assert "run the same command again" in said
    step = int(said.split("after update ")[1].split()[0])
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "state.json").exists()
