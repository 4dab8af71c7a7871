"""One writer for a run's folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tubelet.configs import to_json
from tubelet.training import lock
from tubelet.training.lock import Owner, RunInUseError, RunLock
from tubelet.training.loop import Update
from tubelet.training.processes import Process, this_process
from tubelet.training.ranks import Ranks

ALONE = Ranks(torch.device("cpu"))


def left(folder: Path, process: Process, age: float = 0.0) -> None:
    """The lock of another process, last heard of ``age`` seconds ago."""
    folder.mkdir(exist_ok=True)
    path = folder / ".lock"
    path.write_text(json.dumps(to_json(Owner(process=process, since="2026-01-01 00:00:00"))))
    heard = time.time() - age
    os.utime(path, (heard, heard))


def ended() -> Process:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return replace(this_process(), pid=process.pid)


def test_a_second_start_says_who_writes_the_run_and_changes_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunLock(run, ALONE):
        before = (run / ".lock").read_bytes()
        said = rf"run: process {os.getpid()} on .+, since .+ UTC, is writing this run: wait .* another --out"
        with pytest.raises(RunInUseError, match=said), RunLock(run, ALONE):
            pass
        assert (run / ".lock").read_bytes() == before
    assert list(run.iterdir()) == []
    with RunLock(run, ALONE) as free:
        assert free.notes == []


@pytest.mark.parametrize(
    "process",
    [
        pytest.param(ended, id="its process is gone"),
        pytest.param(lambda: replace(this_process(), born="1"), id="its number is another process's now"),
    ],
)
def test_a_dead_process_leaves_its_run_to_the_next(process: Callable[[], Process], tmp_path: Path) -> None:
    dead = process()
    left(tmp_path, dead)
    with RunLock(tmp_path, ALONE) as taken:
        assert taken.notes == [f"goes on with the run of {dead}, since 2026-01-01 00:00:00 UTC, which died"]
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_another_machine_is_dead_when_it_has_been_silent(tmp_path: Path) -> None:
    far = replace(this_process(), host="far", place="another start")
    left(tmp_path, far, age=60)
    with pytest.raises(RunInUseError, match="on far"), RunLock(tmp_path, ALONE):
        pass
    left(tmp_path, far, age=200)
    with RunLock(tmp_path, ALONE) as taken:
        assert "on far" in taken.notes[0]


def test_a_lock_that_names_nobody_is_left_alone_until_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)
    (tmp_path / ".lock").write_text('{"proc')
    with pytest.raises(RunInUseError, match=r"\.lock: cannot be taken over; .* remove it"), RunLock(tmp_path, ALONE):
        pass
    os.utime(tmp_path / ".lock", (1, 1))
    with RunLock(tmp_path, ALONE):
        pass


def attempt(folder: Path, together: Any, said: Any, finish: Any) -> None:
    together.wait()
    try:
        with RunLock(folder, ALONE):
            said.put("trains")
            finish.wait()
    except RunInUseError as error:
        said.put(str(error))


def test_of_many_starts_after_a_death_exactly_one_trains(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("fork")
    together, said, finish = processes.Barrier(6), processes.Queue(), processes.Event()
    left(tmp_path, ended())
    starts = [processes.Process(target=attempt, args=(tmp_path, together, said, finish)) for _ in range(6)]
    for start in starts:
        start.start()
    outcomes = [said.get(timeout=60) for _ in starts]
    finish.set()
    for start in starts:
        start.join()
    assert outcomes.count("trains") == 1
    assert sum("is writing this run" in outcome for outcome in outcomes) == 5
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_taken_over_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT", 0.01)
    update = Update(1, [], [], torch.tensor(0.0), 0.1, 0.0, 0.0)

    def goes_on_until_it_is_lost() -> None:
        with RunLock(tmp_path, ALONE) as mine:
            mine(update)
            left(tmp_path, replace(this_process(), host="far", place="another start"))
            for _ in range(1000):
                time.sleep(0.01)
                mine(update)

    with pytest.raises(RunInUseError, match=r"on far, .*took this run over"):
        goes_on_until_it_is_lost()
    assert (tmp_path / ".lock").exists(), "the lock is the other one's now"
