"""Pictures of what a model has learned, by matplotlib: maps, similarities, units (VATT Sec. 4.2.5-6).

The colors are those of Okabe and Ito, which color-blind people tell apart; shapes and dashes say the same again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from tubelet.reports.learned import TRAINED, UNTRAINED, Activations, Learned, Map
from tubelet.reports.pictures import INK, plain, plain_name

_COLORS = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
_SHAPES = "o", "^", "s", "D"
_CLASSES = 12  # of which each has a color and a shape of its own
_DARK = "#30313a"  # text on white
_DOTS = 2_000  # above which they are drawn as pixels
_MODELS = UNTRAINED, TRAINED
_SHADES = LinearSegmentedColormap.from_list("active", [(0.0, 0.447, 0.698, 0.0), (0.0, 0.447, 0.698, 1.0)])

CLASSES, INPUTS, PAIRS, UNITS = "classes", "inputs", "pairs", "units"
TITLES = {
    CLASSES: "Features by class, by t-SNE",
    INPUTS: "Common spaces by input, by t-SNE",
    PAIRS: "Similarity of true pairs and of random pairs",
    UNITS: "Units of the shared transformer",
}
_NOT_TO_SCALE = "t-SNE keeps neighbors together: distances and the sizes of clusters are not to scale."
CAPTIONS = {
    CLASSES: f"A point is the features of a clip, its color and shape the label. {_NOT_TO_SCALE} The share is measured "
    "on the features themselves.",
    INPUTS: f"A point is the vector of what is seen, heard or said in a clip, in the space in which it is compared. "
    f"{_NOT_TO_SCALE} The share is measured among the ten nearest vectors in the space itself.",
    PAIRS: "How alike two vectors are that belong to one clip, and two of different clips. The less the "
    "curves overlap, the more surely one finds the other. Vertical lines: means.",
    UNITS: "Mean size of what the units of the MLPs add to the tokens of each input, by layer. Below, the units of the "
    "middle layer: first those that one input leads, which are at least twice as active for it as for any other.",
}


def draw_learned(learned: Learned) -> dict[str, Figure]:
    """The pictures for which there is something to draw, by name."""
    drawn: dict[str, tuple[Sequence[Any], Callable[[Learned], Figure]]] = {
        CLASSES: (learned.features, classes_picture),
        INPUTS: (learned.spaces, inputs_picture),
        PAIRS: (learned.similarities, pairs_picture),
        UNITS: (learned.activations, units_picture),
    }
    return {name: draw(learned) for name, (found, draw) in drawn.items() if found}


def write_pngs(learned: Learned, folder: Path) -> list[Path]:
    """Each picture on white, under its title and what was used, above how to read it; returns the files' paths."""
    paths: list[Path] = []
    for name, figure in draw_learned(learned).items():
        width = figure.get_figwidth()
        about = _wrapped(f"{learned.source}: {learned.about()}", width)
        figure.suptitle(f"{TITLES[name]}\n{about}", fontsize=10, ha="left", x=0.01)
        figure.supxlabel(_wrapped(CAPTIONS[name], width), fontsize=8, ha="left", x=0.01)
        for text in figure.findobj(Text):
            text.set(color=_DARK)
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=150, facecolor="white")
    return paths


def _wrapped(text: str, inches: float) -> str:
    return fill(text, round(inches * 13)).replace("$", r"\$")


def classes_picture(learned: Learned) -> Figure:
    """t-SNE of the features by class: a row for each input, untrained and trained side by side."""
    labels = np.array(learned.labels)
    counts = Counter(label for label in learned.labels if label)
    named = sorted([label for label, _ in counts.most_common(_CLASSES)])
    figure, rows = _grid(learned.features, 3.2)
    for panels, maps in rows:
        for axes, one in zip(panels, maps, strict=True):
            x, y, own = np.array(one.x), np.array(one.y), labels[list(one.clips)]
            others = ~np.isin(own, named)
            _dots(axes, x[others], y[others], INK, "o", 0.35, len(x))
            for i, name in enumerate(named):
                _dots(axes, x[own == name], y[own == name], *_look_of(i), 0.8, len(x))
            _map_panel(axes, one, f"{len(x):,} clips", "nearest clip of the same class")
    others = len(counts) - len(named)
    more = [(f"{others} others", INK, "o")] if others else []
    _legend(figure, [*((plain_name(name), *_look_of(i)) for i, name in enumerate(named)), *more])
    return figure


def inputs_picture(learned: Learned) -> Figure:
    """t-SNE of the common spaces: a row for each pair of inputs, untrained and trained side by side."""
    figure, rows = _grid(learned.spaces, 3.2)
    for panels, maps in rows:
        for axes, one in zip(panels, maps, strict=True):
            x, y, own = np.array(one.x), np.array(one.y), np.array(one.inputs)
            for name in one.of:
                _dots(axes, x[own == name], y[own == name], *_look_of_input(name), 0.6, len(x))
            _map_panel(axes, one, f"{len(set(one.clips)):,} clips", "neighbors of the other input")
    seen = [name for name in _INPUTS if any(name in one.of for one in learned.spaces)]
    _legend(figure, [(name, *_look_of_input(name)) for name in seen])
    return figure


