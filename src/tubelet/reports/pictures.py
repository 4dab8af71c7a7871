"""Pictures of a training run and an evaluation, by matplotlib (extra ``demo``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tubelet.data.manifest import LABEL
from tubelet.evaluation.predictions import Scored
from tubelet.reports.verdict import Learning

ACCENT, SECOND = "#3b6fe0", "#e0803b"
INK = "#80808f"  # readable on white and on black; svg() turns it into the page's own color
_SHADES = LinearSegmentedColormap.from_list("shades", [(0.231, 0.435, 0.878, 0.0), (0.231, 0.435, 0.878, 1.0)])
_CELLS_WITH_NUMBERS, _CLASSES_WITH_NAMES = 16, 50
_STRETCHES = 160  # columns of a plan's picture
_DOTS = 2_000  # above which they are drawn as pixels
_FRAMES = 8  # width of a panel of kernels, at least
_LONGEST_NAME = 24  # characters


def confusion_picture(confusion: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Rows are the true classes, columns the answers; a cell's shade is its share of the row."""
    names = [plain_name(name) for name in names]
    classes = len(names)
    side = min(3.0 + 0.42 * classes, 9.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.pcolormesh(shares, cmap=_SHADES, vmin=0, vmax=1, rasterized=classes > _CLASSES_WITH_NAMES)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    if classes <= _CLASSES_WITH_NAMES:
        axes.set_xticks(np.arange(classes) + 0.5, names, rotation=45 if max(map(len, names)) > 2 else 0, ha="right")
        axes.set_yticks(np.arange(classes) + 0.5, names)
    if classes <= _CELLS_WITH_NUMBERS:
        for row, column in np.argwhere(confusion):
            color = "white" if shares[row, column] > 0.5 else INK
            place = (column + 0.5, row + 0.5)
            axes.annotate(str(confusion[row, column]), place, color=color, ha="center", va="center", fontsize=8)
    plain(axes)
    return figure


def numbers_picture(examples: Sequence[Scored], name: str) -> Figure:
    """The true number and the answer, a dot for each example; what is right lies on the diagonal."""
    truth = np.array([float(example.labels[name][0]) for example in examples])
    answers = np.array([example.numbers[name] for example in examples])
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    ends = [min(truth.min(), answers.min()), max(truth.max(), answers.max())]
    axes.plot(ends, ends, color=INK, linewidth=1)
    axes.plot(truth, answers, "o", color=ACCENT, alpha=0.4, markersize=4, rasterized=len(truth) > _DOTS)
    axes.set_xlabel("truth" if name == LABEL else f"truth: {name}")
    axes.set_ylabel("answer")
    axes.set_aspect("equal")
    plain(axes)
    return figure


def curves_picture(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """Training loss and learning rate over updates, from the lines of a run's ``log.jsonl``; a color per task."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss, rate = figure.subplots(1, 2)
    for of_task, color in _draw_loss(loss, lines):
        rates = [(line["step"], line["learning_rate"]) for line in of_task if "learning_rate" in line]
        if rates:
            rate.plot(*np.array(rates, dtype=float).T, color=color, linewidth=1.8)
    _panel(rate, "learning rate")
    return figure


def learning_picture(lines: Sequence[Mapping[str, Any]], learning: Learning) -> Figure:
    """The accuracy on validation files, with its standard error as a band and a dot at the step whose weights were
    kept, and the training loss over the same updates.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    accuracy, loss = figure.subplots(1, 2, sharex=True)
    share, band = 100 * np.array(learning.values), 100 * np.array(learning.errors)
    low, high = (share - band).clip(0), (share + band).clip(max=100)
    accuracy.fill_between(learning.steps, low, high, color=ACCENT, alpha=0.15, linewidth=0)
    accuracy.plot(learning.steps, share, color=ACCENT, linewidth=1.8)
    if learning.kept_score is not None:
        at = (learning.kept, 100 * learning.kept_score[0])
        side, shift = ("right", -7) if learning.kept > learning.steps[-1] / 2 else ("left", 7)
        accuracy.plot(*at, "o", color=SECOND, markersize=7)
        accuracy.annotate("kept", at, (shift, 8), textcoords="offset points", color=SECOND, fontsize=9, ha=side)
    _draw_loss(loss, lines)
    _panel(accuracy, "validation, %")
    accuracy.set_ylim(0, 105)
    accuracy.set_xlim(left=0)
    return figure


def _draw_loss(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> list[tuple[list[Mapping[str, Any]], str]]:
    """Draw each task's loss and return its lines and color."""
    tasks = sorted({line["task"] for line in lines if "loss" in line})
    drawn: list[tuple[list[Mapping[str, Any]], str]] = []
    for task, color in zip(tasks, _colors(len(tasks)), strict=True):
        of_task = [line for line in lines if line.get("task") == task and "loss" in line]
        steps, values = np.array([(line["step"], line["loss"]) for line in of_task], dtype=float).T
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
        axes.plot(steps, smooth(values, width=max(1, len(values) // 20)), color=color, linewidth=1.8, label=task)
        drawn.append((of_task, color))
    if len(tasks) > 1:
        axes.legend(frameon=False, labelcolor=INK)
    _panel(axes, "loss")
    return drawn


def _panel(axes: Axes, title: str) -> None:
    axes.set_title(title, color=INK, fontsize=10)
    _over_updates(axes)
    axes.set_ylim(bottom=0)
    axes.grid(color=INK, alpha=0.2, linewidth=0.6)


def plan_picture(plan: Sequence[str], minibatches: int = 1) -> Figure:
    """Which task trains when: a row per task, darker where it has more of the minibatches.

    ``minibatches``: the number of them in an update.
    """
    tasks = sorted(set(plan))
    edges = np.linspace(0, len(plan), min(len(plan), _STRETCHES) + 1)
    figure = Figure(figsize=(8, 0.9 + 0.28 * len(tasks)), layout="constrained")
    axes = figure.add_subplot()
    for row, (task, color) in enumerate(zip(tasks, _colors(len(tasks)), strict=True)):
        counts, _ = np.histogram([i for i, name in enumerate(plan) if name == task], edges)
        shades = LinearSegmentedColormap.from_list(task, [(*to_rgb(color), 0.0), (*to_rgb(color), 1.0)])
        shares = (counts / np.diff(edges))[None]
        axes.pcolormesh(edges / minibatches, [row + 0.06, row + 0.94], shares, cmap=shades, vmin=0, vmax=1)
    axes.set_yticks(np.arange(len(tasks)) + 0.5, tasks)
    axes.invert_yaxis()
    _over_updates(axes)
    return figure


def kernels_picture(kernels: Mapping[str, NDArray[np.float32]], rows: int = 12) -> Figure:
    """The principal components of the kernels of every tokenizer, a panel each (TubeViT Fig. 5); frames run to the
    right.

    ``kernels``: those of :func:`~tubelet.reports.kernels.learned_kernels`, at least one (D, t, h, w, C). The strongest
    component comes first, as in ViT's Fig. 7, so that what was learned stands out from the initial noise. Each is
    scaled by its largest weight; gray is zero. Short kernels have several columns of ``rows`` components.
    """
    columns = {name: max(1, _FRAMES // found.shape[1]) for name, found in kernels.items()}
    widths = [columns[name] * found.shape[1] for name, found in kernels.items()]
    size = (0.28 * sum(widths) + 0.3 * len(widths), 0.3 + 0.28 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(kernels), squeeze=False, width_ratios=widths)[0]
    for axes, (name, found) in zip(panels, kernels.items(), strict=True):
        axes.imshow(_tiles(_components(found)[: rows * columns[name]], rows), aspect="auto", interpolation="nearest")
        axes.set_title("x".join(map(str, found.shape[1:4])), fontsize=8, color=INK)
        axes.set_axis_off()
    return figure


def _components(kernels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The principal components of kernels (D, t, h, w, C). The largest weight of each is positive."""
    _, _, rows = np.linalg.svd(kernels.reshape(len(kernels), -1), full_matrices=False)
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1, keepdims=True), axis=1)
    return (rows * np.sign(largest)).reshape(-1, *kernels.shape[1:])


def _tiles(kernels: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """(height, width, RGBA): ``rows`` kernels below one another, then the next column, with gaps between. Two channels,
    as of optical flow, are red and green."""
    if kernels.shape[-1] == 2:
        kernels = np.concatenate([kernels, np.zeros_like(kernels[..., :1])], -1)
    largest = np.abs(kernels).max(axis=(1, 2, 3, 4), keepdims=True)
    colors = np.broadcast_to(0.5 + 0.5 * kernels / np.maximum(largest, 1e-12), (*kernels.shape[:4], 3))
    n, t, h, w, _ = colors.shape
    gap = max(1, w // 6)
    tall, wide = h + gap, t * (w + gap) + 2 * gap
    picture = np.zeros((rows * tall - gap, -(-n // rows) * wide - 3 * gap, 4), np.float32)
    for i, kernel in enumerate(colors):
        for frame, pixels in enumerate(kernel):
            y, x = i % rows * tall, i // rows * wide + frame * (w + gap)
            picture[y : y + h, x : x + w] = np.dstack([pixels, np.ones((h, w))])
    return picture


def _colors(count: int) -> list[str]:
    return [ACCENT, SECOND, "#2f9e78", "#a05cc9", *(f"C{i}" for i in range(4, count))][:count]


def _over_updates(axes: Axes) -> None:
    axes.set_xlabel("update")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    plain(axes)


def smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """A centered moving average over ``width`` values, or over fewer at the ends."""
    kernel = np.ones(width)
    return np.convolve(values, kernel, mode="same") / np.convolve(np.ones_like(values), kernel, mode="same")


def svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element for a page: no background, text in the font and color of the page."""
    out = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tubelet", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r"<svg[^>]*>", lambda tag: re.sub(r' (width|height)="[^"]*"', "", tag[0]), text, count=1)


def plain_name(name: str) -> str:
    """The name, shortened, without the dollar sign that would begin a formula."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    return short.replace("$", r"\$")


def plain(axes: Axes) -> None:
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
