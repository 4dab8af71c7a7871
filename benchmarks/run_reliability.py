"""Kills, two starts, damaged checkpoints and full disks: whether a run then ends as the undisturbed one does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Timer
from typing import Any

from claims import Claim, all_of
from small_training import make_videos
from watched import PROCESSES, Command, run

_RECIPE = f"{Path(__file__).with_name('small_training.py')}:experiment"
_SPEED = ("updates_per_second", "examples_per_second", "waiting")


class Trainings:
    """Runs of one small training in a folder, and the undisturbed one that they must equal."""

    def __init__(self, folder: Path, updates: int = 24) -> None:
        self.folder = folder
        self.data, self.updates = make_videos(folder), updates
        self.whole, began = folder / "whole", time.perf_counter()
        status, errors = run(self.words(self.whole), folder / "whole.txt")
        if status:
            raise RuntimeError(f"the undisturbed run ended with status {status}: {errors}")
        self.seconds = time.perf_counter() - began

    def words(self, out: Path) -> list[str]:
        return ["train", _RECIPE, str(self.data), "--updates", str(self.updates), "--out", str(out)]

    def start(self, out: Path, said: str = "") -> Command:
        return Command(self.words(out), self._said(out, said))

    def finish(self, out: Path) -> str:
        """Run the same command (again); how the run then differs from the undisturbed one: "" where in nothing."""
        status, errors = run(self.words(out), self._said(out, "again"))
        return f"status {status}, {' / '.join(errors)}" if status or errors else self.difference(out)

    def difference(self, out: Path) -> str:
        """In what a finished run differs from the undisturbed one: "" where in nothing."""
        ours, theirs = _log(out), _log(self.whole)
        if ours != theirs:
            same = sum(a == b for a, b in zip(ours, theirs, strict=False))
            return f"of {len(theirs)} lines of log.jsonl, {len(ours)} are there and {same} the same"
        for name in ("model/model.safetensors", "results.json"):
            if not (out / name).exists() or (out / name).read_bytes() != (self.whole / name).read_bytes():
                return f"{name} differs"
        return ""

    def _said(self, out: Path, word: str) -> Path:
        return self.folder / f"{out.name}{'.' * bool(word)}{word}.txt"


def _log(out: Path) -> list[dict[str, Any]]:
    """The lines of the log, without how fast it went."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in _SPEED} for line in lines]


