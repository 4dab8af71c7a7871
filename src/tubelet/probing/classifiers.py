"""How a head is fitted to cached features: PolyViT's descent, the two of VATT's linear evaluation (its Table 8), and
least squares on a few examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tubelet.data.batch import Batch
from tubelet.data.stream import Stream, slots
from tubelet.models.model import Encoder, Inputs, Model
from tubelet.nn.features import Features
from tubelet.nn.heads import LinearHead, MultiHead
from tubelet.nn.initializers import glorot_normal_
from tubelet.probing.encoder import FEATURES, CachedFeatures, rows_of
from tubelet.probing.training import Plan
from tubelet.training.experiment import Adam, Experiment
from tubelet.training.loop import Loop
from tubelet.training.objectives import Objective
from tubelet.training.optimizers import build_optimizer
from tubelet.training.ranks import Ranks
from tubelet.training.run import initial_model
from tubelet.training.schedules import learning_rate

COMPONENTS, DROPPED, PENALTY = 128, 0.9, 0.1  # of the low-rank classifier, as released
_CONSTANT = 100.0  # the feature whose weight is the bias in least squares: so large that the penalty leaves it free

Fit = Callable[[CachedFeatures, float], nn.Module]


def fitting(plan: Plan, device: torch.device) -> Fit:
    """What makes a head of the features of training examples, at a learning rate, the cost C of the SVM or the penalty
    of least squares.

    Whatever it is fitted by, the head is linear.
    """
    match plan.options.classifier:
        case "linear":
            fresh = initial_model(plan.experiment(plan.settings.rates[0])).heads[plan.examples.name]
            return lambda features, rate: train_head(fresh, features, plan.experiment(rate), device)
        case "low-rank":
            return partial(train_low_rank, plan, device)
        case "svm":
            return lambda features, cost: fit_svm(features, plan.examples.objective.sizes(), cost, plan.options.seed)
        case "few-shot":
            return lambda features, penalty: fit_least_squares(features, plan.examples.objective.sizes(), penalty)


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
    """Takes a minibatch of features and returns its loss, the squared weights of ``small`` layers times 0.1 added."""

    def __init__(self, model: Model, objective: Objective, ranks: Ranks, small: Sequence[nn.Linear] = ()) -> None:
        super().__init__()
        self.model, self.objective, self.ranks, self.small = model, objective, ranks, tuple(small)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = self.objective(self.model, batch, self.ranks)
        for layer in self.small:
            loss = loss + PENALTY * layer.weight.square().sum()
        return loss, metrics


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


class LowRankHead(nn.Module):
    """Logits U V x + b with ``rank`` components V x, of which training drops nine in ten at a time.

    Both maps start as Keras does, the first from Glorot's normal distribution, the second from the uniform one.
    """

    def __init__(self, width: int, classes: int, rank: int = COMPONENTS, dropout: float = DROPPED) -> None:
        super().__init__()
        self.components, self.dropout = nn.Linear(width, rank), nn.Dropout(dropout)
        self.projection = nn.Linear(rank, classes)
        glorot_normal_(self.components.weight)
        nn.init.xavier_uniform_(self.projection.weight)
        for layer in (self.components, self.projection):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features) -> Float[Tensor, "B K"]:
        return self.projection(self.dropout(self.components(features.pooled)))

    @torch.no_grad()
    def product(self) -> LinearHead:
        """The same logits from one linear map."""
        weight, bias = self.projection.weight, self.projection.bias
        return _linear(weight @ self.components.weight, weight @ self.components.bias + bias)


def train_low_rank(plan: Plan, device: torch.device, features: CachedFeatures, rate: float) -> nn.Module:
    """VATT's low-rank classifier (A.3.2): Adam at one learning rate, the squared weights of U held small."""
    name, settings, seed = plan.examples.name, plan.settings, plan.options.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = {n: LowRankHead(features.pooled.shape[-1], k) for n, k in plan.examples.objective.sizes().items()}
    model = Model(_FeatureEncoder(features.pooled.shape[-1]), {name: _together(heads)}).to(device)
    updates = settings.length.resolve(len(features), settings.batch_size)
    loop = Loop(
        module=_HeadLearner(model, plan.examples.objective, Ranks(device), [h.projection for h in heads.values()]),
        optimizer=build_optimizer(Adam(eps=1e-7, keras=True), model.parameters()),
        ranks=Ranks(device),
        seed=seed,
        learning_rate=lambda step, tasks: rate,
        clip_norm=0.0,
    )
    loop.run(_minibatches(features, name, updates, min(settings.batch_size, len(features)), seed), 0, updates, [])
    return _together({n: head.product() for n, head in heads.items()})


