"""The verdict: how a model did beside simple classifiers on the same files, in plain words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar, Literal

from tubelet.cards import NumberCard
from tubelet.data.manifest import LABEL
from tubelet.evaluation.predictions import Scored
from tubelet.metrics import share_error

Outcome = Literal["better", "as good", "worse", "not compared"]
Trend = Literal["rising", "flat", "falling", "unknown"]

_START = "hf:google/vit-base-patch16-224-in21k"
_WARNINGS = ("fewer than 5 training files", "no test file")  # of an experiment's notes
_MEMORIZED, _UNLEARNED = 0.9, 0.8  # accuracies in training above and below which they tell something
_FEWEST_FOR_TREND = 6  # evaluations


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The course of a training, from its ``log.jsonl``: accuracy on validation files and on training files.

    ``steps``, ``values``, ``errors``: the validations and their standard errors; empty if no files were held out.
    ``kept``: the step whose weights the run ended with. ``training``: the accuracy on augmented training files in the
    last tenth of the training. ``planned``: the number of updates; None if unknown.
    """

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    kept: int = 0
    training: float | None = None
    planned: int | None = None

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], task: str = "", planned: int | None = None) -> Learning:
        """Read it from the lines of a ``log.jsonl``. ``training`` is that of the ``task``."""
        found = [line for line in lines if "validation" in line]
        shares = [float(line["top1"]) for line in lines if line.get("task") == task and "top1" in line]
        last = shares[-max(1, len(shares) // 10) :]
        return cls(
            steps=tuple(line["step"] for line in found),
            values=tuple(line["validation"] for line in found),
            errors=tuple(line["standard_error"] for line in found),
            kept=found[-1]["kept"] if found else 0,
            training=fmean(last) if last else None,
            planned=planned,
        )

    @property
    def kept_score(self) -> tuple[float, float] | None:
        """The validation accuracy of the kept weights, and its standard error."""
        if self.kept not in self.steps:
            return None
        place = self.steps.index(self.kept)
        return self.values[place], self.errors[place]

    @property
    def stopped(self) -> bool:
        """Whether the training ended early because validation had stopped improving."""
        return bool(self.planned and self.steps and self.steps[-1] < 0.97 * self.planned)

    @property
    def trend(self) -> Trend:
        """Where validation was heading at the end.

        "rising" and "falling" are by more than a standard error. A rise to less than the best value before it is
        "flat".
        """
        count = len(self.values)
        if count < _FEWEST_FOR_TREND:
            return "unknown"
        third = count // 3
        step = fmean(self.values[-third:]) - fmean(self.values[-2 * third : -third])
        if abs(step) <= fmean(self.errors[-third:]):
            return "flat"
        if step < 0:
            return "falling"
        return "rising" if max(self.values[-third:]) == max(self.values) else "flat"

    def __str__(self) -> str:
        """What the curve means, in a sentence or two; empty if there is no curve."""
        kept = self.kept_score
        if kept is None:
            return ""
        said = f"The weights of update {self.kept:,} were kept, which reach {percent(kept[0])}. "
        match self.trend:
            case "rising":
                return said + "The curve was still rising at the end, so more time would probably help."
            case "falling":
                by_heart = (self.training or 0) > kept[0] + 0.15
                why = ": the model began to learn the training files by heart" if by_heart else ""
                return f"{said}Toward the end it got worse{why}."
            case "flat":
                return said + "Toward the end it brought nothing better, within its uncertainty."
            case "unknown":
                return said + "There are too few points to tell whether it was still improving."


@dataclass(frozen=True)
class Confused:
    """Two classes: how many files of the ``first`` were taken for the ``second``, and the other way round."""

    first: str
    second: str
    there: int
    back: int

    def __str__(self) -> str:
        said = f"{_files(self.there)} of '{self.first}' {_were(self.there)} taken for '{self.second}'"
        return f"{said}, {self.back:,} the other way round" if self.back else said


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run's files say beyond its numbers. Unknown things are empty and are not mentioned.

    ``chance``: the share of the ``largest`` class of the test files. ``missed``: classes with two or more test files,
    none of which is named right, and their number. ``warnings``: about too few files. ``planned``: how long the run was
    to take, in seconds. ``started``: whether the training started from other weights. ``flags``: whether the recipe was
    ``folder``, whose flags can be suggested. ``files``: the number of test files.
    """

    chance: float | None = None
    largest: str = ""
    confused: tuple[Confused, ...] = ()
    missed: tuple[tuple[str, int], ...] = ()
    warnings: tuple[str, ...] = ()
    unread: int = 0
    files: int = 0
    source: str = ""
    learning: Learning = field(default_factory=Learning)
    planned: float | None = None
    started: bool = False
    flags: bool = True

    @classmethod
    def of(
        cls,
        name: str,
        task: Mapping[str, Any],
        examples: Sequence[Scored],
        experiment: Mapping[str, Any],
        learning: Learning,
    ) -> Evidence:
        """The evidence for a task of a run. ``experiment``: the one in its ``config.json``."""
        pairs = [(e.labels[LABEL][0], e.top[LABEL][0][0]) for e in examples if e.labels.get(LABEL) and LABEL in e.top]
        counts = Counter(truth for truth, _ in pairs)
        right = Counter(truth for truth, answer in pairs if truth == answer)
        largest, most = counts.most_common(1)[0] if counts else ("", 0)
        tasks = experiment.get("tasks", {})
        chosen = experiment.get("chosen", {})
        notes = str(experiment.get("notes", "")).splitlines()
        if len(tasks) > 1:
            notes = [note.removeprefix(f"{name}: ") for note in notes if note.startswith(f"{name}: ")]
        return cls(
            chance=most / len(pairs) if pairs else None,
            largest=largest,
            confused=tuple(_confused(pairs)),
            missed=tuple((label, count) for label, count in counts.most_common() if count > 1 and not right[label]),
            warnings=tuple(note for note in notes if any(warning in note for warning in _WARNINGS)),
            unread=task["coverage"]["expected"] - task["coverage"]["scored"],
            files=task["coverage"]["expected"],
            source=str(tasks.get(name, {}).get("source", {}).get("path", "")),
            learning=learning,
            planned=float(chosen["seconds"]) if "seconds" in chosen else None,
            started=bool(experiment.get("init")),
            flags="seconds" in chosen,
        )


def _confused(pairs: Sequence[tuple[str, str]]) -> Iterator[Confused]:
    """The pairs of classes that are confused more than once, the most frequent first."""
    mistakes = Counter(pair for pair in pairs if pair[0] != pair[1])
    both = Counter[tuple[str, str]]()
    for (truth, answer), count in mistakes.items():
        both[min(truth, answer), max(truth, answer)] += count
    found = [Confused(a, b, mistakes[a, b], mistakes[b, a]) for a, b in both if both[a, b] > 1]
    turned = [c if c.there >= c.back else Confused(c.second, c.first, c.back, c.there) for c in found]
    yield from sorted(turned, key=lambda c: (-c.there - c.back, -c.there))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The top-1 accuracies (or R2) of model and baseline on the same test files, and what follows from them.

    ``outcome``: "as good" where the two are within one standard error, "not compared" where ``baseline`` is None.
    ``distance``, ``baseline_distance``: mean absolute errors, of numbers.
    """

    simple: ClassVar[str] = "classifier"

    model: float
    baseline: float | None
    name: str
    examples: int
    inputs: tuple[str, ...]
    distance: float | None = None
    baseline_distance: float | None = None
    evidence: Evidence = field(default_factory=Evidence)

    @classmethod
    def of(cls, task: Mapping[str, Any], evidence: Evidence | None = None) -> Verdict | None:
        """The verdict on a task of ``results.json``; None if it has neither a top-1 nor an R2 of numbers."""
        metrics, baseline = task["metrics"], task.get("baseline") or {}
        if "r2" in metrics:
            kind, metric = NumberVerdict, "r2"
        elif "top1" in metrics:
            kind, metric = Verdict, "top1"
        else:
            return None
        return kind(
            model=metrics[metric],
            baseline=baseline["metrics"][metric] if baseline else None,
            distance=metrics.get("mae"),
            baseline_distance=baseline["metrics"].get("mae") if baseline else None,
            name=baseline.get("name", ""),
            examples=task["coverage"]["scored"],
            inputs=tuple(task.get("inputs", ())),
            evidence=evidence or Evidence(),
        )

    @property
    def error(self) -> float:
        """The standard error of the accuracy."""
        return share_error(self.model, self.examples)

    @property
    def outcome(self) -> Outcome:
        if self.baseline is None:
            return "not compared"
        difference = self.model - self.baseline
        if abs(difference) <= self.error:
            return "as good"
        return "better" if difference > 0 else "worse"

    @property
    def useless(self) -> bool:
        """Whether always giving the same answer would do as well."""
        return self.chance is not None and self.model - self.chance[0] <= self.error

    @property
    def chance(self) -> tuple[float, str] | None:
        """What one answer to everything reaches, and which; None if unknown."""
        if self.evidence.chance is None:
            return None
        return self.evidence.chance, f"always answering '{self.evidence.largest}', the most frequent class"

    @property
    def title(self) -> str:
        """The outcome in a sentence."""
        if self.outcome == "worse":
            return f"A simple {self.simple} does better."
        if self.useless:
            return "The model has not learned anything useful."
        match self.outcome:
            case "as good":
                return f"The model is about as good as a simple {self.simple}."
            case "better":
                return f"The model beats the best simple {self.simple}."
            case _:
                return self._alone

    @property
    def text(self) -> str:
        """The numbers behind the title."""
        said: list[str] = []
        if self.baseline is not None or self.useless:
            said.append(self._reached)
        if self.baseline is not None:
            said.append(self._baseline_reached)
            points = 100 * abs(self.model - self.baseline)
            if self.outcome == "worse":
                said.append(f"That is {points:.1f} points more.")
            if self.outcome == "as good" and points:
                said.append(f"With so many files, a difference of {100 * self.error:.1f} points can be luck.")
        if self.useless:
            said.append(self._one_answer)
        return " ".join(said)

    def __str__(self) -> str:
        return f"{self.title} {self.text}".rstrip()

    @property
    def _alone(self) -> str:
        return f"The model names {self._right} of {_test_files(self.examples)} right."

    @property
    def _reached(self) -> str:
        return f"Of {_test_files(self.examples)}, the model names {self._right} right ({percent(self.model)})."

    @property
    def _baseline_reached(self) -> str:
        return f"The best simple {self.simple}, {self.name}, reaches {percent(self.baseline or 0)}."

    @property
    def _one_answer(self) -> str:
        return f"Answering '{self.evidence.largest}' every time reaches {percent(self.evidence.chance or 0)}."

    @property
    def _right(self) -> str:
        return f"{round(self.model * self.examples):,}"

    def advice(self) -> tuple[str, ...]:
        """What to try next, the most promising first; commands stand in backticks.

        Empty if the model is good, no worse than the baseline, and no file or class stands out.
        """
        good = self.model >= 0.95 and self.outcome != "worse"
        tries = [*self._about_the_files()]
        if not good:
            tries += self._about_the_training()
        if self.outcome == "as good" and self.model < 1:
            tries.append(
                f"Add test files if you need to know which of the two is better: {self.examples:,} cannot tell."
            )
        if self.outcome == "worse":
            tries.append(f"Until then, the simple {self.simple} is the better choice for these files.")
        return tuple(tries)

    def _about_the_files(self) -> Iterator[str]:
        e = self.evidence
        if e.confused:
            yield (
                f"Look at the classes that are confused most: {'; '.join(map(str, e.confused[:2]))}. Training files "
                "that show the difference help most. If you cannot tell them apart either, make them one class."
            )
        told = {name for pair in e.confused[:2] for name in (pair.first, pair.second)}
        if missed := [(name, count) for name, count in e.missed if name not in told]:
            shown = ", ".join(f"'{name}' (0 of {count:,})" for name, count in missed[:4])
            more = f" and {len(missed) - 4:,} more" if len(missed) > 4 else ""
            yield f"Add training files to the classes that are never named right: {shown}{more}."
        yield from e.warnings
        if e.unread:
            yield (
                f"Repair or replace {_test_files(e.unread)} of {e.files:,} that cannot be read. "
                "They are listed below and do not count in the numbers."
                + (f" `tubelet data check {e.source}` finds all such files." if e.source else "")
            )

    def _about_the_training(self) -> Iterator[str]:
        e, learning = self.evidence, self.evidence.learning
        training, kept = learning.training, learning.kept_score
        apart = training is not None and training - self.model > max(0.15, 2 * self.error)
        memorized = training is not None and training >= _MEMORIZED and apart
        differs = kept is not None and kept[0] - self.model > max(0.05, 2 * math.hypot(kept[1], self.error))
        if differs and kept is not None:
            yield (
                f"Add training files that are more like the test files: the model reaches {percent(kept[0])} on the "
                f"validation files, which come from the training files, but {percent(self.model)} on the test files. "
                "Other speakers, scenes or cameras make such a difference."
            )
        elif memorized and training is not None:
            yield (
                f"Add training files. At the end, {percent(training)} of them were named right in training, but "
                f"{percent(self.model)} of the test files: the model has learned them by heart. More time does not "
                "help against that."
            )
        elif not e.confused and not e.warnings:
            yield self._add_files
        if e.flags and not e.started:
            yield (
                f"Start from weights that have seen many pictures: `--init {_START}` (fetched from the Hugging Face "
                "Hub; slow without a GPU)."
            )
        if not (memorized or learning.stopped):
            yield from self._more_time(training)

    @property
    def _add_files(self) -> str:
        return "Add training files, most of all to the classes that are confused."

    def _more_time(self, training: float | None) -> Iterator[str]:
        how = f": `--minutes {_longer(self.evidence.planned)}`" if self.evidence.flags else ""
        if training is not None and training < _UNLEARNED:
            yield (
                f"Give it more time{how}. Even of the training files, which are changed at random while it learns, "
                f"it named only {percent(training)} right at the end."
            )
        elif self.evidence.learning.trend == "rising":
            yield f"Give it more time{how}. Validation was still improving at the end."
        elif training is None and self.evidence.learning.trend == "unknown" and self.evidence.flags:
            yield f"Give it more time{how}."


class NumberVerdict(Verdict):
    """A verdict on numbers, by R2: the share of their variance that the answers explain."""

    simple = "regressor"

    @property
    def error(self) -> float:
        return _NUMBERS.standard_error(self.model, self.examples)

    @property
    def chance(self) -> tuple[float, str]:
        return 0.0, "always answering the mean of the test files"

    @property
    def _alone(self) -> str:
        return (
            f"The answers for {_test_files(self.examples)} explain {percent(self.model)} of the numbers' variance"
            f"{_off(self.distance)}."
        )

    @property
    def _reached(self) -> str:
        return (
            f"On {_test_files(self.examples)}, the model explains {percent(self.model)} of the numbers' variance"
            f"{_off(self.distance)}."
        )

    @property
    def _baseline_reached(self) -> str:
        return (
            f"The best simple {self.simple}, {self.name}, explains {percent(self.baseline or 0)}"
            f"{_off(self.baseline_distance)}."
        )

    @property
    def _one_answer(self) -> str:
        return "Answering the mean every time explains nothing, and is no worse."

    @property
    def _add_files(self) -> str:
        return "Add training files, most of all where the answers are farthest off."


_NUMBERS = NumberCard(numbers=("label",), mean=(0.0,), std=(1.0,))


def _off(distance: float | None) -> str:
    return "" if distance is None else f" and is {distance:.4g} off on average"


def verdict(task: Mapping[str, Any]) -> Verdict | None:
    """The verdict on a task of ``results.json``; None without a baseline to compare with."""
    return Verdict.of(task) if task.get("baseline") else None


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal, except for 0% and 100%."""
    return "100%" if value == 1 else "0%" if value == 0 else f"{value:.1%}"


def _longer(seconds: float | None) -> int:
    """Three times the duration of a run, in minutes, rounded to tens."""
    return 30 if seconds is None else 10 * max(1, math.ceil(3 * seconds / 600 - 0.2))


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _test_files(count: int) -> str:
    return f"{count:,} test file{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
