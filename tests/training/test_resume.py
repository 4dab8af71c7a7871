"""Runs of several processes: exact resume after kill -9, and several ranks against one, of one task and of three."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import training_runs
from training_runs import assert_close, assert_same, cotraining, experiment, losses, make_files, run
from tubelet.configs import override
from tubelet.training.experiment import Experiment
from tubelet.training.run import train
from tubelet.training.schedules import Accumulated

pytestmark = pytest.mark.usefixtures("one_thread")

KILL_AT = 8  # of 12 updates, with a checkpoint after every third
SCHEDULES = {"weighted": {}, "accumulated": {"schedule": Accumulated()}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("files"))


def plain(files: Path) -> dict[str, Experiment]:
    """Without random layers: co-training with two schedules, and a single task."""
    found = {
        name: cotraining(files, random_layers=False, checkpoint_every=1, workers=0, **changes)
        for name, changes in SCHEDULES.items()
    }
    return {**found, "single": experiment(files, random_layers=False, workers=0)}


def test_kill_and_resume_of_accumulated_tasks_is_bit_for_bit_the_uninterrupted_run(files: Path, tmp_path: Path):
    made = cotraining(files, random_layers=True, schedule=Accumulated())
    made = override(made, {"tasks.audio.length.steps": "17"})  # eight updates of all three
    jobs = [{"experiment": made, "out": tmp_path / "whole"}]
    status, said = run([*jobs, {"experiment": made, "out": tmp_path / "killed", "kill_at": 5}])
    assert status == -signal.SIGKILL, said
    assert len(losses(tmp_path / "killed")) == 5 * 3
    assert not (tmp_path / "killed" / "model").exists()
    other = replace(made, training=replace(made.training, workers=0))
    train(other, tmp_path / "killed", progress=False)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    assert len(losses(tmp_path / "killed")) == 8 * 3
    quarantined = [json.loads(line) for line in (tmp_path / "killed" / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["task"], Path(line["path"]).name) for line in quarantined] == [("video", "5.mp4")]


@pytest.fixture(scope="module")
def alone(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of one process, without random layers."""
    folder = tmp_path_factory.mktemp("alone")
    for name, made in plain(files).items():
        train(made, folder / name, progress=False)
    return folder


