"""What a run tells about itself while it trains: a line on the terminal, log.jsonl, TensorBoard."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
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
from tubelet.training.ranks import Ranks
from tubelet.training.records import as_line, read_records
from tubelet.writing import write_text

LOG, TENSORBOARD = "log.jsonl", "tensorboard"


class TrainingDivergedError(RuntimeError):
    """The loss or the gradient is no longer a number."""


@dataclass(frozen=True)
class _Pending:
    """An update that the check has yet to look at; without its batches, whose pixels would fill the memory."""

    step: int
    tasks: list[str]
    keys: list[str]
    learning_rate: float
    losses_and_norm: Tensor

    def __str__(self) -> str:
        *losses, norm = self.losses_and_norm.tolist()
        shown = ", ".join(self.keys[:8]) + (f" and {len(self.keys) - 8} more" if len(self.keys) > 8 else "")
        return (
            f"update {self.step} of task {', '.join(map(repr, self.tasks))} has loss "
            f"{', '.join(f'{loss:g}' for loss in losses)} and gradient norm {norm:g} at learning rate "
            f"{self.learning_rate:g}. Its examples: {shown}. Lower the learning rate or clip_norm, lengthen the "
            "warm-up, or train in float32, with a new --out"
        )


class NonFiniteCheck:
    """A hook that stops the run when the loss or the gradient is not finite, naming the minibatch.

    It looks at every update, but only when ``every`` of them are done, so that the device is never waited for between.
    ``saved``: the step of the last checkpoint, 0 without one.
    """

    def __init__(self, ranks: Ranks, every: int, saved: Callable[[], int]) -> None:
        self.ranks, self.every, self.saved = ranks, every, saved
        self._pending: list[_Pending] = []

    def __call__(self, update: Update) -> None:
        keys = [key for batch in update.batches for key in batch.keys]
        values = torch.stack([*update.losses, update.gradient_norm])
        self._pending.append(_Pending(update.step, update.tasks, keys, update.learning_rate, values))
        if update.step % self.every == 0:
            self.check()

    def check(self) -> None:
        """Look now; every rank must."""
        pending, self._pending = self._pending, []
        finite = torch.stack([p.losses_and_norm for p in pending]).cpu().isfinite().all(1) if pending else torch.ones(0)
        bad = (finite == 0).nonzero().flatten().tolist()
        if self.ranks.any(bool(bad)):
            before = f"; the last checkpoint here, after update {self.saved()}, is from before" if self.saved() else ""
            raise TrainingDivergedError(f"{pending[bad[0]]}{before}" if bad else "the loss diverged on another rank")


@dataclass
class _Sum:
    """A task's scores since they were last written, added up where they are; waits for nothing."""

    names: list[str]
    scores: Tensor
    learning_rate: float = 0.0
    minibatches: int = 0