def fit_svm(features: CachedFeatures, classes: Mapping[str, int], cost: float, seed: int = 0) -> nn.Module:
    """A linear SVM on standardized features, one class against the rest, of all views of the training examples.

    ``classes``: their number by label set. A class that no example has, or that all have, gets no weight.
    """
    by_set = features.targets if isinstance(features.targets, dict) else {next(iter(classes)): features.targets}
    x = features.pooled.flatten(0, 1).double().numpy()
    mean, std = x.mean(0), x.std(0)
    scale = np.where(std > 0, std, 1.0)
    x = (x - mean) / scale
    heads: dict[str, LinearHead] = {}
    for name, targets in by_set.items():
        of_views = targets.repeat_interleave(features.pooled.shape[1], 0)
        weight, bias = _separated(x, of_views, classes[name], cost, seed)
        weight = weight / torch.from_numpy(scale)
        heads[name] = _linear(weight, bias - weight @ torch.from_numpy(mean))
    return _together(heads)


def _separated(
    x: np.ndarray, targets: Int64[Tensor, " N"] | Float[Tensor, "N K"], classes: int, cost: float, seed: int
) -> tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]:
    from sklearn.svm import LinearSVC  # a second of imports
    from threadpoolctl import threadpool_limits

    weight, bias = torch.zeros(classes, x.shape[1], dtype=torch.float64), -torch.ones(classes, dtype=torch.float64)

    def solve(y: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # of too few steps: what is found by then counts
            model = LinearSVC(C=cost, dual="auto", random_state=seed).fit(x, y)
        found = torch.from_numpy(np.asarray(model.coef_)), torch.from_numpy(np.asarray(model.intercept_))
        return *found, np.asarray(model.classes_)

    if targets.ndim == 1:
        some = targets.unique()
        if len(some) == 1:
            bias[some] = 1.0
            return weight, bias
        rows, shifts, order = solve(targets.numpy())
        if len(rows) == 1:  # of two classes
            rows, shifts = torch.cat([-rows, rows]), torch.cat([-shifts, shifts])
        weight[order], bias[order] = rows, shifts
        return weight, bias
    for place, column in enumerate(targets.T):
        if column.any() and not column.all():
            (weight[place],), (bias[place],), _ = solve(column.numpy())
        elif column.any():
            bias[place] = 1.0
    return weight, bias


def fit_least_squares(features: CachedFeatures, classes: Mapping[str, int], penalty: float) -> LinearHead:
    """The linear map of standardized features to 1 for an example's class and -1 for the others, in closed form, with
    ``penalty`` times the squared weights (Dosovitskiy et al. 2021, Sec. 4.1; the constant is big_vision's)."""
    (count,) = classes.values()
    assert isinstance(features.targets, Tensor)
    x = features.pooled[:, 0].double()
    mean, scale = x.mean(0), x.std(0, correction=0) + 1e-5
    x = torch.cat([(x - mean) / scale, x.new_full((len(x), 1), _CONSTANT)], 1)
    y = 2 * nn.functional.one_hot(features.targets, count).double() - 1
    if len(x) < x.shape[1]:
        solution = x.T @ torch.linalg.solve(x @ x.T + penalty * torch.eye(len(x), dtype=x.dtype), y)
    else:
        solution = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    weight = solution[:-1].T / scale
    return _linear(weight, _CONSTANT * solution[-1] - weight @ mean)


def _linear(weight: Float[Tensor, "K D"], bias: Float[Tensor, " K"]) -> LinearHead:
    head = LinearHead(weight.shape[1], weight.shape[0])
    head.load_state_dict({"projection.weight": weight, "projection.bias": bias})
    return head.to(weight.device).eval()


def _together(heads: Mapping[str, nn.Module]) -> nn.Module:
    return MultiHead(heads) if len(heads) > 1 else next(iter(heads.values()))
