"""A model's answers to each example, as lines of JSON, for the report and for scripts of your own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tubelet.cards import Answer
from tubelet.writing import written_beside


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One example of an evaluation. ``labels``, ``top`` and ``numbers`` are by label set ("label" is the plain one).

    ``start`` and ``end``: the part of the file, in seconds; None: to its end. ``top``: the five most probable labels,
    best first. ``numbers``: what the model answers where the labels are numbers.
    """

    task: str
    key: str
    path: str
    start: float
    end: float | None
    labels: dict[str, tuple[str, ...]]
    top: dict[str, tuple[Answer, ...]] = field(default_factory=dict[str, tuple[Answer, ...]])
    numbers: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def right(self) -> bool:
        """Whether the best answer of every label set is one of its labels; of classes."""
        return all(self.top[name][0][0] in labels for name, labels in self.labels.items())

    @property
    def numbered(self) -> tuple[str, ...]:
        """The label sets that are compared with a number."""
        return tuple(name for name in self.numbers if name in self.labels)

    @property
    def confidence(self) -> float:
        """The probability of the best answer (of the least sure label set, where there are several)."""
        return min(answers[0][1] for answers in self.top.values())


def write_predictions(path: Path, examples: Iterable[Scored]) -> None:
    """One line per example; probabilities keep four digits."""
    with written_beside(path) as beside, beside.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for example in examples:
            line = asdict(example)
            line["top"] = {
                name: [[label, round(p, 4)] for label, p in answers] for name, answers in example.top.items()
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_predictions(path: Path) -> list[Scored]:
    """The examples that :func:`write_predictions` wrote."""
    with path.open(encoding="utf-8") as file:
        return [_scored(json.loads(line)) for line in file]


def _scored(line: dict[str, Any]) -> Scored:
    labels = {name: tuple(values) for name, values in line.pop("labels").items()}
    top = {name: tuple(Answer(label, p) for label, p in answers) for name, answers in line.pop("top").items()}
    return Scored(**line, labels=labels, top=top)
