"""How a head is trained on a frozen encoder, with PolyViT's settings (Sec. 5.4, Appendices A and D), and k-NN.

A probe trains on the files, as the paper does, or on cached features. Where training does not augment (images), both
give the same head up to rounding: the same minibatches, learning rates and first weights. For videos and sounds, which
the paper augments, cached features are a departure: every training example is seen in one view.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.data.augment import Augmentation
from tubelet.data.batch import Batch
from tubelet.data.kinds import Kind
from tubelet.data.manifest import Record, write_manifest
from tubelet.data.stream import Stream, slots
from tubelet.data.views import Views
from tubelet.evaluation.evaluate import key_of
from tubelet.evaluation.results import TaskResult
from tubelet.evaluation.run import evaluator
from tubelet.inference.scoring import by_set
from tubelet.metrics import measure
from tubelet.models.model import Encoder, Inputs, Model
from tubelet.nn.features import Features
from tubelet.nn.heads import HeadInit
from tubelet.probing.data import TRAIN, ProbeExamples, absolute
from tubelet.probing.encoder import FEATURES, CachedFeatures, Trunk, cache_features, rows_of
from tubelet.training.experiment import SGD, Experiment, Length, Source, Task, Training
from tubelet.training.loop import Loop
from tubelet.training.objectives import Mixup, Objective
from tubelet.training.optimizers import build_optimizer
from tubelet.training.outcome import cards
from tubelet.training.ranks import Ranks, init_distributed
from tubelet.training.run import CHECKPOINTS, initial_model, train
from tubelet.training.schedules import learning_rate
from tubelet.training.unreadable import QUARANTINE
from tubelet.weights.folder import save_model
from tubelet.weights.transfer import Init

FINAL = "final"
ON_FILES, ON_FEATURES, KNN = "linear, trained on files", "linear, cached features", "k-NN"
_CHOOSING, _FIT, _VALIDATION = "choosing.jsonl", "fit", "validation"
_LEAST_BATCH, _MINIBATCHES = 8, 16  # of video and audio: a pass over few examples has this many minibatches
_QUERIES = 1024  # test features compared with the training features at a time


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What you may change about a probe. 0 and empty mean the paper's value, see :func:`settings_for`.

    ``fast``: compute the features once and fit a linear classifier and k-NN to them, instead of training on the files.
    ``knn``: run k-NN after training on the files, too. ``rates``: learning rates; of several, the one with the best
    validation score is taken. ``validation``: the share of the training examples that is held out for that choice.
    ``augment``: whether videos and sounds are augmented in training on files. ``neighbors``: the k of k-NN. ``frames``
    and ``size`` (pixels): those of the new input, if the model is converted to another kind of media.
    ``features_per_forward``: views in one forward, which bounds its memory.
    """

    fast: bool = False
    knn: bool = False
    steps: int = 0
    batch_size: int = 0
    rates: tuple[float, ...] = ()
    views: Views | None = None
    augment: bool = True
    validation: float = 0.02
    neighbors: int = 20
    frames: int = 0
    size: int = 0
    seed: int = 0
    workers: int = 2
    features_per_forward: int = 12

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "frames", "size", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if any(rate <= 0 for rate in self.rates):
            raise ValueError(f"rates={self.rates}: learning rates must be above 0")
        if not 0 < self.validation < 1:
            raise ValueError(f"{self.validation=} must be a share between 0 and 1")
        if self.neighbors < 1:
            raise ValueError(f"{self.neighbors=} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The hyper-parameters of a probe's training. ``warmup`` is part of ``length``."""

    length: Length
    warmup: Length
    batch_size: int
    rates: tuple[float, ...]
    head_init: HeadInit
    augment: Augmentation
    mixup: Mixup
    views: Views

    @property
    def augments(self) -> bool:
        return self.augment != Augmentation.none() or self.mixup != Mixup()

    def describe(self, examples: int) -> str:
        """The settings for so many training examples, in a sentence."""
        updates = self.length.resolve(examples, self.batch_size)
        warmup = self.warmup.resolve(examples, self.batch_size)
        return (
            f"{updates:,} updates ({warmup:,} of warm-up, then a cosine) in minibatches of {self.batch_size}, SGD with "
            f"momentum 0.9, head of {'zeros' if self.head_init == 'zeros' else 'LeCun normal weights'}, "
            f"{'the augmentation of training' if self.augments else 'no augmentation'}"
        )


# Table 9; batch sizes of Table 7. Video has the rate, length and augmentation of Kinetics (Arnab et al. 2021), audio
# those of VGGSound (Nagrani et al. 2021) with mixup 0.3 (Appendix A). The frozen trunk has no stochastic depth.
PAPER: dict[Kind, Settings] = {
    "image": Settings(
        length=Length(steps=2500),
        warmup=Length(steps=200),
        batch_size=512,
        rates=(0.03, 0.1, 0.3),
        head_init="lecun",
        augment=Augmentation.none(),
        mixup=Mixup(),
        views=Views(),
    ),
    "video": Settings(
        length=Length(epochs=30),
        warmup=Length(epochs=2.5),
        batch_size=64,
        rates=(0.1,),
        head_init="zeros",
        augment=Augmentation(),
        mixup=Mixup(),
        views=Views(clips=4, crops=3),
    ),
    "audio": Settings(
        length=Length(epochs=30),
        warmup=Length(epochs=2.5),
        batch_size=64,
        rates=(0.5,),
        head_init="zeros",
        augment=Augmentation(),
        mixup=Mixup(alpha=0.3),
        views=Views(clips=4),
    ),
}


def settings_for(modality: Kind, examples: int, options: ProbeOptions = ProbeOptions()) -> Settings:
    """The paper's settings for ``modality``, fitted to a training set of ``examples`` and changed as ``options`` say.

    A minibatch has the paper's size, or less where that is too large for the data: at most all examples, and of videos
    and sounds a sixteenth of them (8 at least), so that few examples still give enough updates. Fast probes do not
    augment.
    """
    paper = PAPER[modality]
    made = replace(
        paper,
        batch_size=min(options.batch_size or _batch_size(modality, examples), examples),
        rates=options.rates or paper.rates,
        views=options.views or paper.views,
    )
    if options.steps:
        share = paper.warmup.steps / paper.length.steps if modality == "image" else 2.5 / 30
        made = replace(made, length=Length(steps=options.steps), warmup=Length(steps=round(share * options.steps)))
    if options.fast or not options.augment:
        made = replace(made, augment=Augmentation.none(), mixup=Mixup())
    return made


def _batch_size(modality: Kind, examples: int) -> int:
    most = PAPER[modality].batch_size
    return most if modality == "image" else min(most, max(_LEAST_BATCH, examples // _MINIBATCHES))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A frozen encoder, a data set, and how a head is trained on them."""

    trunk: Trunk
    examples: ProbeExamples
    settings: Settings
    options: ProbeOptions

    def experiment(self, rate: float, source: Source | None = None) -> Experiment:
        """The training of the head at a learning rate; on the data set's own splits, unless ``source`` is given."""
        examples, settings = self.examples, self.settings
        task = Task(
            source=source or Source(path=examples.path, train=TRAIN, test=examples.test_split),
            objective=replace(examples.objective, head_init=settings.head_init, mixup=settings.mixup),
            inputs=(self.trunk.input,),
            augment=settings.augment,
            batch_size=settings.batch_size,
            length=settings.length,
            warmup=settings.warmup,
            learning_rate=rate,
            views=settings.views,
        )
        return Experiment(
            model=self.trunk.config,
            tasks={examples.name: task},
            optimizer=SGD(),
            training=Training(workers=self.options.workers),
            init=(Init(source=self.trunk.source),),
            trainable=("heads.*",),
            seed=self.options.seed,
            notes=f"A linear probe of {self.trunk.source}. {self.trunk.note}".strip(),
        )

    def choose(self, score_of: Callable[[float, Sequence[Record], Sequence[Record]], float]) -> Choice:
        """The learning rate with the best ``score_of(rate, fit, validation)``; the smallest of equals.

        A single learning rate is taken without trying it.
        """
        if len(self.settings.rates) == 1:
            return Choice(rate=self.settings.rates[0])
        fit, validation, which = self.examples.for_choosing(self.options.validation, self.options.seed)
        scores = {rate: score_of(rate, fit, validation) for rate in sorted(self.settings.rates)}
        best = max(scores, key=lambda rate: scores[rate])
        reached = ", ".join(f"{rate:g}: {value:.1%}" for rate, value in scores.items())
        note = f"learning rate {best:g} chosen by {which} ({reached}); then trained on all training examples"
        return Choice(rate=best, scores={f"{rate:g}": value for rate, value in scores.items()}, note=note)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The learning rate, and the validation score of each that was tried."""

    rate: float
    scores: dict[str, float] = field(default_factory=dict[str, float])
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A trained head's results. ``result``: its entry in ``results.json``; ``lost``: unreadable training files."""

    choice: Choice
    result: Mapping[str, Any]
    train: int
    lost: tuple[dict[str, Any], ...]


def train_on_files(plan: Plan, out: Path, progress: bool) -> Linear:
    """Train and test. ``out`` gets a run for each learning rate that is tried, and the run ``final``.

    The runs that try a rate read a manifest of training examples only.
    """
    name, metric = plan.examples.name, plan.examples.objective.metric

    def run(folder: Path, experiment: Experiment) -> Mapping[str, Any]:
        found = train(experiment, folder, evaluate=evaluator(folder, progress=progress), progress=progress)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # a finished run needs its model and results only
        return found.results["tasks"][name]

    def score_of(rate: float, fit: Sequence[Record], validation: Sequence[Record]) -> float:
        manifest = out / _CHOOSING
        write_manifest(manifest, [*absolute(fit, _FIT), *absolute(validation, _VALIDATION)])
        source = Source(path=str(manifest), train=_FIT, test=_VALIDATION)
        return run(out / f"rate_{rate:g}", plan.experiment(rate, source))["metrics"][metric]

    choice = plan.choose(score_of)
    result = run(out / FINAL, plan.experiment(choice.rate))
    lost = _quarantined(out / FINAL / QUARANTINE)
    return Linear(choice=choice, result=result, train=len(plan.examples.train) - len(lost), lost=lost)


def _quarantined(path: Path) -> tuple[dict[str, Any], ...]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return tuple({key: json.loads(line)[key] for key in ("path", "time", "reason")} for line in lines)


@dataclass(frozen=True)
class ProbeFeatures:
    """The features of a probe's examples, computed once, when they are first needed."""

    plan: Plan
    progress: bool

    @cached_property
    def train(self) -> CachedFeatures:
        return self._cache(self.plan.examples.train, Views(), "training")

    @cached_property
    def validation(self) -> CachedFeatures:
        """Features of the data set's own validation split."""
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


def train_on_features(plan: Plan, features: ProbeFeatures, out: Path) -> Linear:
    """Train a head on cached features, test it, and write the model with it into ``out/final``."""
    name, metric = plan.examples.name, plan.examples.objective.metric
    known, device = features.train, next(plan.trunk.encoder.parameters()).device
    fresh = initial_model(plan.experiment(plan.settings.rates[0])).heads[name]

    def score_of(rate: float, fit: Sequence[Record], validation: Sequence[Record]) -> float:
        head = train_head(fresh, known.of(map(key_of, fit)), plan.experiment(rate), device)
        own = bool(plan.examples.validation)
        chosen_by = features.validation if own else known.of(map(key_of, validation))
        return score(head_scores(head, chosen_by), chosen_by).metrics[metric]

    choice = plan.choose(score_of)
    experiment = plan.experiment(choice.rate)
    head = train_head(fresh, known, experiment, device)
    result = score(head_scores(head, features.test), features.test).as_json()
    described = cards(experiment, {"tasks": {name: result}})
    provenance = {"probe": plan.trunk.source, "data": plan.examples.path, "method": ON_FEATURES, "rate": choice.rate}
    save_model(out / FINAL, Model(plan.trunk.encoder, {name: head}), plan.trunk.config, described, provenance)
    lost = tuple({"path": e.path, "time": e.time, "reason": e.reason} for e in known.errors)
    return Linear(choice=choice, result=result, train=len(known), lost=lost)


def classify_by_neighbors(plan: Plan, features: ProbeFeatures) -> Mapping[str, Any]:
    sizes = plan.examples.objective.sizes()
    votes = neighbor_votes(features.train, features.test, sizes, k=plan.options.neighbors)
    return score(votes, features.test, mean_votes).as_json()


class _FeatureEncoder(Encoder):
    """Passes features through that are already computed."""

    def __init__(self, width: int) -> None:
        nn.Module.__init__(self)
        self.inputs, self.width = {}, width

    def forward(self, inputs: Inputs, interpolate: bool = False) -> Features:
        return self.encode(cast("Mapping[str, Tensor]", inputs))

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        pooled = inputs[FEATURES]
        return Features(pooled[:, None], pooled)


class _HeadLearner(nn.Module):
    """Takes a minibatch of features and returns its loss."""

    def __init__(self, model: Model, objective: Objective, ranks: Ranks) -> None:
        super().__init__()
        self.model, self.objective, self.ranks = model, objective, ranks

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective(self.model, batch, self.ranks)


def train_head(head: nn.Module, features: CachedFeatures, experiment: Experiment, device: torch.device) -> nn.Module:
    """A copy of ``head``, trained on features of one view each as ``experiment``, whose single task it is, would."""
    ((name, task),) = experiment.tasks.items()
    model = Model(_FeatureEncoder(features.pooled.shape[-1]), {name: deepcopy(head)}).to(device)
    updates = task.length.resolve(len(features), task.batch_size)
    warmup = task.warmup.resolve(len(features), task.batch_size)
    decay, ranks = experiment.training.decay, Ranks(device)
    loop = Loop(
        module=_HeadLearner(model, task.objective, ranks),
        optimizer=build_optimizer(experiment.optimizer, model.parameters()),
        ranks=ranks,
        seed=experiment.seed,
        learning_rate=lambda step, _: learning_rate(step, task.learning_rate, warmup, updates, decay),
        clip_norm=experiment.training.clip_norm,
    )
    loop.run(_minibatches(features, name, updates, task.batch_size, experiment.seed), 0, updates, [])
    return model.heads[name].eval()


def _minibatches(features: CachedFeatures, task: str, updates: int, size: int, seed: int) -> Iterator[Batch]:
    """The same minibatches as the loader makes."""
    stream = Stream((len(features),), seed, task)
    for slot in slots([task] * updates, {task: size}):
        rows = torch.tensor([stream.at(position)[0] for position in range(slot.first, slot.end)])
        keys = [features.keys[row] for row in rows.tolist()]
        yield Batch(task, {FEATURES: features.pooled[rows, 0]}, rows_of(features.targets, rows), keys)


@torch.no_grad()
def head_scores(head: nn.Module, features: CachedFeatures) -> dict[str, Tensor]:
    """The logits (N, V, K) of every view, by label set, on the CPU."""
    flat = features.pooled.flatten(0, 1).to(next(head.parameters()).device)
    return {
        name: logits.float().cpu().unflatten(0, features.pooled.shape[:2])
        for name, logits in by_set(head(Features(flat[:, None], flat))).items()
    }


def neighbor_votes(
    train: CachedFeatures, test: CachedFeatures, classes: Mapping[str, int], *, k: int = 20, temperature: float = 0.07
) -> dict[str, Tensor]:
    """Shares of the votes of the ``k`` nearest training examples (N, V, K), by label set; cosine similarity.

    A vote weighs exp(similarity / temperature): Wu et al. 2018 (arXiv:1805.01978, Sec. 3.4); k = 20 as Caron et al.
    2021 (arXiv:2104.14294). ``classes``: their number by label set.
    """
    own = train.targets if isinstance(train.targets, dict) else {next(iter(classes)): train.targets}
    votes = {name: F.one_hot(t, classes[name]).float() if t.ndim == 1 else t for name, t in own.items()}
    known = F.normalize(train.pooled[:, 0], dim=-1)
    asked = F.normalize(test.pooled, dim=-1).flatten(0, 1)
    parts: dict[str, list[Tensor]] = {name: [] for name in votes}
    for part in asked.split(_QUERIES):
        similarity, nearest = (part @ known.T).topk(min(k, len(known)), dim=-1)
        weights = (similarity / temperature).softmax(-1)
        for name, vote in votes.items():
            parts[name].append(torch.einsum("nk,nkc->nc", weights, vote[nearest]))
    return {name: torch.cat(found).unflatten(0, test.pooled.shape[:2]) for name, found in parts.items()}


def mean_logits(logits: Float[Tensor, "N V K"]) -> Float[Tensor, "N K"]:
    """Logits averaged over the views."""
    return logits.mean(1)


def mean_votes(votes: Float[Tensor, "N V K"]) -> Float[Tensor, "N K"]:
    """Votes averaged over the views, as logits."""
    return votes.mean(1).clamp_min(torch.finfo(votes.dtype).tiny).log()


def score(
    scores: Mapping[str, Tensor], test: CachedFeatures, average: Callable[[Tensor], Tensor] = mean_logits
) -> TaskResult:
    """The metrics of each view's ``scores`` (N, V, K), by label set, as an evaluation reports them."""
    by_name = test.targets if isinstance(test.targets, dict) else dict.fromkeys(scores, test.targets)
    targets = {name: x.numpy() for name, x in by_name.items()}
    middle = (test.views.clips - 1) // 2 * test.views.crops + test.views.crops // 2
    single = {name: x[:, middle : middle + 1] for name, x in scores.items()}

    def measured(scores: Mapping[str, Tensor]) -> dict[str, float]:
        values = {name: average(x).numpy() for name, x in scores.items()}
        return (
            measure(values, targets)
            if len(values) > 1
            else measure(*(next(iter(x.values())) for x in (values, targets)))
        )

    return TaskResult(
        metrics=measured(scores),
        views=str(test.views),
        single_view=measured(single) if len(test.views) > 1 else {},
        scored=len(test),
        expected=test.expected,
        errors=test.errors,
        warnings=(f"{test.silent} of {len(test)} sounds are digital silence",) if test.silent else (),
    )
