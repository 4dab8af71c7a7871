"""How a model did beside the simple classifiers that were fitted on the same files, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["better", "as good", "worse"]

_STARTS = {
    "image": "hf:google/vit-base-patch16-224-in21k",
    "video": "hf:google/vit-base-patch16-224-in21k",
    "audio": "hf:google/vit-base-patch16-224-in21k",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The top-1 accuracies on the same test files, the standard error of the model's, and what follows.

    ``outcome``: "as good" where the two are within one standard error.
    """

    model: float
    baseline: float
    name: str
    examples: int
    inputs: tuple[str, ...]

    @property
    def error(self) -> float:
        """The standard error of an accuracy that was measured on so many examples."""
        return math.sqrt(self.model * (1 - self.model) / max(1, self.examples))

    @property
    def outcome(self) -> Outcome:
        difference = self.model - self.baseline
        if abs(difference) <= self.error:
            return "as good"
        return "better" if difference > 0 else "worse"

    def __str__(self) -> str:
        files, points = f"{self.examples:,} test files", 100 * abs(self.model - self.baseline)
        ours, theirs = f"{self.model:.1%}", f"{self.baseline:.1%}"
        match self.outcome:
            case "worse":
                return (
                    f"A simple classifier does better. {_capital(self.name)}: {theirs} of {files} right; the model: "
                    f"{ours}, {points:.1f} points fewer."
                )
            case "as good":
                return (
                    f"The model is about as good as the best simple classifier: {ours} of {files} right; {self.name}: "
                    f"{theirs}. The difference is within the standard error of {100 * self.error:.1f} points."
                )
            case "better":
                return f"The model beats the best simple classifier: {ours} of {files} right; {self.name}: {theirs}."

    def advice(self) -> tuple[str, ...]:
        """What to try next, the most promising first; nothing where the model is better and good."""
        if self.outcome == "better" and self.model >= 0.95:
            return ()
        start = next((_STARTS[name] for name in self.inputs if name in _STARTS), _STARTS["image"])
        tries = [
            f"Start from weights that have seen more: --init {start} (fetched from the Hugging Face Hub).",
            "Add training files, most of all of the classes that are confused below.",
            "Give it more time: --minutes 30.",
        ]
        if self.outcome == "worse":
            tries.append("Until then, use the simple classifier.")
        return tuple(tries)


def verdict(task: Mapping[str, Any]) -> Verdict | None:
    """That of a task of ``results.json``; None where there is no baseline, or no top-1 to compare."""
    baseline = task.get("baseline")
    if not baseline or "top1" not in task["metrics"]:
        return None
    return Verdict(
        model=task["metrics"]["top1"],
        baseline=baseline["metrics"]["top1"],
        name=baseline["name"],
        examples=task["coverage"]["scored"],
        inputs=tuple(task.get("inputs", ())),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
