"""The logits of every view of many videos, in forwards of a bounded number of views."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from tubelet.data.readers import reader_of
from tubelet.hardware import require_bfloat16
from tubelet.models import Model
from tubelet.specs import InputSpec

Precision = Literal["float32", "bfloat16"]
Inputs = Mapping[str, Tensor]
ViewLogits = dict[str, Tensor]
"""(V, K) float32 logits of one video's views, by label set; the only one of a task is "label"."""


@contextmanager
def evaluation_mode(module: nn.Module, precision: Precision) -> Generator[None]:
    """Evaluation mode, no gradients, matrix products in ``precision``; the module's own mode comes back at the end."""
    training, device = module.training, next(module.parameters()).device
    if precision == "bfloat16" and device.type == "cpu":
        require_bfloat16()
    module.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        module.train(training)


def view_logits(
    model: Model,
    task: str,
    videos: Iterable[Inputs],
    *,
    views_per_forward: int,
    forwards: int = 0,
    specs: Mapping[str, InputSpec] | None = None,
) -> Iterator[ViewLogits]:
    """The logits of each video's views, in the order of ``videos``, whose inputs are (V, ...), with the same V for all.

    Views of one video and of the next share a forward, so that no forward has more than ``views_per_forward`` and all
    but the last have as many. With several ranks, where collectives must match, ``forwards`` is the number that every
    rank runs: blanks of ``specs``, the task's inputs (all of the encoder's if None), fill it up, and their logits are
    thrown away.
    """
    if views_per_forward < 1:
        raise ValueError(f"{views_per_forward=} must be at least 1")
    device = next(model.parameters()).device
    waiting: list[Inputs] = []
    sizes: list[int] = []
    done: list[ViewLogits] = []
    run = 0
    for inputs in videos:
        waiting.append(inputs)
        sizes.append(views_in(inputs))
        while sum(map(views_in, waiting)) >= views_per_forward:
            now, waiting = _split(waiting, views_per_forward)
            done.append(_forward(model, task, now, device))
            run += 1
            yield from _complete(done, sizes)
    if waiting:
        done.append(_forward(model, task, _joined(waiting), device))
        run += 1
        yield from _complete(done, sizes)
    blanks = {
        name: reader_of(spec).blank() for name, spec in (model.encoder.inputs if specs is None else specs).items()
    }
    for _ in range(forwards - run):
        _forward(model, task, blanks, device)


def forwards_needed(views: int, views_per_forward: int) -> int:
    """How many forwards :func:`view_logits` runs for so many views."""
    return -(-views // views_per_forward)


def views_in(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def by_set(logits: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a head returns, by label set."""
    return dict(logits) if isinstance(logits, Mapping) else {"label": logits}


def _forward(model: Model, task: str, inputs: Inputs, device: torch.device) -> ViewLogits:
    on_device = model.preprocess({name: x.to(device, non_blocking=True) for name, x in inputs.items()})
    return {name: x.float().cpu() for name, x in by_set(model(on_device, task)).items()}


def _complete(done: list[ViewLogits], sizes: list[int]) -> Iterator[ViewLogits]:
    """Take the videos off ``done`` whose views are all there; what is left of the next one stays."""
    rows = {name: torch.cat([part[name] for part in done]) for name in done[0]}
    start, total = 0, views_in(rows)
    while sizes and start + sizes[0] <= total:
        end = start + sizes.pop(0)
        yield {name: x[start:end] for name, x in rows.items()}
        start = end
    done[:] = [{name: x[start:] for name, x in rows.items()}] if start < total else []


def _joined(waiting: list[Inputs]) -> dict[str, Tensor]:
    return {name: torch.cat([inputs[name] for inputs in waiting]) for name in waiting[0]}


def _split(waiting: list[Inputs], views: int) -> tuple[dict[str, Tensor], list[Inputs]]:
    """The first ``views`` views together, and the rest."""
    together = _joined(waiting)
    rest = {name: x[views:] for name, x in together.items()}
    return {name: x[:views] for name, x in together.items()}, [rest] if views_in(rest) else []
