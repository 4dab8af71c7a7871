"""Whole runs on small videos: exact resume after kill -9, several ranks, refusals, signals, what a run leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from training_tiny import VIDEO
from tubelet.configs import ConfigError, override, to_json
from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Record, write_manifest
from tubelet.media.write import write_video
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import Backbone
from tubelet.training.experiment import Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Classification, Mixup
from tubelet.training.run import train
from tubelet.weights.folder import load_model

WORKER = Path(__file__).with_name("training_worker.py")
UPDATES, KILL_AT = 8, 5  # with a checkpoint after every third


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As the workers have: the order of float additions depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 16 videos of 32x32 pixels in 3 classes, one of them unreadable."""
    folder = tmp_path_factory.mktemp("videos")
    draw = torch.Generator().manual_seed(0)
    records: list[Record] = []
    for i in range(16):
        path = folder / f"{i}.mp4"
        frames = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8, generator=draw)
        write_video(path, frames.repeat_interleave(8, 2).repeat_interleave(8, 3), fps=8.0)
        records.append(Record(path=str(path), labels={"label": ("abc"[i % 3],)}, split="train"))
    (folder / "5.mp4").write_bytes((folder / "5.mp4").read_bytes()[:500])
    write_manifest(folder / "videos.csv", records)
    return folder / "videos.csv"


def experiment(videos: Path, *, random_layers: bool, **training: object) -> Experiment:
    drop = 0.2 if random_layers else 0.0
    task = Task(
        source=Source(path=str(videos)),
        objective=Classification(head_init="lecun", mixup=Mixup(0.4 if random_layers else 0.0)),
        augment=Augmentation(colour=0.0, greyscale=0.0),
        batch_size=4,
        length=Length(steps=UPDATES),
        warmup=Length(steps=2),
        stochastic_depth=drop,
    )
    settings = {"workers": 2, "log_every": 1, "checkpoint_every": 3, "keep_checkpoints": 9, "ema": 0.5, **training}
    backbone = Backbone(width=16, depth=2, heads=2, mlp=32, dropout=drop, attention_dropout=drop)
    return Experiment(
        model=ViViTConfig(backbone=backbone, tubelet=(2, 8, 8), video=VIDEO),
        tasks={"motion": task},
        training=Training(**settings),
    )


def start(jobs: list[dict[str, object]], ranks: int = 0) -> subprocess.Popen[str]:
    """The worker in a process group of its own, under torchrun where there are ``ranks``."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks else []
    jobs = [{**job, "experiment": to_json(job["experiment"]), "out": str(job["out"])} for job in jobs]
    command = [sys.executable, *torchrun, str(WORKER), json.dumps(jobs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The status that it ends with, and what it said."""
    try:
        _, said = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun ends its ranks too
        _, said = process.communicate()
        raise AssertionError(f"hangs:\n{said}") from None
    return process.returncode, said


def run(jobs: list[dict[str, object]], ranks: int = 0) -> tuple[int, str]:
    return finish(start(jobs, ranks))


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return {line["step"]: line["loss"] for line in lines}


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model" / "model.safetensors")


def assert_same(out: Path, expected: Path) -> None:
    assert losses(out) == losses(expected)
    assert len(losses(out)) == UPDATES
    for name, weight in weights(expected).items():
        assert torch.equal(weights(out)[name], weight), name


def assert_close(out: Path, expected: Path) -> None:
    assert losses(out) == pytest.approx(losses(expected), abs=1e-5)
    for name, weight in weights(expected).items():
        torch.testing.assert_close(weights(out)[name], weight, atol=1e-5, rtol=0)


def test_kill_and_resume_is_bit_for_bit_the_uninterrupted_run(videos: Path, tmp_path: Path):
    made = experiment(videos, random_layers=True)
    jobs = [{"experiment": made, "out": tmp_path / "whole"}]
    status, said = run([*jobs, {"experiment": made, "out": tmp_path / "killed", "kill_at": KILL_AT}])
    assert status == -signal.SIGKILL, said
    assert len(losses(tmp_path / "killed")) == KILL_AT
    assert not (tmp_path / "killed" / "model").exists()
    other = replace(made, training=replace(made.training, workers=0))
    train(other, tmp_path / "killed", progress=False)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    quarantined = [json.loads(line) for line in (tmp_path / "killed" / "quarantine.jsonl").read_text().splitlines()]
    assert [Path(line["path"]).name for line in quarantined] == ["5.mp4"]


