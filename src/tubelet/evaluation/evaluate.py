"""A task's metrics as the papers measure them: several views of each video or sound, their logits averaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from tubelet.cards import TaskCard
from tubelet.cards.card import stacked
from tubelet.configs import name_of
from tubelet.data.dataset import VideoViews, ViewSet
from tubelet.data.loader import view_batches
from tubelet.data.manifest import Record
from tubelet.data.missing import masked
from tubelet.data.views import Views
from tubelet.evaluation.predictions import Scored
from tubelet.evaluation.results import TaskResult
from tubelet.inference.kinds import only_sound
from tubelet.inference.scoring import Precision, ViewLogits, evaluation_mode, forwards_needed, view_logits
from tubelet.media.errors import MediaError
from tubelet.models import Model
from tubelet.training.ranks import Ranks

_SHOWN = 5  # answers kept per example

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """What the model says of one example: outputs averaged over the views, those of one view, and the targets, by name.

    ``identical``: all its clips are the same. ``silent``: its sound is digital silence. ``missing``: the inputs that
    its file lacks.
    """

    mean: Arrays
    single: Arrays
    targets: Arrays
    identical: bool
    silent: bool
    missing: tuple[str, ...]


def evaluate_task(model: Model, task: str, card: TaskCard, videos: ViewSet, **options: Any) -> TaskResult:
    """Measure ``model`` on all of ``videos``; every rank returns the same result. ``options``: :func:`score_task`'s."""
    return task_result(task, card, videos, *score_task(model, task, card, videos, **options))


