"""What a model has learned, beside the same model before any training, as numbers for pictures (VATT Sec. 4.2.5-6)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from tubelet.configs import ConfigError, from_json, renamed, to_json
from tubelet.data.dataset import ViewSet
from tubelet.data.records import Records
from tubelet.data.views import Views
from tubelet.evaluation.run import choose, tasks_of_run, test_data
from tubelet.metrics import cosine
from tubelet.models import Model
from tubelet.reports.clips import Clips, look
from tubelet.training.experiment import Experiment
from tubelet.training.run import initial_model
from tubelet.weights.folder import load_model
from tubelet.weights.loaded import LoadedModel, build_model
from tubelet.writing import write_json

PICTURES, NUMBERS = "pictures", "pictures.json"
UNTRAINED, TRAINED = "untrained", "trained"
_FEWEST = 5  # clips of which a picture is drawn
_NEIGHBORS = 10
_RANDOM_PAIRS = 10_000
_POINTS = 201  # of a curve
_LED = 2.0  # times as active for one input as for any other: the unit is that input's

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Map:
    """Vectors of many numbers as points in the plane, by t-SNE: neighbors stay neighbors, distances are not to scale.

    ``of``: the inputs. ``clips``, ``inputs``: of each point, the place of its clip in :attr:`Learned.keys` and the
    input. ``perplexity``: about how many neighbors t-SNE looked at. ``near``: measured on the vectors themselves, not
    in the plane, by their cosine. Of features: the share of clips whose nearest has the same label. Of a common space:
    the share of other inputs among the 10 nearest of each vector. ``chance``: what ``near`` is without any order.
    """

    model: str
    of: tuple[str, ...]
    clips: tuple[int, ...]
    inputs: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    perplexity: float
    near: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class Similarities:
    """The cosines of true pairs, which are of one clip, and of random pairs, which are of two.

    ``true`` and ``random``: (cosine, density) of points of a curve, by kernel density estimation. ``above``: how often
    a true pair is more alike than a random one; 0.5 is chance.
    """

    model: str
    of: tuple[str, ...]
    pairs: int
    true: tuple[tuple[float, float], ...]
    random: tuple[tuple[float, float], ...]
    true_mean: float
    random_mean: float
    above: float


@dataclass(frozen=True, kw_only=True)
class Activations:
    """How active the units of a shared transformer are: by input and layer, the mean of ``|MLP(x)|`` of each unit.

    ``led``: of the units of the middle layer, how many are at least twice as active for one input as for any other, by
    that input; the others are shared.
    """

    model: str
    units: dict[str, tuple[tuple[float, ...], ...]]
    led: dict[str, int]

    @property
    def middle(self) -> int:
        """The middle layer, from 0."""
        return len(next(iter(self.units.values()))) // 2


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a model makes of some clips, before and after training.

    ``data`` and ``split``: where the clips come from; ``available``: how many there are; ``keys``: those that were
    used, of which the middle was looked at. ``labels``: theirs, "" for none; empty where no clip has one. ``notes``:
    what is missing, and why.
    """

    source: str
    task: str
    data: str
    split: str
    available: int
    seed: int
    keys: tuple[str, ...]
    labels: tuple[str, ...] = ()
    features: tuple[Map, ...] = ()
    spaces: tuple[Map, ...] = ()
    similarities: tuple[Similarities, ...] = ()
    activations: tuple[Activations, ...] = ()
    notes: tuple[str, ...] = ()

    def about(self) -> str:
        """What was used, in a sentence."""
        split = f"split {self.split!r} of " if self.split else ""
        said = f"{len(self.keys):,} of {self.available:,} clips of {split}{self.data}; seed {self.seed}"
        used = [one.perplexity for one in (*self.features, *self.spaces)]
        if not used:
            return said
        return f"{said}, perplexity {min(used):g}{f' to {max(used):g}' if max(used) > min(used) else ''}"

    def rows(self) -> list[tuple[str, str, str, str]]:
        """A table of what was measured: what, untrained, trained, chance."""
        found: list[tuple[str, str, str, str]] = []

        def add(what: str, before: float, after: float, chance: float) -> None:
            found.append((what, f"{before:.1%}", f"{after:.1%}", f"{chance:.1%}"))

        for a, b in _both(self.features):
            add(f"the nearest clip has the same label: {_and(a.of)}", a.near, b.near, a.chance)
        for a, b in _both(self.similarities):
            add(f"a true pair is more alike than a random one: {_and(a.of)}", a.above, b.above, 0.5)
        for a, b in _both(self.spaces):
            add(f"neighbors that are of the other input: {_and(a.of)}", a.near, b.near, a.chance)
        return found