def pairs_picture(learned: Learned) -> Figure:
    """Densities of the similarities of true and of random pairs, untrained and trained side by side."""
    figure, rows = _grid(learned.similarities, 2.6, sharex="row")
    for panels, found in rows:
        for axes, one in zip(panels, found, strict=True):
            curves = (("true pairs", one.true, one.true_mean, "-"), ("random pairs", one.random, one.random_mean, "--"))
            for (name, curve, mean, dashes), color in zip(curves, _COLORS, strict=False):
                x, y = np.array(curve).T
                axes.fill_between(x, y, color=color, alpha=0.15, linewidth=0)
                axes.plot(x, y, dashes, color=color, linewidth=1.8, label=name)
                axes.axvline(mean, color=color, linestyle=dashes, linewidth=1)
            axes.set_ylim(bottom=0)
            axes.set_yticks([])
            axes.set_xlabel("similarity (cosine)", fontsize=9)
            axes.set_ylabel("density", fontsize=9)
            how = f"true pair more alike than random: {one.above:.0%}; chance 50%"
            axes.set_title(f"{_of(one)}, {one.pairs:,} clips\n{how}", color=INK, fontsize=9)
            plain(axes)
    _curves_legend(figure, rows[0][0][0])
    return figure


def units_picture(learned: Learned) -> Figure:
    """The activation of every layer by input, and of the middle layer's units, untrained and trained."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    above, below = figure.subplots(2, len(learned.activations), squeeze=False, sharey="row", height_ratios=(3, 2))
    every = [np.array(x) for one in learned.activations for x in one.units.values()]
    top, most = max(x.mean(1).max() for x in every), max(float(x[len(x) // 2].max()) for x in every)
    for layers, middle, one in zip(above, below, learned.activations, strict=True):
        for name, units in one.units.items():
            color, shape = _look_of_input(name)
            layers.plot(
                np.arange(1, len(units) + 1),
                np.mean(units, axis=1),
                color=color,
                marker=shape,
                label=name,
                clip_on=False,
            )
        layers.set_title(one.model, color=INK, fontsize=9)
        layers.set_xlabel("layer", fontsize=9)
        layers.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        layers.set_ylim(0, 1.05 * top)
        layers.grid(color=INK, alpha=0.2, linewidth=0.6)
        plain(layers)
        _middle(middle, one, most)
    above[0].set_ylabel("mean activation", fontsize=9)
    bar = figure.colorbar(below[-1].collections[0], ax=list(below), pad=0.01)
    bar.set_label("mean activation", color=INK, fontsize=8)
    bar.ax.tick_params(colors=INK, labelsize=8, length=0)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    _curves_legend(figure, above[0])
    return figure


def _middle(axes: Axes, one: Activations, most: float) -> None:
    """The units of the middle layer, a row for each input; those that are led by one come first, the surest first."""
    units = np.stack([np.array(x[one.middle]) for x in one.units.values()])
    second, first = np.sort(units, axis=0)[-2:]
    order = np.lexsort((-first / np.maximum(second, 1e-12), units.argmax(0), first < 2 * second))
    axes.pcolormesh(units[:, order], cmap=_SHADES, vmin=0, vmax=most, rasterized=True)
    axes.set_yticks(np.arange(len(units)) + 0.5, list(one.units))
    axes.set_ylim(len(units), 0)
    led = ", ".join(f"{name} {count}" for name, count in one.led.items())
    shared = units.shape[1] - sum(one.led.values())
    axes.set_title(f"layer {one.middle + 1}: units led by {led}; shared {shared}", color=INK, fontsize=8)
    axes.set_xlabel("unit, sorted", fontsize=9)
    plain(axes)


_INPUTS = "video", "image", "audio", "text"


def _look_of(i: int) -> tuple[str, str]:
    return _COLORS[i % len(_COLORS)], _SHAPES[i % len(_SHAPES)]


def _look_of_input(name: str) -> tuple[str, str]:
    place = {"video": 0, "image": 0, "audio": 1, "text": 2}.get(name, 3)
    return _COLORS[place], _SHAPES[place]


def _grid(found: Sequence[Any], height: float, **shared: Any) -> tuple[Figure, list[tuple[Any, list[Any]]]]:
    """A figure of a row for each of what is shown, a column for each model; the rows' panels and what is in them."""
    of = list(dict.fromkeys(one.of for one in found))
    figure = Figure(figsize=(9, height * len(of) + 0.2), layout="constrained")
    panels = figure.subplots(len(of), len(_MODELS), squeeze=False, **shared)
    by = {(one.of, one.model): one for one in found}
    return figure, [(row, [by[which, model] for model in _MODELS]) for row, which in zip(panels, of, strict=True)]


def _of(one: Any) -> str:
    return f"{' and '.join(one.of)}, {one.model}"


def _dots(axes: Axes, x: Any, y: Any, color: str, shape: str, alpha: float, of: int) -> None:
    size = 5 if of < 300 else 3.5
    axes.plot(
        x, y, shape, color=color, alpha=alpha, markersize=size, markeredgewidth=0, linestyle="", rasterized=of > _DOTS
    )


def _map_panel(axes: Axes, one: Map, count: str, share: str) -> None:
    axes.set_title(f"{_of(one)}, {count}\n{share}: {one.near:.0%}; chance {one.chance:.0%}", color=INK, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_box_aspect(0.72)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_alpha(0.4)


def _curves_legend(figure: Figure, axes: Axes) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, labelcolor=INK, fontsize=9
    )


def _legend(figure: Figure, entries: Sequence[tuple[str, str, str]]) -> None:
    handles = [
        Line2D([], [], color=color, marker=shape, linestyle="", markeredgewidth=0, label=name)
        for name, color, shape in entries
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, labelcolor=INK, fontsize=9)