@pytest.fixture(scope="module")
def alone(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process without random layers."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train(experiment(videos, random_layers=False), out, progress=False)
    return out


@pytest.fixture(scope="module")
def pair(videos: Path, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of two ranks; "killed" and "from_one" were interrupted and went on."""
    folder = tmp_path_factory.mktemp("pair")
    plain, random = experiment(videos, random_layers=False), experiment(videos, random_layers=True)
    sharded = override(plain, {"training.parallel": "fsdp"})
    _, said = run(
        [
            {"experiment": plain, "out": folder / "ddp"},
            {"experiment": sharded, "out": folder / "fsdp"},
            {"experiment": random, "out": folder / "whole"},
            {"experiment": random, "out": folder / "killed", "kill_at": KILL_AT},
        ],
        ranks=2,
    )
    assert "SIGKILL" in said  # torchrun itself lives on, and says so
    assert not (folder / "killed" / "model").exists()
    shutil.copytree(alone, folder / "from_one")
    unfinish(folder / "from_one")
    status, said = run(
        [{"experiment": random, "out": folder / "killed"}, {"experiment": plain, "out": folder / "from_one"}], ranks=2
    )
    assert status == 0, said
    return folder


def unfinish(out: Path) -> None:
    """As if the run had been killed after its second checkpoint."""
    shutil.rmtree(out / "model")
    for step in range(7, UPDATES + 1):
        shutil.rmtree(out / "checkpoints" / f"step-{step:08d}", ignore_errors=True)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_learn_as_one_with_the_same_global_batch(kind: str, pair: Path, alone: Path):
    assert_close(pair / kind, alone)


def test_kill_and_resume_of_two_ranks_is_bit_for_bit(pair: Path):
    assert_same(pair / "killed", pair / "whole")


def test_a_checkpoint_of_one_rank_resumes_on_two(pair: Path, alone: Path):
    assert_close(pair / "from_one", alone)
    sessions = [json.loads(line) for line in (pair / "from_one" / "sessions.jsonl").read_text().splitlines()]
    assert [(line["start"], line["ranks"]) for line in sessions] == [(0, 1), (6, 2)]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_checkpoint_of_two_ranks_resumes_on_one(
    kind: str, pair: Path, alone: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    shutil.copytree(pair / kind, out)
    unfinish(out)
    made = override(experiment(videos, random_layers=False), {"training.parallel": kind})
    train(made, out)
    assert "ranks 2 -> 1" in capsys.readouterr().err
    assert_close(out, alone)


@pytest.mark.slow
def test_compiled_and_recomputed_blocks_learn_the_same(videos: Path, alone: Path, tmp_path: Path):
    made = experiment(videos, random_layers=False, compile=True, activation_checkpointing=True)
    status, said = run([{"experiment": made, "out": tmp_path / "run"}])
    assert status == 0, said
    assert_close(tmp_path / "run", alone)


def test_a_finished_run_is_left_as_it_is(alone: Path, videos: Path):
    before = {path: path.stat().st_mtime_ns for path in alone.rglob("*") if path.is_file()}
    result = train(experiment(videos, random_layers=False), alone, progress=False)
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


def test_another_experiment_is_refused_with_every_difference(alone: Path, videos: Path):
    made = override(
        experiment(videos, random_layers=False), {"tasks.motion.batch_size": "8", "optimizer.momentum": ".5"}
    )
    with pytest.raises(ConfigError) as caught:
        train(made, alone, progress=False)
    assert "tasks.motion.batch_size: 4 -> 8" in str(caught.value)
    assert "optimizer.momentum: 0.9 -> 0.5" in str(caught.value)
    assert "another --out" in str(caught.value)


def test_other_data_is_refused(alone: Path, videos: Path, tmp_path: Path):
    folder = tmp_path / "videos"
    shutil.copytree(videos.parent, folder)
    made, out = experiment(folder / "videos.csv", random_layers=False), tmp_path / "run"
    train(override(made, {"tasks.motion.length.steps": "1"}), out, progress=False)
    (out / "results.json").unlink(missing_ok=True)
    lines = (folder / "videos.csv").read_text().splitlines()
    (folder / "videos.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ConfigError, match=r"other training data(.|\n)*motion.examples: 16 -> 15"):
        train(override(made, {"tasks.motion.length.steps": "1"}), out, progress=False)


def test_a_folder_of_something_else_is_refused(videos: Path, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"is no run .* not empty: thesis\.tex"):
        train(experiment(videos, random_layers=False), tmp_path, progress=False)


def test_an_input_that_the_model_lacks_is_named(videos: Path, tmp_path: Path):
    made = override(experiment(videos, random_layers=False), {"tasks.motion.inputs": "audio"})
    with pytest.raises(ConfigError, match=r"tasks\.motion\.inputs: audio, but the model takes video"):
        train(made, tmp_path / "run", progress=False)


def test_evaluation_is_asked_on_the_way_and_at_the_end_and_its_results_are_kept(videos: Path, tmp_path: Path):
    modes: list[bool] = []

    def evaluate(model: torch.nn.Module, *_: object) -> dict[str, object]:
        modes.append(model.training)
        return {"tasks": {"motion": {"metrics": {"top1": 0.5}, "views": "2x1"}}}

    made = override(experiment(videos, random_layers=False), {"training.evaluate_every": "3", "training.workers": "0"})
    result = train(made, tmp_path / "run", evaluate=evaluate, progress=False)
    assert modes == [False] * 3
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == result.results
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "evaluation" in line] == [3, 6]
    assert load_model(tmp_path / "run").tasks["motion"].metrics == {"top1": 0.5}


@pytest.mark.parametrize("ranks", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_saves_and_says_how_to_go_on(ranks: int, videos: Path, tmp_path: Path):
    made = override(experiment(videos, random_layers=False), {"tasks.motion.length.steps": "100000"})
    process = start([{"experiment": made, "out": tmp_path / "run"}], ranks)
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 4):
        time.sleep(0.05)
    process.terminate()
    status, said = finish(process)
    assert status == 1
    assert "stopped by SIGTERM after update" in said
    assert "run the same command again" in said
    step = int(said.split("after update ")[1].split()[0])
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "state.json").exists()