def kills(folder: Path, count: int, seed: int, workers: int) -> list[Claim]:
    """``count`` trainings killed with SIGKILL at random moments, and as many while they write a checkpoint."""
    trainings = Trainings(folder)
    inside: list[bool] = []

    def at_random(number: int) -> str:
        out, random = folder / f"any-{number}", Random(f"{seed}/any/{number}")
        command = trainings.start(out)
        command.process.join(random.uniform(0, trainings.seconds))
        command.kill()
        return trainings.finish(out)

    def in_saving(number: int) -> str:
        out, random = folder / f"saving-{number}", Random(f"{seed}/saving/{number}")
        saving = PROCESSES.Value("b", False)
        which = random.randrange(2, trainings.updates // 2)
        command = Command(
            trainings.words(out), folder / f"{out.name}.txt", die_in_saving, which, random.random(), saving
        )
        if (status := command.wait()) != -signal.SIGKILL:
            return f"status {status}, though it was killed: {command.errors}"
        inside.append(bool(saving.value))
        return trainings.finish(out)

    with ThreadPoolExecutor(workers) as pool:
        moments = _failures(at_random, count, pool)
        writings = _failures(in_saving, count, pool)
    return [
        all_of("kills", "kill -9 at a random moment, resumed bit for bit", count, moments),
        all_of("kills", "the same while it writes a checkpoint", count, writings, f"; {sum(inside)} in the writing"),
    ]


def _failures(check: Callable[[int], str], count: int, pool: ThreadPoolExecutor) -> list[str]:
    return [f"{number}: {said}" for number, said in enumerate(pool.map(check, range(count))) if said]


def die_in_saving(which: int, share: float, saving: Any) -> None:
    """Let this process's group be killed when a ``share`` of its checkpoint number ``which`` is written."""
    from tubelet.training.checkpoints import Checkpoints

    save, seconds = Checkpoints.save, list[float]()

    def timed(*arguments: Any, **named: Any) -> Any:
        began, saving.value = time.perf_counter(), True
        if len(seconds) == which:
            Timer(share * seconds[-1], os.killpg, (0, signal.SIGKILL)).start()
        try:
            return save(*arguments, **named)
        finally:
            saving.value = False
            seconds.append(time.perf_counter() - began)

    Checkpoints.save = timed


def starts(folder: Path) -> list[Claim]:
    """Two starts into one folder, at once and one after the other; then into one whose owner was killed."""
    trainings = Trainings(folder, updates=80)
    failures: list[str] = []
    for name, delay in (("together", 0.0), ("0.3 s apart", 0.3), ("1.2 s apart", 1.2), ("after a killed owner", 0.0)):
        out = folder / name.replace(" ", "-")
        if name.endswith("owner"):
            owner = trainings.start(out, "owner")
            _until(lambda out=out: _lines(out) > 10)
            owner.kill()
        first = trainings.start(out, "first")
        time.sleep(delay)
        second = trainings.start(out, "second")
        statuses = [command.wait() for command in (first, second)]
        errors = [first.errors, second.errors]
        if sorted(statuses) != [0, 1] or [len(errors[i]) for i in (0, 1)] != statuses:
            failures.append(f"{name}: statuses {statuses}, {errors}")
        elif difference := trainings.difference(out):
            failures.append(f"{name}: {difference}")
    return [all_of("starts", "two starts into one folder: one trains, the other says who does", 4, failures)]


def _lines(out: Path) -> int:
    log = out / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def _until(true: Callable[[], bool], limit: float = 120.0) -> None:
    began = time.perf_counter()
    while not true() and time.perf_counter() - began < limit:
        time.sleep(0.02)


def checkpoints(folder: Path, seed: int) -> list[Claim]:
    """A damaged newest checkpoint, other damage to a run's folder, and a full disk."""
    trainings = Trainings(folder)
    killed = folder / "killed"
    command = trainings.start(killed)
    _until(lambda: (killed / "checkpoints" / "step-00000012").exists())
    command.kill()
    newest = max((killed / "checkpoints").glob("step-*"))
    of_newest, others = list[str](), list[str]()
    damages = _of_newest(newest, Random(seed))
    for name, damage in damages.items():
        said = _after(trainings, killed, name, damage)
        told = [line for line in (folder / f"{name}.again.txt").read_text().splitlines() if newest.name in line]
        of_newest += [f"{name}: {said or told}"] if said or len(told) != 1 else []
    for name, damage in _OTHERS.items():
        said = _after(trainings, killed, name, damage)
        others += [f"{name}: {said}"] if said else []
    return [
        all_of("checkpoints", "damaged newest one: one line, resumed bit for bit", len(damages), of_newest),
        all_of("checkpoints", "other damage that a resume survives", len(_OTHERS), others),
        *full_disk(trainings),
    ]


def _after(trainings: Trainings, killed: Path, name: str, damage: Callable[[Path], None]) -> str:
    out = trainings.folder / name
    shutil.copytree(killed, out)
    damage(out)
    return trainings.finish(out)


def _of_newest(newest: Path, random: Random) -> dict[str, Callable[[Path], None]]:
    """What may happen to the newest checkpoint of a run."""
    shard, state = next(newest.glob("*.safetensors")).name, "state.json"

    def within(name: str, change: Callable[[bytearray], object]) -> Callable[[Path], None]:
        def apply(run: Path) -> None:
            path = run / "checkpoints" / newest.name / name
            data = bytearray(path.read_bytes())
            change(data)
            path.write_bytes(data)

        return apply

    def flip(data: bytearray) -> None:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)

    def halve(data: bytearray) -> None:
        del data[len(data) // 2 :]

    def zero(data: bytearray) -> None:
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)

    return {
        **{f"shard-flipped-{i}": within(shard, flip) for i in range(4)},
        "shard-cut": within(shard, halve),
        "shard-empty": within(shard, bytearray.clear),
        "shard-zeroed": within(shard, zero),
        "state-cut": within(state, halve),
        "state-empty": within(state, bytearray.clear),
        "shard-gone": lambda run: (run / "checkpoints" / newest.name / shard).unlink(),
        "state-gone": lambda run: (run / "checkpoints" / newest.name / state).unlink(),
    }


def _torn(run: Path) -> None:
    log = run / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-9])


def _strays(run: Path) -> None:
    for name in ("notes.txt", "step-best", ".DS_Store"):
        (run / "checkpoints" / name).write_text("mine")
    (run / "checkpoints" / "step-old copy").mkdir()


_OTHERS: dict[str, Callable[[Path], None]] = {"torn-log": _torn, "stray-files": _strays}


def full_disk(trainings: Trainings, sizes: Sequence[float] = tuple(i / 10 for i in range(1, 10))) -> list[Claim]:
    """The training on disks of these shares of the space that it needs, then on with more space."""
    what = "full disk: one line, then resumed bit for bit"
    if os.geteuid():
        return [Claim("checkpoints", what, "not run: needs root")]
    needed = sum(path.stat().st_size for path in trainings.whole.rglob("*") if path.is_file())
    failures: list[str] = []
    for share in sizes:
        disk = trainings.folder / f"disk-{share:.1f}"
        disk.mkdir()
        _mount(disk, f"size={round(share * needed / 1024)}k")
        try:
            out = disk / "run"
            command = trainings.start(out)
            status, errors = command.wait(), command.errors
            if status != 1 or len(errors) != 1 or "Traceback" in errors[0]:
                failures.append(f"{share:.1f} of what it needs: status {status}, {errors}")
            _mount(disk, "remount,size=64m")
            if said := trainings.finish(out):
                failures.append(f"{share:.1f} of what it needs, with space again: {said}")
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
    return [all_of("checkpoints", what, len(sizes), failures)]


def _mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