class MetricLogger:
    """A hook that writes to log.jsonl and TensorBoard every ``every`` updates, and the live line on the terminal.

    A line of log.jsonl for each task that was trained since the last ones: the means of its scores since then, so that
    none goes unseen, however rare. Use the hook as a context manager. Lines from after ``start``, which a killed run
    may have left, are removed. ``updates_per_epoch``: of a pass over the examples, 0 where several tasks have each
    their own. ``aside``: words for the live line, by what they are about. ``latest``: the lines of the last update that
    has any, for a checkpoint to keep.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        every: int,
        start: int,
        total: int,
        progress: bool,
        updates_per_epoch: float = 0.0,
        aside: str = "",
    ) -> None:
        self.folder, self.ranks, self.every, self.start, self.total = folder, ranks, every, start, total
        self._updates_per_epoch = updates_per_epoch
        self.aside = {"": aside} if aside else dict[str, str]()
        self._seconds = self._waited = 0.0
        self._examples = self._updates = 0
        self._sums: dict[str, _Sum] = {}
        self._losses: dict[str, float] = {}
        self.latest: list[dict[str, Any]] = []
        self._console = Console(stderr=True, quiet=not (progress and ranks.is_main))
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._line = self._progress.add_task("starting", total=total, completed=start)

    def __enter__(self) -> MetricLogger:
        if self.ranks.is_main:
            from torch.utils.tensorboard import SummaryWriter  # a second of imports

            _keep_until(self.folder / LOG, self.start or -1)  # a new start measures its first weights again
            self._file = (self.folder / LOG).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=self.start and self.start + 1)
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()
        if self.ranks.is_main:
            self._file.close()
            self._board.close()

    def __call__(self, update: Update) -> None:
        self._updates += 1
        self._waited += update.waited
        self._examples += sum(map(len, update.batches)) * self.ranks.world_size
        for task, scores in zip(update.tasks, update.scores, strict=True):
            self._add(task, {**scores, "gradient_norm": update.gradient_norm}, update.learning_rate)
        logged = update.step % self.every == 0 or update.step == self.total
        means = self._means() if logged else {}
        self._seconds += time.perf_counter() - update.started  # after _means, which waits for the device
        if logged:
            speed = {
                "updates_per_second": self._updates / self._seconds,
                "examples_per_second": self._examples / self._seconds,
                "waiting": self._waited / self._seconds,
            }
            for task, values in means.items():
                self.write({"step": update.step, "task": task, **values, **speed}, prefix=f"{task}/")
                self._losses[task] = values["loss"]
            self._show(update, speed)
            self._seconds, self._waited, self._examples, self._updates = 0.0, 0.0, 0, 0
        self._progress.update(self._line, completed=update.step)

    def write(self, record: dict[str, Any], prefix: str = "") -> None:
        """Append a line to log.jsonl; its numbers go to TensorBoard too, under ``prefix``."""
        if not self.ranks.is_main:
            return
        self.latest = [line for line in self.latest if line["step"] == record["step"]] + [record]
        self._file.write(as_line(record))
        self._file.flush()
        for name, value in record.items():
            if isinstance(value, float):
                self._board.add_scalar(prefix + name, value, record["step"])

    def restore(self, latest: Sequence[dict[str, Any]]) -> None:
        """Write those of a checkpoint's ``latest`` lines again that log.jsonl has lost, such as a torn last one."""
        if self.ranks.is_main:
            there = set(map(as_line, read_records(self.folder / LOG)))
            self._file.writelines(line for line in map(as_line, latest) if line not in there)
            self._file.flush()

    def to_disk(self) -> None:
        """Wait until the lines of log.jsonl would outlast a power cut, as those before a checkpoint must."""
        if self.ranks.is_main:
            os.fsync(self._file.fileno())

    @contextmanager
    def paused(self) -> Generator[None]:
        """Without the live line, so that others can draw theirs."""
        self._progress.stop()
        yield
        self._progress.start()

    def say(self, message: str) -> None:
        """A line on the terminal of the first rank, above the live one."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _add(self, task: str, scores: Mapping[str, Tensor], learning_rate: float) -> None:
        values = torch.stack([score.float() for score in scores.values()])
        sum_ = self._sums.setdefault(task, _Sum(list(scores), torch.zeros_like(values)))
        sum_.scores += values
        sum_.learning_rate = learning_rate
        sum_.minibatches += 1

    def _means(self) -> dict[str, dict[str, float]]:
        """By task, the means of its scores over its minibatches since the last time, and over all ranks."""
        sums, self._sums = self._sums, {}
        means = self.ranks.mean(torch.cat([s.scores / s.minibatches for s in sums.values()])).tolist()
        found: dict[str, dict[str, float]] = {}
        for task, s in sums.items():
            values, means = means[: len(s.names)], means[len(s.names) :]
            found[task] = {**dict(zip(s.names, values, strict=True)), "learning_rate": s.learning_rate}
        return found

    def _show(self, update: Update, speed: Mapping[str, float]) -> None:
        left = (self.total - update.step) / speed["updates_per_second"]
        losses = "  ".join(f"{task} {loss:.3f}" for task, loss in self._losses.items())
        epoch = update.step / self._updates_per_epoch if self._updates_per_epoch else 0.0
        parts = (
            *([f"epoch {epoch:.1f} of {self.total / self._updates_per_epoch:.0f}"] if epoch else []),
            f"loss {losses if len(self._losses) > 1 else f'{self._losses[update.tasks[0]]:.4f}'}",
            *(f"{what} {words}".strip() for what, words in self.aside.items()),
            f"{speed['examples_per_second']:.0f} examples/s",
            f"{speed['waiting']:.0%} waiting for data  {_clock(left)} left",
        )
        line = "  ".join(parts)
        self._progress.update(self._line, description=line)
        if not self._console.is_terminal:
            self.say(f"{update.step}/{self.total}  {line}")


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines from after ``step``, and one that a kill left unfinished."""
    if path.exists():
        write_text(path, "".join(as_line(record) for record in read_records(path) if record.get("step", 0) <= step))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{int(seconds):02d}" if hours else f"{minutes}:{int(seconds):02d}"
