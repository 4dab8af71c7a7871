"""What a run tells about itself while it trains: a line on the terminal, log.jsonl, TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from tubelet.training.loop import Update
from tubelet.training.parallel import Ranks

LOG, TENSORBOARD = "log.jsonl", "tensorboard"


class TrainingDivergedError(RuntimeError):
    """The loss or the gradient is no longer a number."""


@dataclass(frozen=True)
class _Pending:
    """An update that Health has yet to look at; without its batches, whose pixels would fill the memory."""

    step: int
    tasks: str
    keys: list[str]
    learning_rate: float
    loss_and_norm: Tensor

    def __str__(self) -> str:
        loss, norm = self.loss_and_norm.tolist()
        shown = ", ".join(self.keys[:8]) + (f" and {len(self.keys) - 8} more" if len(self.keys) > 8 else "")
        return (
            f"update {self.step} of task {self.tasks!r} has loss {loss:g} and gradient norm {norm:g} at learning rate "
            f"{self.learning_rate:g}. Its examples: {shown}. Lower the learning rate or clip_norm, lengthen the "
            "warm-up, or train in float32, with a new --out; the last checkpoint here is from before"
        )


class Health:
    """A hook that stops the run when the loss or the gradient is not finite, naming the minibatch.

    It looks at every update, but only when ``every`` of them are done, so that the device is never waited for between.
    """

    def __init__(self, ranks: Ranks, every: int) -> None:
        self.ranks, self.every = ranks, every
        self._pending: list[_Pending] = []

    def __call__(self, update: Update) -> None:
        keys = [key for batch in update.batches for key in batch.keys]
        values = torch.stack([update.loss, update.gradient_norm])
        self._pending.append(_Pending(update.step, update.tasks, keys, update.learning_rate, values))
        if update.step % self.every == 0:
            self.check()

    def check(self) -> None:
        """Look now; every rank must."""
        pending, self._pending = self._pending, []
        values = torch.stack([torch.zeros(2, device=self.ranks.device), *(p.loss_and_norm for p in pending)]).cpu()
        bad = (~values.isfinite().all(1)).nonzero().flatten().tolist()
        if self.ranks.any(bool(bad)):
            raise TrainingDivergedError(str(pending[bad[0] - 1]) if bad else "the loss diverged on another rank")


class Records:
    """A hook that writes every ``every``-th update to log.jsonl and TensorBoard, and the live line on the terminal.

    Use it as a context manager. Lines of log.jsonl from after ``start``, which a killed run may have left, are removed.
    """

    def __init__(self, folder: Path, ranks: Ranks, every: int, start: int, total: int, progress: bool) -> None:
        self.folder, self.ranks, self.every, self.start, self.total = folder, ranks, every, start, total
        self._seconds = self._waited = 0.0
        self._examples = self._updates = 0
        self._console = Console(stderr=True, quiet=not (progress and ranks.first))
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._line = self._progress.add_task("starting", total=total, completed=start)

    def __enter__(self) -> Records:
        if self.ranks.first:
            from torch.utils.tensorboard import SummaryWriter  # a second of imports

            _keep_until(self.folder / LOG, self.start)
            self._file = (self.folder / LOG).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=self.start + 1)
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()
        if self.ranks.first:
            self._file.close()
            self._board.close()

    def __call__(self, update: Update) -> None:
        self._updates += 1
        self._waited += update.waited
        self._examples += sum(map(len, update.batches)) * self.ranks.size
        logged = update.step % self.every == 0 or update.step == self.total
        values = self._mean(update) if logged else {}
        self._seconds += time.perf_counter() - update.started  # after _mean, which waits for the device
        if logged:
            speed = {
                "updates_per_second": self._updates / self._seconds,
                "examples_per_second": self._examples / self._seconds,
                "waiting": self._waited / self._seconds,
            }
            self.write({"step": update.step, "task": update.tasks, **values, **speed}, prefix=f"{update.tasks}/")
            self._show(update.step, values, speed)
            self._seconds, self._waited, self._examples, self._updates = 0.0, 0.0, 0, 0
        self._progress.update(self._line, completed=update.step)

    def write(self, record: Mapping[str, Any], prefix: str = "") -> None:
        """Append a line to log.jsonl; its numbers go to TensorBoard too, under ``prefix``."""
        if not self.ranks.first:
            return
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in record.items():
            if isinstance(value, float):
                self._board.add_scalar(prefix + name, value, record["step"])

    @contextmanager
    def paused(self) -> Generator[None]:
        """Without the live line, so that others can draw theirs."""
        self._progress.stop()
        yield
        self._progress.start()

    def say(self, message: str) -> None:
        """A line on the terminal of the first rank, above the live one."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _mean(self, update: Update) -> dict[str, float]:
        """The update's loss and metrics over all ranks; the gradient's norm is the same on all."""
        names = ["loss", *update.metrics]
        values = self.ranks.mean(torch.stack([update.loss, *update.metrics.values()]).float()).tolist()
        norm = float(update.gradient_norm)
        return {**dict(zip(names, values, strict=True)), "gradient_norm": norm, "learning_rate": update.learning_rate}

    def _show(self, step: int, values: Mapping[str, float], speed: Mapping[str, float]) -> None:
        left = (self.total - step) / speed["updates_per_second"]
        parts = (
            f"loss {values['loss']:.4f}  lr {values['learning_rate']:.2e}",
            f"{speed['updates_per_second']:.2f} steps/s  {speed['examples_per_second']:.1f} examples/s",
            f"{speed['waiting']:.0%} waiting for data  {_clock(left)} left",
        )
        line = "  ".join(parts)
        self._progress.update(self._line, description=line)
        if not self._console.is_terminal:
            self.say(f"{step}/{self.total}  {line}")


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines from after ``step``, and one that a kill left unfinished."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    beside = path.with_suffix(".new")
    beside.write_text("".join(kept), encoding="utf-8")
    beside.rename(path)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{int(seconds):02d}" if hours else f"{minutes}:{int(seconds):02d}"
