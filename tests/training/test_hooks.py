"""Checkpoints, records, quarantine and signals: the hooks of the loop."""

import errno
import json
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from training_tiny import Session, experiment, minibatch
from tubelet.media.errors import MediaError
from tubelet.training.average import MovingAverage
from tubelet.training.checkpoints import DamagedCheckpointsError, SaveRegularly, last_whole
from tubelet.training.interruption import Interrupted, StopOnSignal
from tubelet.training.logger import MetricLogger, NonFiniteCheck, TrainingDivergedError
from tubelet.training.loop import Update
from tubelet.training.ranks import Ranks
from tubelet.training.records import DamagedRunError
from tubelet.training.unreadable import TooManyUnreadableError, UnreadableExamples

ALONE = Ranks(torch.device("cpu"))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Checkpoints


def save_some(folder: Path, keep: int = 2, steps: tuple[int, ...] = (1, 2, 3)) -> Session:
    session = Session(experiment(), folder)
    for step in steps:
        session.run(step - 1, step)
        session.checkpoints.save(step, {"ranks": 1}, keep)
    return session


def test_checkpoints_are_safetensors_and_json_and_only_the_last_are_kept(tmp_path: Path):
    session = save_some(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert {p.suffix or p.name for p in (tmp_path / "step-00000003").iterdir()} == {
        ".safetensors",
        ".json",
        "SHA256SUMS",
    }
    assert json.loads((tmp_path / "step-00000003" / "state.json").read_text()) == {"step": 3, "ranks": 1}
    with safe_open(next((tmp_path / "step-00000003").glob("*.safetensors")), "pt") as file:
        for name, weight in session.weights.items():
            torch.testing.assert_close(file.get_tensor(f"model.{name}"), weight)


@pytest.mark.parametrize("point", ["save", "write_text", "rename", "rmtree"])
def test_a_kill_at_any_moment_leaves_the_last_whole_checkpoint(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
):
    session = save_some(tmp_path, keep=1, steps=(1,))
    weights = session.weights
    session.run(1, 2)
    targets = {"save": "tubelet.training.checkpoints.save", "rmtree": "shutil.rmtree"}
    with monkeypatch.context() as patch:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(targets.get(point, f"pathlib.Path.{point}"), killed)
        with pytest.raises(KeyboardInterrupt):
            session.checkpoints.save(2, {}, keep=1)
    survivor = Session(experiment(), tmp_path)
    step, _ = last_whole(tmp_path)
    survivor.checkpoints.load(step)
    assert same(survivor.weights, weights if step == 1 else session.weights)
    assert step == (2 if point == "rmtree" else 1)
    session.run(2, 3)
    session.checkpoints.save(3, {}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000003"]


def shard(checkpoint: Path) -> Path:
    return next(checkpoint.glob("*.safetensors"))


def flip_a_bit(path: Path) -> None:
    text = bytearray(path.read_bytes())
    text[len(text) // 2] ^= 1
    path.write_bytes(text)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a truncated shard": lambda newest: os.truncate(shard(newest), 1000),
    "a flipped bit": lambda newest: flip_a_bit(shard(newest)),
    "a flipped bit of the scalars": lambda newest: flip_a_bit(newest / "state.json"),
    "a missing shard": lambda newest: shard(newest).unlink(),
    "an empty folder": lambda newest: [path.unlink() for path in newest.iterdir()],
    "a truncated shard, without digests": lambda newest: (
        (newest / "SHA256SUMS").unlink(),
        os.truncate(shard(newest), 1000),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_the_last(damage: str, tmp_path: Path):
    session = save_some(tmp_path)
    DAMAGES[damage](tmp_path / "step-00000003")
    step, told = last_whole(tmp_path)
    assert step == 2
    assert len(told) == 1
    assert re.match(rf"{tmp_path}/step-00000003 is damaged \(.+\); update 2 is the last whole one$", told[0])
    survivor = Session(experiment(), tmp_path)
    survivor.checkpoints.load(2)
    survivor.run(2, 3)
    assert same(survivor.weights, session.weights)
    survivor.checkpoints.save(3, {}, keep=2)
    assert last_whole(tmp_path) == (3, [])


def test_a_run_without_a_whole_checkpoint_does_not_begin_anew_by_itself(tmp_path: Path):
    save_some(tmp_path, steps=(1, 2))
    for checkpoint in tmp_path.iterdir():
        flip_a_bit(shard(checkpoint))
    with pytest.raises(DamagedCheckpointsError, match=f"no whole checkpoint is left; remove {tmp_path} to train"):
        last_whole(tmp_path)


def test_checkpoints_without_digests_are_read(tmp_path: Path):
    save_some(tmp_path)
    (tmp_path / "step-00000003" / "SHA256SUMS").unlink()
    assert last_whole(tmp_path) == (3, [])


def test_going_on_from_before_a_checkpoint_leaves_none_of_later_steps(tmp_path: Path):
    session = save_some(tmp_path, keep=9)
    flip_a_bit(shard(tmp_path / "step-00000003"))
    session.checkpoints.load(1)
    session.checkpoints.save(2, {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_what_else_is_in_the_folder_stays(tmp_path: Path):
    strange = ["notes.txt", ".DS_Store", "step-best", "step-7", ".keep/step-00000009"]
    for name in strange:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    save_some(tmp_path)
    assert last_whole(tmp_path) == (3, [])
    assert [(tmp_path / name).read_text() for name in strange] == ["mine"] * 5


def test_a_full_disk_is_an_error_of_the_system_and_the_checkpoints_before_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    session = save_some(tmp_path, steps=(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr("tubelet.training.checkpoints._DigestedFile.write", full)
        with pytest.raises(OSError, match="no space left") as caught:
            session.checkpoints.save(3, {}, keep=2)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_saving_is_regular_and_checks_first(tmp_path: Path):
    session = Session(experiment(), tmp_path)
    checks: list[int] = []
    saver = SaveRegularly(session.checkpoints, every=2, keep=5, check=lambda: checks.append(1), scalars=dict)
    session.run(0, 5, [saver])
    saver.save(5)
    saver.save(5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000004", "step-00000005"]
    assert len(checks) == 3


# Hooks


def test_a_diverging_run_stops_before_its_state_is_saved_and_names_the_minibatch(tmp_path: Path):
    session = Session(experiment(random_layers=False), tmp_path)
    health = NonFiniteCheck(ALONE, every=10, saved=lambda: session.checkpoints.last)
    saver = SaveRegularly(session.checkpoints, every=4, keep=2, check=health.check, scalars=dict)

    def poison(update: Update) -> None:
        if update.step == 2:
            nn.init.constant_(session.model.heads["motion"].projection.weight, float("nan"))

    said = r"update 3 of task 'motion' has loss nan .* clip-2-0, clip-2-1(.*)"
    with pytest.raises(TrainingDivergedError, match=said) as caught:
        session.run(0, 8, [health, poison, saver])
    assert "checkpoint" not in str(caught.value), "there is none"
    assert last_whole(tmp_path) == (0, [])


def test_a_diverging_run_names_its_last_checkpoint():
    health = NonFiniteCheck(ALONE, every=1, saved=lambda: 7)
    with pytest.raises(TrainingDivergedError, match="the last checkpoint here, after update 7, is from before"):
        health(update_of(9, {"a": float("nan")}))


def run_with_records(folder: Path, start: int, end: int) -> None:
    session = Session(experiment())
    with MetricLogger(folder, ALONE, every=2, start=start, total=9, progress=False) as records:
        session.run(start, end, [records])


def test_log_has_every_so_many_updates_and_the_last(tmp_path: Path):
    run_with_records(tmp_path, 0, 9)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 9]
    assert lines[0].keys() >= {
        "task",
        "loss",
        "top1",
        "learning_rate",
        "gradient_norm",
        "examples_per_second",
        "waiting",
    }
    assert all(line["loss"] > 0 and 0 <= line["waiting"] <= 1 for line in lines)
    assert lines[0]["learning_rate"] == pytest.approx(0.05 * (1 - 1 / 20))
    assert list((tmp_path / "tensorboard").iterdir())


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def update_of(step: int, scores: Mapping[str, float], learning_rate: float = 0.1) -> Update:
    """An update of a minibatch of each task with these losses."""
    batches = [minibatch(task, step) for task in scores]
    values = [{"loss": torch.tensor(loss), "top1": torch.tensor(0.5)} for loss in scores.values()]
    return Update(step, batches, values, torch.tensor(float(step)), learning_rate, time.perf_counter() - 0.1, 0.0)


def test_every_task_trained_since_the_last_lines_has_its_own_with_its_means(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tasks = ["often", "often", "rare", "often", "often", "often", "often", "often"]
    with MetricLogger(tmp_path, ALONE, every=4, start=0, total=8, progress=True) as records:
        for step, task in enumerate(tasks, start=1):
            records(update_of(step, {task: float(step)}, learning_rate=step / 10))
    lines = [(line["step"], line["task"], line["loss"], line["gradient_norm"]) for line in log(tmp_path)]
    assert lines == [
        (4, "often", pytest.approx(7 / 3), pytest.approx(7 / 3)),
        (4, "rare", 3, 3),
        (8, "often", 6.5, 6.5),
    ]
    assert [line["learning_rate"] for line in log(tmp_path)] == [0.4, 0.3, 0.8]
    shown = capsys.readouterr().err
    assert "4/8  loss often 2.333  rare 3.000  " in shown
    assert "8/8  loss often 6.500  rare 3.000  " in shown  # what is known of each, whoever came last


def test_an_update_of_all_tasks_has_a_line_for_each(tmp_path: Path):
    with MetricLogger(tmp_path, ALONE, every=2, start=0, total=2, progress=False) as records:
        for step in (1, 2):
            records(update_of(step, {"a": float(step), "b": 3.0 * step}))
    assert [(line["task"], line["loss"], line["top1"]) for line in log(tmp_path)] == [("a", 1.5, 0.5), ("b", 4.5, 0.5)]


def test_divergence_names_every_task_of_the_update():
    health = NonFiniteCheck(ALONE, every=1, saved=lambda: 0)
    health(update_of(1, {"a": 1.0, "b": 2.0}))
    with pytest.raises(TrainingDivergedError, match="update 2 of task 'a', 'b' has loss 1, nan and gradient norm 2 at"):
        health(update_of(2, {"a": 1.0, "b": float("nan")}))


def test_log_of_a_resumed_run_has_no_update_twice(tmp_path: Path):
    run_with_records(tmp_path, 0, 6)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # a kill in the middle of a line
    run_with_records(tmp_path, 3, 9)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 8, 9]


def test_a_damaged_line_of_the_log_is_named(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text('{"step": 2}\n\x00garbage\n{"step": 4}\n')
    with pytest.raises(DamagedRunError, match=r"log\.jsonl:2: is damaged .* remove the line, and run the same command"):
        run_with_records(tmp_path, 4, 9)


def update_with(step: int, *paths: str) -> Update:
    zero = torch.zeros(())
    errors = [MediaError(path, 1.5, "torn") for path in paths]
    return Update(step, [minibatch("motion", step, errors)], [{"loss": zero}], zero, 0.1, 0.0, 0.0)


def test_quarantine_records_each_file_once_and_stops_past_the_budget(tmp_path: Path):
    quarantine = UnreadableExamples(tmp_path, examples={"motion": 150}, budget=0.01)
    quarantine(update_with(1, "a.mp4"))
    quarantine(update_with(2, "a.mp4", "b.mp4"))
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 1, "task": "motion", "path": "a.mp4", "time": 1.5, "reason": "torn"}
    assert [line["path"] for line in lines] == ["a.mp4", "b.mp4"]
    with (tmp_path / "quarantine.jsonl").open("a") as file:
        file.write('{"step": 2, "ta')  # a kill in the middle of a line
    again = UnreadableExamples(tmp_path, examples={"motion": 150}, budget=0.01)  # a resumed run remembers
    again(update_with(3, "b.mp4"))
    with pytest.raises(TooManyUnreadableError, match=r"3 of 150 training examples of task 'motion' .* allows 2"):
        again(update_with(4, "c.mp4"))
    assert [line["path"] for line in map(json.loads, (tmp_path / "quarantine.jsonl").read_text().splitlines())] == [
        "a.mp4",
        "b.mp4",
        "c.mp4",
    ]


def test_a_small_task_has_a_small_budget_beside_a_large_one(tmp_path: Path):
    quarantine = UnreadableExamples(tmp_path, examples={"motion": 100, "large": 1_000_000}, budget=0.01)
    quarantine(update_with(1, "a.mp4"))
    with pytest.raises(TooManyUnreadableError, match=r"2 of 100 .* task 'motion'"):
        quarantine(update_with(2, "b.mp4"))


@pytest.mark.parametrize("received", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_update_saves_and_says_how_to_go_on(received: signal.Signals):
    session, saved = Session(experiment()), list[int]()
    before = signal.getsignal(received)

    def send(update: Update) -> None:
        if update.step == 3:
            os.kill(os.getpid(), received)

    with (
        pytest.raises(Interrupted, match=rf"{received.name} after update 3 of 8.*run the same command again") as caught,
        StopOnSignal(ALONE, 8, saved.append) as stop,
    ):
        session.run(0, 8, [send, stop])
    assert caught.value.code == {signal.SIGTERM: 143, signal.SIGINT: 130}[received]
    assert saved == [3]
    assert signal.getsignal(received) is before


def test_the_average_covers_running_statistics_and_leaves_counters_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = MovingAverage(model, 0.5)
    expected = {name: value.clone() for name, value in model.state_dict().items() if value.ndim}
    for step in range(1, 5):
        model(torch.randn(8, 3) + step)
        with torch.no_grad():
            model[0].weight.add_(0.1)
        average(update_of(step, {"loss": 1.0}))
        decay = min(0.5, (1 + step) / (10 + step))
        now = model.state_dict()
        expected = {name: decay * value + (1 - decay) * now[name] for name, value in expected.items()}
    assert set(average.average) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(average.average[name], value)
    mean = model[1].running_mean.clone()
    with average.in_place():
        torch.testing.assert_close(model[1].running_mean, expected["1.running_mean"])
        assert model[1].num_batches_tracked == 4
    assert torch.equal(model[1].running_mean, mean)
