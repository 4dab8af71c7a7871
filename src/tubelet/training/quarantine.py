"""Unreadable training examples: recorded, counted, and past a budget the end of the run."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tubelet.training.loop import Update

QUARANTINE = "quarantine.jsonl"


class TooManyUnreadableError(RuntimeError):
    """More of the training examples cannot be read than ``training.replace_budget`` allows."""


class Quarantine:
    """A hook that records each example that the loader had to replace, once, and stops the run past the budget.

    The budget is a share of the ``examples`` of all tasks, rounded up to a whole example.
    """

    def __init__(self, folder: Path, examples: int, budget: float) -> None:
        self.path, self.examples = folder / QUARANTINE, examples
        self.allowed = math.ceil(budget * examples)
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        self._known = {json.loads(line)["path"] for line in lines if line.endswith("\n")}

    def __call__(self, update: Update) -> None:
        for batch in update.batches:
            for error in batch.replaced:
                if error.path not in self._known:
                    self._known.add(error.path)
                    record = {"step": update.step, "task": batch.task, "path": error.path, "time": error.time}
                    self._append({**record, "reason": error.reason})
        if len(self._known) > self.allowed:
            raise TooManyUnreadableError(
                f"{len(self._known)} of {self.examples} training examples cannot be read; training.replace_budget "
                f"allows {self.allowed}. {self.path} says which and why: mend or remove them, or raise the budget"
            )

    def _append(self, record: dict[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
