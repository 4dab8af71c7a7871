"""Linear probes: how much a frozen encoder's features tell of a data set that is new to it (PolyViT Sec. 5.4)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from tubelet.configs import ConfigError
from tubelet.data.kinds import Kind
from tubelet.probing.data import ProbeData, read_examples
from tubelet.probing.encoder import find_trunk
from tubelet.probing.features import ProbeFeatures, classify_by_neighbors, train_on_features
from tubelet.probing.training import (
    KNN,
    LEAST_SQUARES,
    METHODS,
    ON_FILES,
    PAPER,
    SVM,
    Linear,
    Plan,
    ProbeOptions,
    settings_for,
    train_on_files,
)
from tubelet.writing import write_json

RESULTS = "probe.json"
METRICS = {"top1": "top-1", "map": "mAP", "action_top1": "action top-1"}
COLUMNS = ("dataset", "modality", "method", "rate", "metric", "value", "views", "train", "test: scored")


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """One result and how it was measured.

    ``method``: such as "linear, trained on files" or "SVM, cached features (C = 0.001)". ``learning_rate``: None for
    k-NN, the SVM and least squares.
    ``metric``: the one of ``metrics`` (fractions in [0, 1]) that is reported first. ``train``: training examples, those
    that could not be read left out; ``scored`` of ``expected`` test examples.
    """

    dataset: str
    modality: Kind
    method: str
    learning_rate: float | None
    metric: str
    metrics: dict[str, float]
    views: str
    scored: int
    expected: int
    train: int

    @property
    def value(self) -> float:
        return self.metrics[self.metric]

    def cells(self) -> tuple[str, ...]:
        """The row as text, for :data:`COLUMNS`."""
        rate = "-" if self.learning_rate is None else f"{self.learning_rate:g}"
        value = f"{self.value:.1%}"
        sizes = f"{self.train:,}", f"{self.scored:,} / {self.expected:,}"
        return self.dataset, self.modality, self.method, rate, METRICS[self.metric], value, self.views, *sizes


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A model probed on a data set.

    ``settings``: how it was trained, a sentence. ``validation``: what every learning rate reached on the validation
    examples, where there was a choice. ``notes``: how to read the numbers, such as how the model was converted.
    ``unreadable``: split, path, time and reason of each file that could not be read; no other file took its place.
    """

    source: str
    rows: tuple[ProbeRow, ...]
    settings: str
    validation: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unreadable: tuple[dict[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def probe(
    source: str | Path,
    data: str | Path | ProbeData,
    out: str | Path,
    *,
    options: ProbeOptions = ProbeOptions(),
    progress: bool = True,
) -> Probe:
    """Train a new head on the frozen encoder of ``source`` (whatever ``load_model`` reads) and test it on ``data``.

    By default the head is trained on the files with PolyViT's settings for the modality; ``options`` change them, cache
    the features, or choose another classifier. Of several learning rates the best on validation examples is taken;
    the head is then trained on the whole training set (as Dosovitskiy et al. 2021, B.1.1; PolyViT does not say). The
    test split is read only at the end. ``out`` gets the runs, a model in ``final`` that ``predict`` takes, and
    ``probe.json``; an unfinished probe by training in ``out`` is resumed. Raises ConfigError, ManifestError,
    WeightsError, and what
    :func:`~tubelet.training.run.train` raises.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a probe runs as one process: start it without torchrun")
    examples = read_examples(data if isinstance(data, ProbeData) else ProbeData(path=str(data)))
    if options.classifier == "few-shot":
        examples = examples.few(options.shots_of_each, options.seed)
    out = Path(out)
    plan = Plan(
        trunk=find_trunk(source, examples.modality, out / "converted", frames=options.frames, size=options.size),
        examples=examples,
        settings=settings_for(examples.modality, len(examples.train), options),
        options=options,
    )
    out.mkdir(parents=True, exist_ok=True)
    features = ProbeFeatures(plan, progress)
    linear = train_on_features(plan, features, out) if options.on_features else train_on_files(plan, out, progress)
    method, rate = METHODS[options.classifier] if options.on_features else ON_FILES, linear.choice.rate
    if method == SVM:
        rows = [_row(plan, f"{method} (C = {rate:g})", linear.result, linear.train)]
    elif method == LEAST_SQUARES:
        rows = [_row(plan, f"{options.shots_of_each}-shot {method} (penalty = {rate:g})", linear.result, linear.train)]
    else:
        rows = [_row(plan, method, linear.result, linear.train, rate)]
    if options.fast or options.knn:
        rows.append(
            _row(plan, f"{KNN} (k = {options.neighbors})", classify_by_neighbors(plan, features), len(features.train))
        )
    found = Probe(
        source=str(source),
        rows=tuple(rows),
        settings=plan.describe(linear.train),
        validation=linear.choice.scores,
        notes=_notes(plan, linear),
        unreadable=(
            *({"split": "train", **error} for error in linear.lost),
            *({"split": examples.test_split, **error} for error in linear.result["errors"]),
        ),
    )
    write_json(out / RESULTS, found.as_json())
    return found


def probes(
    sources: Mapping[str, str | Path],
    datasets: Mapping[str, str | Path | ProbeData],
    out: str | Path,
    *,
    options: ProbeOptions = ProbeOptions(),
    progress: bool = True,
) -> dict[str, dict[str, Probe]]:
    """Probe every model on every data set; the results by model and data set.

    :func:`comparison` makes a table like PolyViT's Table 3 of them.
    """
    return {
        model: {
            name: probe(source, _named(data, name), Path(out, model, name), options=options, progress=progress)
            for name, data in datasets.items()
        }
        for model, source in sources.items()
    }


def _named(data: str | Path | ProbeData, name: str) -> ProbeData:
    return replace(data, name=name) if isinstance(data, ProbeData) else ProbeData(path=str(data), name=name)


def comparison(probes: Mapping[str, Mapping[str, Probe]]) -> Table:
    """Models down, data sets across, images, video and audio in turn: the form of PolyViT's Table 3, in per cent."""
    order = ("image", "video", "audio")
    rows = {
        (model, row.method, name): row
        for model, by_name in probes.items()
        for name, probe in by_name.items()
        for row in probe.rows
    }
    modalities = {name: row.modality for (_, _, name), row in rows.items()}
    names = sorted(modalities, key=lambda name: order.index(modalities[name]))
    table = Table("model", "method", box=None, pad_edge=False)
    for name in names:
        table.add_column(f"{name}\n({modalities[name]})", justify="right")
    for model, method in dict.fromkeys((model, method) for model, method, _ in rows):
        found = [rows.get((model, method, name)) for name in names]
        table.add_row(model, method, *(f"{100 * row.value:.1f}" if row else "-" for row in found))
    return table


def _row(plan: Plan, method: str, result: Mapping[str, Any], train: int, rate: float | None = None) -> ProbeRow:
    return ProbeRow(
        dataset=plan.examples.name,
        modality=plan.examples.modality,
        method=method,
        learning_rate=rate,
        metric=plan.examples.objective.metric,
        metrics=dict(result["metrics"]),
        views=result["views"],
        scored=result["coverage"]["scored"],
        expected=result["coverage"]["expected"],
        train=train,
    )


def _notes(plan: Plan, linear: Linear) -> tuple[str, ...]:
    linear_on_features = plan.options.fast and plan.options.classifier == "linear"
    departs = linear_on_features and PAPER[plan.examples.modality].augments
    notes = [
        *plan.examples.notes,
        plan.trunk.note,
        linear.choice.note,
        *linear.result["warnings"],
        f"a departure from the paper, which augments {plan.examples.modality}: no augmentation, and one view of each "
        "training example, for its features are computed once"
        if departs
        else "",
    ]
    return tuple(note for note in notes if note)