def _both(found: Sequence[Any]) -> list[tuple[Any, Any]]:
    """What belongs together, before and after training."""
    after = {one.of: one for one in found if one.model == TRAINED}
    return [(one, after[one.of]) for one in found if one.model == UNTRAINED]


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def learn(
    source: str | Path,
    *,
    data: str = "",
    split: str = "",
    task: str = "",
    clips: int = 300,
    seed: int = 0,
    perplexity: float = 30.0,
    workers: int = 2,
    progress: bool = True,
) -> Learned:
    """Look at clips with a model and with the same model before any training.

    ``source``: a run, a model folder or ``hf:org/name``. The clips are those of the run's own test data, or of ``data``
    and ``split``: a random choice by ``seed``, if they are more than ``clips``. The untrained model has the weights
    from which the run's seed starts, or random ones by ``seed`` where the model does not say what trained it.
    ``perplexity`` is lowered to a third of the points where they are few. What a model or its data do not have is left
    out, and a note says so. Raises ConfigError, ManifestError, WeightsError, and ValueError where no clip can be read.
    """
    if clips < _FEWEST or perplexity < 1:
        raise ConfigError(f"{clips} clips, perplexity {perplexity:g}: give {_FEWEST} clips and 1 at least")
    loaded = load_model(source)
    names = choose(str(source), tuple(loaded.tasks), task, data)
    if len(names) > 1:
        raise ConfigError(f"{source}: pictures are of one task; say which of {', '.join(names)} (--task)")
    name = next(iter(names))
    card, run = loaded.tasks[name], tasks_of_run(source).get(name)
    test = test_data(name, card, loaded.model, run, str(source), data, split, Views())
    every = Records.of(test.records)
    records = every.at(np.sort(np.random.default_rng(seed).permutation(len(every))[:clips]))
    specs = {key: loaded.model.encoder.inputs[key] for key in test.inputs}
    videos = ViewSet(records, None, specs, may_miss=loaded.model.encoder.may_miss and len(specs) > 1)
    untrained, note = _untrained(loaded, seed)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    models = {UNTRAINED: untrained.to(device), TRAINED: loaded.model.to(device)}
    found = look(models, name, card, videos, workers=workers, progress=progress)
    return _measured(
        Learned(
            source=str(source),
            task=name,
            data=data or (run.source.path if run else ""),
            split=split or next(iter(every.codes("split").used), ""),
            available=len(every),
            seed=seed,
            keys=found.keys,
            labels=_labels(records, found.keys),
            notes=tuple(filter(None, [note, _unread(found)])),
        ),
        found,
        perplexity,
        progress,
    )


def write_learned(learned: Learned, folder: str | Path) -> list[Path]:
    """Write the numbers, ``pictures.json``, and a PNG of each picture, into a folder; returns their paths."""
    from tubelet.reports.learned_pictures import write_pngs  # matplotlib, of the extra "demo"

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NUMBERS, to_json(learned))
    return [*write_pngs(learned, folder), folder / NUMBERS]


