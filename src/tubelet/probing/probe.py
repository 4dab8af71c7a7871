"""Linear probes: how much a frozen encoder's features tell of a data set that is new to it (PolyViT Sec. 5.4)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tubelet.configs import ConfigError
from tubelet.data.manifest import Record
from tubelet.data.views import Views
from tubelet.evaluation.evaluate import key_of
from tubelet.models import Model
from tubelet.probing.data import ProbeData, read_examples
from tubelet.probing.encoder import find_trunk
from tubelet.probing.features import (
    CachedFeatures,
    cache_features,
    error_json,
    head_scores,
    mean_votes,
    neighbor_votes,
    score,
    train_head,
)
from tubelet.probing.results import Probe, ProbeRow
from tubelet.probing.settings import PAPER, ProbeOptions, settings_for
from tubelet.probing.training import FINAL, Linear, Plan, train_on_files
from tubelet.training.outcome import cards, write_json
from tubelet.training.parallel import init_distributed
from tubelet.training.run import initial_model
from tubelet.weights.folder import save_model

RESULTS = "probe.json"
ON_FILES, ON_FEATURES, KNN = "linear, trained on files", "linear, cached features", "k-NN"


def probe(
    source: str | Path,
    data: str | Path | ProbeData,
    out: str | Path,
    *,
    options: ProbeOptions = ProbeOptions(),
    progress: bool = True,
) -> Probe:
    """Train a new head on the frozen encoder of ``source`` (whatever ``load_model`` reads) and test it on ``data``.

    By default a training on the files with the paper's settings for the modality; ``options`` change them, or cache
    the features. Of several learning rates the best on validation examples is taken, and the head then trained on the
    whole training set (as Dosovitskiy et al. 2021, B.1.1; PolyViT does not say); the test split is read at the end
    alone. ``out`` gets the runs, a model in ``final`` that ``predict`` takes, and ``probe.json``; a probe by training
    that stands there goes on. Raises ConfigError, ManifestError, WeightsError, and what
    :func:`~tubelet.training.run.train` raises.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a probe runs as one process: start it without torchrun")
    examples = read_examples(data if isinstance(data, ProbeData) else ProbeData(path=str(data)))
    out = Path(out)
    plan = Plan(
        trunk=find_trunk(source, examples.modality, out / "converted", frames=options.frames, size=options.size),
        examples=examples,
        settings=settings_for(examples.modality, len(examples.train), options),
        options=options,
    )
    out.mkdir(parents=True, exist_ok=True)
    features = _Features(plan, progress)
    linear = _on_features(plan, features, out) if options.fast else train_on_files(plan, out, progress)
    rows = [_row(plan, ON_FEATURES if options.fast else ON_FILES, linear.result, linear.train, linear.choice.rate)]
    if options.fast or options.knn:
        rows.append(_row(plan, f"{KNN} (k = {options.neighbors})", _by_neighbors(plan, features), len(features.train)))
    found = Probe(
        source=str(source),
        rows=tuple(rows),
        settings=plan.settings.told(linear.train),
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
    """Every model probed on every data set, by their names.

    :func:`~tubelet.probing.results.comparison` makes a table like PolyViT's Table 3 of it.
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


@dataclass(frozen=True)
class _Features:
    """The features of a probe's examples, computed when they are first asked for, each once."""

    plan: Plan
    progress: bool

    @cached_property
    def train(self) -> CachedFeatures:
        return self._cache(self.plan.examples.train, Views(), "training")

    @cached_property
    def validation(self) -> CachedFeatures:
        """Of the data set's own validation split."""
        return self._cache(self.plan.examples.validation, self.plan.settings.views, "validation")

    @cached_property
    def test(self) -> CachedFeatures:
        return self._cache(self.plan.examples.test, self.plan.settings.views, "test")

    def _cache(self, records: Sequence[Record], views: Views, what: str) -> CachedFeatures:
        trunk, options = self.plan.trunk, self.plan.options
        with init_distributed() as ranks:
            trunk.encoder.to(ranks.device)
            return cache_features(
                trunk.encoder,
                {trunk.input: trunk.config.inputs[trunk.input]},
                records,
                self.plan.examples.objective,
                views,
                features_per_forward=options.features_per_forward,
                workers=options.workers,
                progress=f"features of the {what} examples" if self.progress else "",
            )


def _on_features(plan: Plan, features: _Features, out: Path) -> Linear:
    """Train a head on cached features; the model with it is written as ``final``."""
    name, metric = plan.examples.name, plan.examples.objective.metric
    known, device = features.train, next(plan.trunk.encoder.parameters()).device
    fresh = initial_model(plan.experiment(plan.settings.rates[0])).heads[name]

    def tried(rate: float, fit: Sequence[Record], validation: Sequence[Record]) -> float:
        head = train_head(fresh, known.of(map(key_of, fit)), plan.experiment(rate), device)
        own = bool(plan.examples.validation)
        chosen_by = features.validation if own else known.of(map(key_of, validation))
        return score(head_scores(head, chosen_by), chosen_by).metrics[metric]

    choice = plan.choose(tried)
    experiment = plan.experiment(choice.rate)
    head = train_head(fresh, known, experiment, device)
    result = score(head_scores(head, features.test), features.test).as_json()
    described = cards(experiment, {"tasks": {name: result}})
    provenance = {"probe": plan.trunk.source, "data": plan.examples.path, "method": ON_FEATURES, "rate": choice.rate}
    save_model(out / FINAL, Model(plan.trunk.encoder, {name: head}), plan.trunk.config, described, provenance)
    return Linear(choice=choice, result=result, train=len(known), lost=tuple(map(error_json, known.errors)))


def _by_neighbors(plan: Plan, features: _Features) -> Mapping[str, Any]:
    sizes = plan.examples.objective.sizes()
    votes = neighbor_votes(features.train, features.test, sizes, k=plan.options.neighbors)
    return score(votes, features.test, mean_votes).as_json()


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
    departs = plan.options.fast and PAPER[plan.examples.modality].augments
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
