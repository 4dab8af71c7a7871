"""Heads on cached features: the features of a probe's examples, heads fitted to them, k-NN, and how both are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.data.augment import Augmentation
from tubelet.data.dataset import Example, TrainSet, VideoViews, ViewSet
from tubelet.data.labels import Labels
from tubelet.data.manifest import Record
from tubelet.data.views import Views
from tubelet.evaluation.evaluate import key_of
from tubelet.evaluation.results import TaskResult
from tubelet.inference.scoring import by_set
from tubelet.media.errors import MediaError
from tubelet.metrics import measure
from tubelet.models.model import Model
from tubelet.nn.features import Features
from tubelet.probing.classifiers import fitting
from tubelet.probing.encoder import CachedFeatures, cache_features
from tubelet.probing.training import FINAL, LOW_RANK, METHODS, Linear, Plan
from tubelet.specs import InputSpec
from tubelet.training.ranks import init_distributed
from tubelet.weights.folder import save_model

_QUERIES = 1024  # test features compared with the training features at a time


@dataclass(frozen=True)
class ProbeFeatures:
    """The features of a probe's examples, computed once, when they are first needed."""

    plan: Plan
    progress: bool

    @cached_property
    def train(self) -> CachedFeatures:
        """Of each training example, its passes as views."""
        settings, records = self.plan.settings, self.plan.examples.train
        if settings.passes == 1:
            return self._cache(ViewSet(records, self._labels, self._specs), "training")
        drawn = DrawnViews(
            records, self._labels, self._specs, settings.augment, passes=settings.passes, seed=self.plan.options.seed
        )
        return self._cache(drawn, "training")

    @cached_property
    def validation(self) -> CachedFeatures:
        """Features of the data set's own validation split."""
        return self._tested(self.plan.examples.validation, "validation")

    @cached_property
    def test(self) -> CachedFeatures:
        return self._tested(self.plan.examples.test, "test")

    @property
    def _labels(self) -> Labels:
        labels = self.plan.examples.objective.card().targets()
        assert labels is not None
        return labels

    @property
    def _specs(self) -> dict[str, InputSpec]:
        return {self.plan.trunk.input: self.plan.trunk.config.inputs[self.plan.trunk.input]}

    def _tested(self, records: Sequence[Record], what: str) -> CachedFeatures:
        return self._cache(ViewSet(records, self._labels, self._specs, self.plan.settings.views), what)

    def _cache(self, videos: ViewSet, what: str) -> CachedFeatures:
        trunk, options = self.plan.trunk, self.plan.options
        with init_distributed() as ranks:
            trunk.encoder.to(ranks.device)
            return cache_features(
                trunk.encoder,
                videos,
                features_per_forward=options.features_per_forward,
                workers=options.workers,
                progress=f"features of the {what} examples" if self.progress else "",
            )


class DrawnViews(ViewSet):
    """Training examples, whose views are what training would see of them in as many ``passes``."""

    def __init__(
        self,
        records: Sequence[Record],
        labels: Labels,
        specs: Mapping[str, InputSpec],
        augment: Augmentation,
        *,
        passes: int,
        seed: int = 0,
    ) -> None:
        super().__init__(records, labels, specs, Views(clips=passes))
        self._drawn = TrainSet(records, labels, specs, augment, seed=seed)

    def example(self, index: int) -> VideoViews | MediaError:
        found: list[Example] = []
        for number in range(self.views.clips):
            example = self._drawn.example(index, number)
            if isinstance(example, MediaError):
                return example
            found.append(example)
        inputs = {name: torch.stack([example.inputs[name] for example in found]) for name in self.specs}
        return VideoViews(inputs, found[0].target, found[0].key)


def train_on_features(plan: Plan, features: ProbeFeatures, out: Path) -> Linear:
    """Fit a head to cached features, test it, and write the model with it into ``out/final``."""
    name, objective = plan.examples.name, plan.examples.objective
    known, device = features.train, next(plan.trunk.encoder.parameters()).device
    fit, method = fitting(plan, device), METHODS[plan.options.classifier]
    average = partial(mean_probabilities, several=objective.labels == "several") if method == LOW_RANK else mean_logits

    def score_of(rate: float, examples: Sequence[Record], validation: Sequence[Record]) -> float:
        head = fit(known.of(map(key_of, examples)), rate)
        own = bool(plan.examples.validation)
        chosen_by = features.validation if own else known.of(map(key_of, validation))
        return score(head_scores(head, chosen_by), chosen_by, average).metrics[objective.metric]

    choice = plan.choose(score_of)
    head = fit(known, choice.rate)
    result = score(head_scores(head, features.test), features.test, average).as_json()
    card = objective.card((plan.trunk.input,)).measured(result)
    provenance = {"probe": plan.trunk.source, "data": plan.examples.path, "method": method, "rate": choice.rate}
    save_model(out / FINAL, Model(plan.trunk.encoder, {name: head}), plan.trunk.config, {name: card}, provenance)
    lost = tuple({"path": e.path, "time": e.time, "reason": e.reason} for e in known.errors)
    return Linear(choice=choice, result=result, train=len(known), lost=lost)


def classify_by_neighbors(plan: Plan, features: ProbeFeatures) -> Mapping[str, Any]:
    sizes = plan.examples.objective.sizes()
    votes = neighbor_votes(features.train, features.test, sizes, k=plan.options.neighbors)
    return score(votes, features.test, mean_votes).as_json()


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


def mean_probabilities(logits: Float[Tensor, "N V K"], several: bool = False) -> Float[Tensor, "N K"]:
    """Probabilities averaged over the views, as logits of a softmax; ``several``: an example may have any classes."""
    return mean_votes(logits.sigmoid() if several else logits.softmax(-1))


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
