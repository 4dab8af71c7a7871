"""Calls and commands in processes of their own, which may crash, hang or fill the memory: what became of each."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")

# Processes are forks of one that has only imported: they start in milliseconds, and no thread runs in it.
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["tubelet.cli", "tubelet.recipes.run", "tubelet.reports.report", "tubelet.inference.predictor",
     "torch.utils.tensorboard", "torch._dynamo", "torch.utils.flop_counter", "matplotlib.figure"]
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a call returned, or the ``error`` that it let out; ``died``: by which signal its process did, or "hangs".

    ``peak`` is the most memory that the process held, ``start`` what it held before, in MB.
    """

    value: Any = None
    error: str = ""
    died: str = ""
    seconds: float = 0.0
    peak: float = 0.0
    start: float = 0.0


def watched(
    function: Callable[[Item], Any], items: Sequence[Item], workers: int = 1, limit: float = 10.0
) -> list[Outcome]:
    """``function`` of every item, in ``workers`` processes; one that takes longer than ``limit`` seconds is killed."""
    found = [Outcome()] * len(items)

    def serve(first: int) -> None:
        worker = _Worker(function)
        for i in range(first, len(items), workers):
            found[i] = worker.ask(items[i], limit)
            if found[i].died:
                worker = _Worker(function)
        worker.end()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(serve, range(workers)))
    return found


def alone(function: Callable[[Item], Any], item: Item, limit: float = 600.0) -> Outcome:
    """``function`` of one item, in a fresh process."""
    return watched(function, [item], limit=limit)[0]


class _Worker:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.pipe, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=_answer, args=(function, theirs))
        self.process.start()
        theirs.close()
        self.pipe.recv()  # imports count for no item

    def ask(self, item: Any, limit: float) -> Outcome:
        began = time.perf_counter()
        self.pipe.send(item)
        try:
            if self.pipe.poll(limit):
                return self.pipe.recv()
            died, peak = "hangs", memory("VmHWM", self.process.pid)
        except (EOFError, ConnectionResetError):
            self.process.join()
            status = self.process.exitcode or 0
            died, peak = signal.Signals(-status).name if status < 0 else f"exit {status}", 0.0
        self.end()
        return Outcome(died=died, seconds=time.perf_counter() - began, peak=peak)

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _answer(function: Callable[[Any], Any], pipe: Connection) -> None:
    pipe.send("ready")
    with suppress(EOFError):
        while True:
            item, outcome = pipe.recv(), Outcome(start=memory("VmRSS"))
            Path("/proc/self/clear_refs").write_text("5")  # the highest memory is that of this item
            began = time.perf_counter()
            try:
                outcome = replace(outcome, value=function(item))
            except BaseException as error:  # a Rust panic and torch's CheckpointException are no Exception
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(place.filename).name}:{place.lineno}"
                outcome = replace(outcome, error=f"{type(error).__name__}: {error} ({where})")
            pipe.send(replace(outcome, seconds=time.perf_counter() - began, peak=memory("VmHWM")))


def memory(key: str, process: int | str | None = "self") -> float:
    """A line of a process's memory in MB: "VmRSS" is what it holds now, "VmHWM" the most it has held."""
    return int(re.findall(rf"{key}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())[0]) / 1024


class Command:
    """``tubelet WORDS`` in a process group of its own; what it says is in ``said``.

    ``prepare`` runs in the process first, with ``given``.
    """

    def __init__(
        self, words: Sequence[str], said: Path, prepare: Callable[..., None] | None = None, *given: object
    ) -> None:
        self.said = said
        self.process = PROCESSES.Process(target=_command, args=(list(words), said, prepare, given))
        self.process.start()

    def wait(self, limit: float = 300.0) -> int:
        """The exit status, negative for a signal; one that does not end is killed, and is 124."""
        self.process.join(limit)
        if self.process.exitcode is None:
            self.kill()
            return 124
        return self.process.exitcode

    def kill(self) -> None:
        """Kill the whole group with SIGKILL."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()  # it may have no group yet
        self.process.join()

    @property
    def errors(self) -> list[str]:
        """The lines that the command said of what went wrong."""
        lines = self.said.read_text(errors="replace").splitlines() if self.said.exists() else []
        return [line for line in lines if line.startswith(("tubelet:", "Traceback"))]


def run(words: Sequence[str], said: Path, limit: float = 300.0) -> tuple[int, list[str]]:
    """The exit status of ``tubelet WORDS``, and what it said of what went wrong."""
    command = Command(words, said)
    return command.wait(limit), command.errors


def _command(words: list[str], said: Path, prepare: Callable[..., None] | None, given: tuple[object, ...]) -> None:
    os.setsid()
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if prepare:
        prepare(*given)
    from tubelet.cli import main

    sys.exit(main(words))