@pytest.fixture(scope="module")
def pair(files: Path, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of two ranks; "killed" and "from_one" were interrupted and went on."""
    folder = tmp_path_factory.mktemp("pair")
    random = cotraining(files, random_layers=True)
    jobs = [
        {"experiment": override(made, {"training.parallel": kind}), "out": folder / f"{name}-{kind}"}
        for name, made in plain(files).items()
        for kind in ("ddp", "fsdp")
    ]
    jobs += [{"experiment": random, "out": folder / "whole"}]
    _, said = run([*jobs, {"experiment": random, "out": folder / "killed", "kill_at": KILL_AT}], ranks=2)
    assert "SIGKILL" in said, said  # torchrun itself lives on, and says so
    assert max(step for step, _ in losses(folder / "killed")) == KILL_AT
    assert not (folder / "killed" / "model").exists()
    shutil.copytree(alone / "weighted", folder / "from_one")
    unfinish(folder / "from_one")
    from_one = {"experiment": plain(files)["weighted"], "out": folder / "from_one"}
    status, said = run([{"experiment": random, "out": folder / "killed"}, from_one], ranks=2)
    assert status == 0, said
    return folder


def unfinish(out: Path) -> None:
    """As if the run had been killed after its sixth update."""
    shutil.rmtree(out / "model")
    for folder in (out / "checkpoints").iterdir():
        if folder.name > "step-00000006":
            shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["single", *SCHEDULES])
def test_two_ranks_learn_as_one_with_the_same_global_batch(name: str, kind: str, pair: Path, alone: Path):
    assert_close(pair / f"{name}-{kind}", alone / name)


def test_kill_and_resume_of_two_ranks_is_bit_for_bit(pair: Path):
    assert_same(pair / "killed", pair / "whole")
    assert max(step for step, _ in losses(pair / "killed")) == 12


def test_a_checkpoint_of_one_rank_resumes_on_two(pair: Path, alone: Path):
    assert_close(pair / "from_one", alone / "weighted")
    sessions = [json.loads(line) for line in (pair / "from_one" / "sessions.jsonl").read_text().splitlines()]
    assert [(line["start"], line["ranks"]) for line in sessions] == [(0, 1), (6, 2)]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_checkpoint_of_two_ranks_resumes_on_one(
    kind: str, pair: Path, alone: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    shutil.copytree(pair / f"weighted-{kind}", out)
    unfinish(out)
    train(override(plain(files)["weighted"], {"training.parallel": kind}), out)
    assert "ranks 2 -> 1" in capsys.readouterr().err
    assert_close(out, alone / "weighted")


def test_a_rank_that_dies_is_named_by_the_other(files: Path, tmp_path: Path):
    made = experiment(files, random_layers=False, workers=0)
    status, said = run([{"experiment": made, "out": tmp_path / "run", "kill_at": 4, "kill_rank": 1}], ranks=2)
    assert status == 1
    assert re.search(r"rank 0 stops, as rank 1 \(process \d+ on .+\) died: run the same command again", said), said
    assert not (tmp_path / "run" / ".lock").exists()


def state(out: Path, step: int) -> dict[str, Tensor]:
    shards = (out / "checkpoints" / f"step-{step:08d}").glob("*.safetensors")
    parts = [load_file(shard) for shard in shards]
    return {name: tensor for part in parts for name, tensor in part.items()}


@pytest.mark.parametrize("ranks", ["one", "two"])
def test_what_a_task_does_not_use_moves_on_by_its_momentum_alone(ranks: str, alone: Path, pair: Path):
    out = alone / "weighted" if ranks == "one" else pair / "weighted-ddp"
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines}
    moved = 0
    for step, task in list(losses(out))[1:]:
        before, after = state(out, step - 1), state(out, step)
        unused = [n for n in before if re.match(rf"model\.(heads|encoder\.modalities)\.(?!{task}\.)", n)]
        assert len(unused) > 20
        for name in unused:
            buffer = name.replace("model.", "optimizer.momentum_buffer.", 1)
            momentum = 0.9 * before[buffer]
            assert torch.equal(after[buffer], momentum), (step, name)
            assert torch.equal(after[name], torch.add(before[name], momentum, alpha=-rates[step])), (step, name)
            moved += int(momentum.any())
    assert moved > 100


@pytest.mark.slow
def test_compiled_and_recomputed_blocks_learn_the_same(files: Path, alone: Path, tmp_path: Path):
    jobs = [
        {"experiment": override(made, {"training.compile": "true"}), "out": tmp_path / name}
        for name, made in plain(files).items()
    ]
    recomputed = {"training.compile": "true", "training.activation_checkpointing": "true"}
    jobs += [{"experiment": override(plain(files)["single"], recomputed), "out": tmp_path / "recomputed"}]
    status, said = run(jobs)
    assert status == 0, said
    for name in ("single", *SCHEDULES):
        assert_close(tmp_path / name, alone / name)
    assert_close(tmp_path / "recomputed", alone / "single")


def test_compiled_blocks_serve_all_modalities_batch_sizes_and_depth_rates_with_one_graph():
    # In a process of its own: the type-checking hook of the tests breaks graphs.
    script = Path(training_runs.__file__).with_name("training_compile.py")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=script.parent)
    assert result.returncode == 0, result.stderr[-3000:]
    said = json.loads(result.stdout)
    assert said["training"] == 2  # one for a transformer's first layer, which is never dropped
    assert said["evaluation"] == 1
    assert said["compiled"] == pytest.approx(said["eager"], abs=1e-5)
