"""What a model says about a file, as values, and how they are written: a table, JSON, CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from io import StringIO
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from tubelet.media.errors import MediaError


class Answer(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable classes of a file, best first.

    ``views``: the clips x crops whose logits were averaged. For a task with several label sets (verb and noun),
    ``labels`` are their best combinations, and ``sets`` has the answers of each. ``warnings``: what makes the answer
    doubtful.
    """

    path: str
    task: str
    views: str
    labels: tuple[Answer, ...]
    sets: dict[str, tuple[Answer, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        answers = ", ".join(f"{label} {probability:.1%}" for label, probability in self.labels)
        return "; ".join([f"{self.path}: {answers} ({self.views} views)", *self.warnings])


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What a stretch of a long video or sound holds: seconds from its beginning, and the best class.

    ``silent``: its sound is digital silence, so that the class says nothing.
    """

    start: float
    end: float
    label: str
    probability: float
    silent: bool = False


def merged(segments: Iterable[Segment]) -> list[Segment]:
    """Neighboring segments with one label (or silence) as one, whose probability is their mean weighted by time."""
    runs: list[list[Segment]] = []
    for segment in segments:
        if runs and (runs[-1][-1].label, runs[-1][-1].silent) == (segment.label, segment.silent):
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return [_joined(run) for run in runs]


def _joined(run: Sequence[Segment]) -> Segment:
    seconds = sum(s.end - s.start for s in run)
    probability = sum(s.probability * (s.end - s.start) for s in run) / seconds
    return replace(run[0], end=run[-1].end, probability=probability)


Result = Prediction | MediaError


def predictions_table(results: Iterable[Result]) -> Table:
    """One row per answer; a file that cannot be read has its reason."""
    table = Table("file", "task", "class", "probability", "views", box=None, pad_edge=False)
    table.columns[3].justify = "right"
    for result in results:
        if isinstance(result, MediaError):
            table.add_row(escape(result.path), "", f"[red]error[/red] {escape(_reason(result))}")
            continue
        for place, (label, probability) in enumerate(result.labels):
            first = (escape(result.path), escape(result.task), result.views) if place == 0 else ("", "", "")
            path, task, views = first
            table.add_row(path, task, escape(label), f"{probability:.1%}", views)
    return table


def timeline_table(path: str, segments: Iterable[Segment]) -> Table:
    """One row per stretch of time."""
    table = Table(
        "start", "end", "class", "probability", title=escape(path), title_justify="left", box=None, pad_edge=False
    )
    for column in (0, 1, 3):
        table.columns[column].justify = "right"
    for s in segments:
        label = "[dim](digital silence)[/dim]" if s.silent else escape(s.label)
        table.add_row(clock(s.start), clock(s.end), label, "" if s.silent else f"{s.probability:.1%}")
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
    return data


def timeline_json(path: str, segments: Iterable[Segment]) -> dict[str, Any]:
    return {"path": path, "timeline": [asdict(segment) for segment in segments]}


def as_csv(results: Iterable[Result]) -> str:
    """Columns path, task, rank, label, probability, views, error: a line per answer, or per unreadable file."""
    lines: list[tuple[object, ...]] = [("path", "task", "rank", "label", "probability", "views", "error")]
    for result in results:
        if isinstance(result, MediaError):
            lines.append((result.path, "", "", "", "", "", _reason(result)))
            continue
        for rank, (label, probability) in enumerate(result.labels, start=1):
            lines.append((result.path, result.task, rank, label, f"{probability:.6f}", result.views, ""))
    return _csv(lines)


def timelines_csv(timelines: Mapping[str, Iterable[Segment]]) -> str:
    """Columns path, start, end, label, probability, silent, for the segments of each path; times in seconds."""
    lines: list[tuple[object, ...]] = [("path", "start", "end", "label", "probability", "silent")]
    for path, segments in timelines.items():
        for s in segments:
            silent = "silent" if s.silent else ""
            lines.append((path, f"{s.start:.3f}", f"{s.end:.3f}", s.label, f"{s.probability:.6f}", silent))
    return _csv(lines)


def _csv(lines: Iterable[Sequence[object]]) -> str:
    out = StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _reason(error: MediaError) -> str:
    return error.reason if error.time is None else f"at {error.time:.3f} s: {error.reason}"