def score_task(
    model: Model,
    task: str,
    card: TaskCard,
    videos: ViewSet,
    *,
    views_per_forward: int = 12,
    precision: Precision = "float32",
    workers: int = 0,
    ranks: Ranks | None = None,
    progress: bool = False,
) -> tuple[dict[str, Row], dict[str, MediaError]]:
    """Score every example with ``model``; rows and errors by the examples' keys, the same on every rank.

    Logits, not probabilities, are averaged over the views, as the released code does. ``views_per_forward`` bounds the
    memory of a forward. An unreadable example is never replaced by another: it counts as expected but not scored, and
    is listed in ``errors``. An example that lacks one of several inputs (``videos.may_miss``) is scored with the
    others, and counted in ``warnings``. With several ranks, each reads its share, all run the same number of forwards,
    and the results are gathered and counted once per key.
    """
    ranks = ranks or Ranks(next(model.parameters()).device)
    rows: dict[str, Row] = {}
    errors: dict[str, MediaError] = {}
    read: list[VideoViews] = []  # given to the model, waiting for their logits

    def readable(advance: Callable[[], None]) -> Iterator[Mapping[str, Tensor]]:
        mine = videos.records[ranks.rank :: ranks.world_size]
        views = view_batches(videos, rank=ranks.rank, world=ranks.world_size, workers=workers)
        for record, example in zip(mine, views, strict=True):
            advance()
            if isinstance(example, MediaError):
                errors[key_of(record)] = example
            else:
                inputs = masked(example.inputs, videos.specs) if videos.may_miss else example.inputs
                read.append(replace(example, inputs=inputs))
                yield inputs

    share = -(-len(videos) // ranks.world_size)
    forwards = forwards_needed(share * len(videos.views), views_per_forward)
    with _progress(task, share, shown=progress and ranks.is_main) as advance, evaluation_mode(model, precision):
        inputs = readable(advance)
        for logits in view_logits(
            model, task, inputs, views_per_forward=views_per_forward, forwards=forwards, specs=videos.specs
        ):
            example = read.pop(0)
            rows[example.key] = _row(example, card, logits, videos.views)
    for other_rows, other_errors in _gathered((rows, errors), ranks):
        rows |= other_rows
        errors |= other_errors
    return rows, errors


def key_of(record: Record) -> str:
    return record.name


def _row(example: VideoViews, card: TaskCard, logits: ViewLogits, views: Views) -> Row:
    outputs = card.named(logits)
    middle = (views.clips - 1) // 2 * views.crops + views.crops // 2
    return Row(
        mean={name: x.mean(0).numpy() for name, x in outputs.items()},
        single={name: x[middle].numpy() for name, x in outputs.items()},
        targets=card.truth(example),
        identical=views.clips > 1 and all(_same_clips(x, views) for x in example.inputs.values()),
        silent=bool(example.silent),
        missing=example.missing,
    )


def _same_clips(x: Tensor, views: Views) -> bool:
    """Whether all clips (V = clips x crops, clip by clip) are the same."""
    clips = x.unflatten(0, (views.clips, views.crops))
    return all(torch.equal(clip, clips[0]) for clip in clips[1:])


def _gathered(mine: Any, ranks: Ranks) -> Iterable[Any]:
    if ranks.control is None:
        return [mine]
    everyone: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(everyone, mine, group=ranks.control)
    return everyone


def task_result(
    task: str, card: TaskCard, videos: ViewSet, rows: Mapping[str, Row], errors: Mapping[str, MediaError]
) -> TaskResult:
    """The metrics, tables and warnings of a task; ``rows`` and ``errors`` are by the examples' keys."""
    places = {key: place for place, key in enumerate(videos.records.keys().to_pylist())}
    keys = [key for key in places if key in rows]
    if not keys:
        first = next(iter(errors.values()), None)
        raise ValueError(f"task {task!r}: none of {len(places)} examples can be read; the first: {first}")
    mean, single, targets = (
        stacked([getattr(rows[key], part) for key in keys], card.names) for part in ("mean", "single", "targets")
    )
    return TaskResult(
        kind=name_of(type(card)) or type(card).__name__,
        metrics=card.measure(mean, targets),
        views=str(videos.views),
        single_view=card.measure(single, targets) if len(videos.views) > 1 else {},
        scored=len(keys),
        expected=len(places),
        errors=tuple(errors[key] for key in places if key in errors),
        inputs=tuple(videos.specs),
        warnings=_warnings(videos, [rows[key] for key in keys]),
        protocol=card.protocol(targets, str(videos.views)),
        tables=card.tables(mean, targets),
        examples=tuple(_scored(task, videos.records[places[key]], rows[key], card) for key in keys),
    )


def _warnings(videos: ViewSet, rows: Sequence[Row]) -> tuple[str, ...]:
    silent = sum(row.silent for row in rows)
    identical = sum(row.identical and not row.silent for row in rows)
    clips, sound = videos.views.clips, only_sound(videos.specs)
    found: list[str] = []
    if identical:
        same = f"the {clips} clips of {identical} of {len(rows)} " + (
            "sounds are the same (a sound no longer than a clip)"
            if sound
            else "videos show the same pixels (a video no longer than a clip, or without motion)"
        )
        found.append(f"{same}: more clips than one add nothing there")
    if silent:
        found.append(
            f"the sound of {silent} of {len(rows)} examples is digital silence: every sample is zero, and what is "
            "answered there was not heard"
        )
    for missing, count in Counter(row.missing for row in rows if row.missing).items():
        left = " and ".join(name for name in videos.specs if name not in missing)
        found.append(f"{count} of {len(rows)} examples have no {' and no '.join(missing)}: answered by {left} alone")
    return tuple(found)


def _scored(task: str, record: Record, row: Row, card: TaskCard) -> Scored:
    said = card.answers(row.mean, _SHOWN)
    return Scored(
        task=task,
        key=key_of(record),
        path=record.path,
        start=record.start,
        end=record.end,
        labels={name: record.labels[name] for name in card.label_sets},
        top=said.sets,
        numbers=said.numbers,
    )


@contextmanager
def _progress(task: str, videos: int, shown: bool) -> Generator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as bar:
        line = bar.add_task(f"evaluating {task}", total=videos)
        yield lambda: bar.advance(line)
