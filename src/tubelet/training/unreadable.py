"""Unreadable training examples: recorded, counted, and past a budget the end of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from tubelet.training.loop import Update
from tubelet.training.records import as_line, cut_unfinished, read_records

QUARANTINE = "quarantine.jsonl"


class TooManyUnreadableError(RuntimeError):
    """More of the training examples cannot be read than ``training.replace_budget`` allows."""


class UnreadableExamples:
    """A hook that records each example that the loader had to replace, once, and stops the run past the budget.

    The budget is a share of each task's ``examples``, rounded up to a whole example: a small task's loss does not hide
    among the examples of a large one.
    """

    def __init__(self, folder: Path, examples: Mapping[str, int], budget: float) -> None:
        self.path, self.examples = folder / QUARANTINE, examples
        self.allowed = {task: math.ceil(budget * count) for task, count in examples.items()}
        cut_unfinished(self.path)
        known = read_records(self.path)
        self._known = {task: {line.get("path") for line in known if line.get("task") == task} for task in examples}

    def __call__(self, update: Update) -> None:
        for batch in update.batches:
            known = self._known[batch.task]
            for error in batch.replaced:
                if error.path not in known:
                    known.add(error.path)
                    record = {"step": update.step, "task": batch.task, "path": error.path, "time": error.time}
                    self._append({**record, "reason": error.reason})
            if len(known) > self.allowed[batch.task]:
                raise TooManyUnreadableError(
                    f"{len(known)} of {self.examples[batch.task]} training examples of task {batch.task!r} cannot be "
                    f"read; training.replace_budget allows {self.allowed[batch.task]}. {self.path} says which and why: "
                    "mend or remove them, or raise the budget"
                )

    def _append(self, record: dict[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(as_line(record))
