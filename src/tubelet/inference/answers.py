"""What a model says about a file, as values, and how they are written: a table, JSON, CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from io import StringIO
from typing import Any

from rich.markup import escape
from rich.table import Table

from tubelet.cards import Answer
from tubelet.media.errors import MediaError


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of a file: its most probable classes, best first, or its numbers by name.

    ``views``: the clips x crops whose outputs were averaged. For a task with several label sets (verb and noun),
    ``labels`` are their best combinations, and ``sets`` has the answers of each. ``warnings``: what makes the answer
    doubtful.
    """

    path: str
    task: str
    views: str
    labels: tuple[Answer, ...]
    sets: dict[str, tuple[Answer, ...]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        answers = ", ".join(" ".join(answer) for answer in self.written())
        return "; ".join([f"{self.path}: {answers} ({self.views} views)", *self.warnings])

    def written(self) -> list[tuple[str, str]]:
        """Each class with its probability, or each number's name with the number, as text."""
        numbers = [(name, f"{number:.4g}") for name, number in self.numbers.items()]
        return numbers or [(label, f"{probability:.1%}") for label, probability in self.labels]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What a stretch of a long video or sound holds: seconds from its beginning, and the best class or the numbers.

    ``silent``: its sound is digital silence, so that the class says nothing.
    """

    start: float
    end: float
    label: str
    probability: float
    silent: bool = False
    numbers: dict[str, float] = field(default_factory=dict)


def merged(segments: Iterable[Segment]) -> list[Segment]:
    """Neighboring segments with one label (or silence) as one, whose probability is their mean weighted by time."""
    runs: list[list[Segment]] = []
    for segment in segments:
        if runs and _same(runs[-1][-1], segment):
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return [_joined(run) for run in runs]


def _same(a: Segment, b: Segment) -> bool:
    return (a.label, a.silent, a.numbers) == (b.label, b.silent, b.numbers)


def _joined(run: Sequence[Segment]) -> Segment:
    seconds = sum(s.end - s.start for s in run)
    probability = sum(s.probability * (s.end - s.start) for s in run) / seconds
    return replace(run[0], end=run[-1].end, probability=probability)


Result = Prediction | MediaError


def predictions_table(results: Iterable[Result]) -> Table:
    """One row per answer; a file that cannot be read has its reason."""
    results = list(results)
    numbers = any(isinstance(result, Prediction) and result.numbers for result in results)
    what = ("number", "value") if numbers else ("class", "probability")
    table = Table("file", "task", *what, "views", box=None, pad_edge=False)
    table.columns[3].justify = "right"
    for result in results:
        if isinstance(result, MediaError):
            table.add_row(escape(result.path), "", f"[red]error[/red] {escape(_reason(result))}")
            continue
        for place, (name, value) in enumerate(result.written()):
            first = (escape(result.path), escape(result.task), result.views) if place == 0 else ("", "", "")
            path, task, views = first
            table.add_row(path, task, escape(name), value, views)
    return table


def timeline_table(path: str, segments: Iterable[Segment]) -> Table:
    """One row per stretch of time."""
    table = Table(
        "start", "end", "class", "probability", title=escape(path), title_justify="left", box=None, pad_edge=False
    )
    for column in (0, 1, 3):
        table.columns[column].justify = "right"
    for s in segments:
        said = [(escape(name), f"{number:.4g}") for name, number in s.numbers.items()]
        said = said or [(escape(s.label), f"{s.probability:.1%}")]
        for name, value in [("[dim](digital silence)[/dim]", "")] if s.silent else said:
            table.add_row(clock(s.start), clock(s.end), name, value)
    return table


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03.4``, without hours below one."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{tenths // 10:02d}.{tenths % 10}"


def as_json(result: Result) -> dict[str, Any]:
    """Plain data: answers as ``{"label", "probability"}``, an unreadable file as ``{"path", "error", "time"}``."""
    if isinstance(result, MediaError):
        return {"path": result.path, "error": result.reason, "time": result.time}
    data = asdict(result)
    data["labels"] = [answer._asdict() for answer in result.labels]
    data["sets"] = {name: [answer._asdict() for answer in answers] for name, answers in result.sets.items()}
    return _given(data)


def timeline_json(path: str, segments: Iterable[Segment]) -> dict[str, Any]:
    return {"path": path, "timeline": [_given(asdict(segment)) for segment in segments]}


def _given(data: dict[str, Any]) -> dict[str, Any]:
    """Without numbers where there are none, and without a class where there are."""
    left_out = {"label", "probability", "labels", "sets"} if data["numbers"] else {"numbers"}
    return {key: value for key, value in data.items() if key not in left_out}


def as_csv(results: Iterable[Result]) -> str:
    """Columns path, task, rank, label, probability, number, views, error: a line per answer, or per unreadable file.

    A line has a class and its probability, or the name of a number and the number.
    """
    lines: list[tuple[object, ...]] = [("path", "task", "rank", "label", "probability", "number", "views", "error")]
    for result in results:
        if isinstance(result, MediaError):
            lines.append((result.path, "", "", "", "", "", "", _reason(result)))
            continue
        for rank, (label, probability) in enumerate(result.labels, start=1):
            lines.append((result.path, result.task, rank, label, f"{probability:.6f}", "", result.views, ""))
        for name, number in result.numbers.items():
            lines.append((result.path, result.task, "", name, "", f"{number:.6g}", result.views, ""))
    return _csv(lines)


def timelines_csv(timelines: Mapping[str, Iterable[Segment]]) -> str:
    """Columns path, start, end, label, probability, number, silent, for the segments of each path; in seconds."""
    lines: list[tuple[object, ...]] = [("path", "start", "end", "label", "probability", "number", "silent")]
    for path, segments in timelines.items():
        for s in segments:
            said = [(name, "", f"{number:.6g}") for name, number in s.numbers.items()]
            span, silent = (f"{s.start:.3f}", f"{s.end:.3f}"), "silent" if s.silent else ""
            lines += [(path, *span, *answer, silent) for answer in said or [(s.label, f"{s.probability:.6f}", "")]]
    return _csv(lines)


def _csv(lines: Iterable[Sequence[object]]) -> str:
    out = StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _reason(error: MediaError) -> str:
    return error.reason if error.time is None else f"at {error.time:.3f} s: {error.reason}"