def read_learned(folder: str | Path) -> Learned | None:
    """What :func:`write_learned` wrote; None if it wrote nothing there."""
    path = Path(folder, NUMBERS)
    return from_json(Learned, json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _untrained(loaded: LoadedModel, seed: int) -> tuple[Model, str]:
    """The model before any training, and a note if these are not the weights that its training began with."""
    experiment = loaded.provenance.get("experiment")
    with torch.random.fork_rng(devices=[]):
        if experiment is None:
            torch.manual_seed(seed)
            made = build_model(loaded.config, loaded.tasks)
            return made, "The model does not say what trained it: the untrained one has other random weights."
        began = from_json(Experiment, renamed(experiment))
        sources = " and ".join(init.source for init in began.init)
        note = f"The training began with weights of {sources}: the untrained model has random ones."
        return initial_model(began), note if sources else ""


def _labels(records: Records, keys: Sequence[str]) -> tuple[str, ...]:
    classes = records.classes()
    named = dict(zip(records.keys().to_pylist(), (classes.names[code] for code in classes.codes), strict=True))
    labels = tuple(named[key] for key in keys)
    return labels if any(labels) else ()


def _unread(found: Clips) -> str:
    of = len(found.keys) + len(found.errors)
    return f"{len(found.errors)} of {of} clips cannot be read; the first: {found.errors[0]}" if found.errors else ""


def _measured(learned: Learned, clips: Clips, perplexity: float, progress: bool) -> Learned:
    """With the maps, curves and activations of the clips."""
    notes, first = list(learned.notes), next(iter(clips.seen.values()))
    features, spaces, similarities = list[partial[Map]](), list[partial[Map]](), list[Similarities]()

    def enough(rows: Array, what: str) -> bool:
        if len(rows) < _FEWEST:
            notes.append(f"{len(rows)} clips have {what}: a picture takes {_FEWEST} at least.")
        return len(rows) >= _FEWEST

    labels = np.array(learned.labels)
    if not learned.labels:
        notes.append("No clip has a label: there is no picture of features by class.")
    for name in first.features if learned.labels else ():
        rows = np.flatnonzero(np.logical_and.reduce([labels != "", *(clips.present[i] for i in name.split(" and "))]))
        if enough(rows, f"{name} and a label"):
            features += [
                partial(
                    _class_map, model, name, rows, seen.features[name][rows], labels[rows], perplexity, learned.seed
                )
                for model, seen in clips.seen.items()
            ]
    for other in first.spaces:
        rows = np.flatnonzero(clips.present["video"] & clips.present[other])
        if enough(rows, f"video and {other}"):
            for model, seen in clips.seen.items():
                pair = [x[rows] for x in seen.spaces[other]]
                spaces.append(partial(_space_map, model, other, rows, pair, perplexity, learned.seed))
                similarities.append(similarities_of(model, other, pair, learned.seed))
    makers = [*features, *spaces]
    bar = track(makers, "drawing maps", console=Console(stderr=True), transient=True, disable=not progress)
    maps = tuple(make() for make in bar)
    return replace(
        learned,
        features=maps[: len(features)],
        spaces=maps[len(features) :],
        similarities=tuple(similarities),
        activations=tuple(
            _activations(model, seen.activations) for model, seen in clips.seen.items() if len(seen.activations) > 1
        ),
        notes=tuple(notes),
    )


def _class_map(model: str, name: str, rows: Array, x: Array, labels: Array, perplexity: float, seed: int) -> Map:
    unit = _unit(x)
    nearest = _nearest(unit, 1)[:, 0]
    _, counts = np.unique(labels, return_counts=True)
    chance = float((counts * (counts - 1)).sum() / (len(rows) * (len(rows) - 1)))
    near = float((labels[nearest] == labels).mean())
    of, inputs = tuple(name.split(" and ")), [name] * len(rows)
    return _map(unit, perplexity, seed, model=model, of=of, clips=rows, inputs=inputs, near=near, chance=chance)


def _space_map(model: str, other: str, rows: Array, pair: Sequence[Array], perplexity: float, seed: int) -> Map:
    unit = _unit(np.concatenate(pair))
    inputs = np.repeat(["video", other], len(rows))
    near = float((inputs[_nearest(unit, min(_NEIGHBORS, len(rows) - 1))] != inputs[:, None]).mean())
    chance = len(rows) / (2 * len(rows) - 1)
    clips, of = np.concatenate([rows, rows]), ("video", other)
    return _map(unit, perplexity, seed, model=model, of=of, clips=clips, inputs=inputs, near=near, chance=chance)


def _map(unit: Array, perplexity: float, seed: int, **about: Any) -> Map:
    from sklearn.manifold import TSNE  # a second of scikit-learn

    perplexity = min(perplexity, (len(unit) - 1) / 3)
    start = "pca" if unit.std(axis=0).any() else "random"
    points = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(unit)
    clips, inputs = (tuple(about.pop(name)) for name in ("clips", "inputs"))
    return Map(
        clips=tuple(map(int, clips)),
        inputs=tuple(map(str, inputs)),
        x=_rounded(points[:, 0]),
        y=_rounded(points[:, 1]),
        perplexity=round(perplexity, 1),
        **about,
    )


def similarities_of(model: str, other: str, pair: Sequence[Array], seed: int) -> Similarities:
    """Of the vectors (N, C) of N clips, of video and of the other input: row i of both is one clip."""
    cosines = cosine(*pair)
    own = np.eye(len(cosines), dtype=bool)
    true, random = cosines[own], cosines[~own]
    if len(random) > _RANDOM_PAIRS:
        random = np.random.default_rng(seed).choice(random, _RANDOM_PAIRS, replace=False)
    # The wider one by Scott's rule, for both: else the same values, fewer of them, would make another curve.
    width = max(1e-3, *(float(x.std()) * len(x) ** -0.2 for x in (true, random)))
    order = np.sort(random)
    below = np.searchsorted(order, true, "left") + np.searchsorted(order, true, "right")
    return Similarities(
        model=model,
        of=("video", other),
        pairs=len(true),
        true=_density(true, width),
        random=_density(random, width),
        true_mean=float(true.mean()),
        random_mean=float(random.mean()),
        above=float(below.mean() / 2 / len(random)),
    )


def _density(values: Array, width: float) -> tuple[tuple[float, float], ...]:
    """A curve (cosine, density): the mean of Gaussians of that width at the values."""
    at = np.linspace(values.min() - 3 * width, values.max() + 3 * width, _POINTS)
    bells = np.exp(-0.5 * ((at[:, None] - values[None]) / width) ** 2)
    return tuple(zip(_rounded(at), _rounded(bells.mean(1) / (width * np.sqrt(2 * np.pi))), strict=True))


def _activations(model: str, units: Mapping[str, Array]) -> Activations:
    middle = np.stack([x[len(x) // 2] for x in units.values()])
    least, most = np.sort(middle, axis=0)[-2:]
    owner = np.where(most >= _LED * least, middle.argmax(0), -1)
    return Activations(
        model=model,
        units={name: tuple(map(_rounded, x)) for name, x in units.items()},
        led={name: int((owner == i).sum()) for i, name in enumerate(units)},
    )


def _unit(x: Array) -> Array:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _nearest(x: Array, count: int) -> Array:
    """The places (N, count) of the nearest others."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=count).fit(x).kneighbors(return_distance=False)


def _rounded(x: Array) -> tuple[float, ...]:
    """To four digits, for a file that is read again."""
    return tuple(float(f"{value:.4g}") for value in x.tolist())
