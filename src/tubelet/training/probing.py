"""Where the heads start that stand on a trained encoder: logistic regression on its features.

Fine-tuning from random heads distorts the features before the heads have learned to use them; from heads that fit, it
need not (Kumar et al. 2022, arXiv:2202.10054).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from tubelet.data.dataset import ViewSet
from tubelet.data.loader import view_batches
from tubelet.data.manifest import Record
from tubelet.data.views import Views
from tubelet.media.errors import MediaError
from tubelet.models import Model
from tubelet.nn.heads import LinearHead, MLPHead, MultiHead
from tubelet.training.experiment import Experiment
from tubelet.training.parallel import Ranks
from tubelet.training.resolve import Prepared

_COSTS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of scikit-learn: how much the examples count against small weights
_COST = 0.1  # without validation examples
_AT_ONCE = 32  # examples of a forward
_STEPS = 500  # of L-BFGS at most


@dataclass(frozen=True)
class Linear:
    """A linear classifier of features: ``weight`` (K, D), ``bias`` (K,), and the ``cost`` it was fitted with."""

    weight: Tensor
    bias: Tensor
    cost: float


@dataclass(frozen=True)
class _Seen:
    """``pooled`` (N, D) float32 on the CPU; the ``targets`` (N,) by label set."""

    pooled: Tensor
    targets: dict[str, Tensor]


def probe_heads(model: Model, prepared: Prepared, ranks: Ranks, keep: Collection[str] = ()) -> Iterator[str]:
    """Set the heads of ``model``, but those of the tasks ``keep``, to logistic regression on the encoder's features.

    Each training example is seen once, in the view in its middle and without augmentation; what cannot be read is left
    out. Validation examples choose how strongly the weights are held small. Heads with hidden layers, and tasks whose
    examples have several labels, stay as they are. Yields a sentence for each task; every rank must take them all.
    """
    experiment = prepared.resolved.experiment
    model.to(ranks.device)
    for name, task in experiment.tasks.items():
        heads = linear_heads(model.heads[name], task.objective.label_sets)
        if name in keep or not heads or task.objective.labels == "several":
            yield f"{name}: no probe; its head starts {'from the weights' if name in keep else 'as it was built'}"
            continue
        seen = _see(model, experiment, name, prepared.training[name], ranks)
        held_out = _see(model, experiment, name, prepared.validation.get(name, ()), ranks)
        fitted: list[dict[str, Linear | None]] = [{}]
        if seen is not None and ranks.is_main:
            for label_set, head in heads.items():
                validation = (held_out.pooled, held_out.targets[label_set]) if held_out else None
                classes = head.projection.out_features
                fitted[0][label_set] = fit_linear(seen.pooled, seen.targets[label_set], classes, validation)
        if ranks.control is not None:
            dist.broadcast_object_list(fitted, src=0, group=ranks.control)
        for label_set, linear in fitted[0].items():
            if linear is not None:
                with torch.no_grad():
                    heads[label_set].projection.weight.copy_(linear.weight)
                    heads[label_set].projection.bias.copy_(linear.bias)
        costs = " and ".join(f"{linear.cost:g}" for linear in fitted[0].values() if linear is not None)
        if not costs:
            yield f"{name}: no probe, for too few examples can be read; its head starts as it was built"
            continue
        examples = len(seen.pooled) if seen is not None else 0
        yield f"{name}: head fitted to the frozen features of {examples:,} examples (C = {costs})"


def linear_heads(head: nn.Module, label_sets: Sequence[str]) -> dict[str, LinearHead]:
    """The linear classifiers that a head is made of, by label set; empty where it is anything else."""
    parts = dict(head.heads.items()) if isinstance(head, MultiHead) else {label_sets[0]: head}
    found = {n: part for n, part in parts.items() if isinstance(part, LinearHead) and not isinstance(part, MLPHead)}
    return found if len(found) == len(parts) else {}


def fit_linear(
    pooled: Tensor, targets: Tensor, classes: int, validation: tuple[Tensor, Tensor] | None = None
) -> Linear | None:
    """Logistic regression on standardized features, for features as they are; None of fewer than two classes.

    The cost is the one under which the ``validation`` features and targets are likeliest. A class without an example
    gets no weight, and a bias that makes it rarer than any other. The same examples give the same numbers, whatever the
    number of threads.
    """
    from sklearn.linear_model import LogisticRegression  # a second of imports
    from threadpoolctl import threadpool_limits

    x, y = pooled.double().numpy(), targets.numpy()
    if len(np.unique(y)) < 2:
        return None
    mean, std = x.mean(0), x.std(0)
    scale = np.where(std > 1e-6 * std.max(), std, 1.0)
    x = (x - mean) / scale
    best: tuple[float, Linear] | None = None
    model = LogisticRegression(max_iter=_STEPS, warm_start=True)
    for cost in _COSTS if validation else (_COST,):
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # of too few steps: what is found by then counts
            model.set_params(C=cost).fit(x, y)
        coefficients, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
        if len(coefficients) == 1:  # of two classes
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        weight, bias = np.zeros((classes, x.shape[1])), np.full(classes, intercepts.min() - np.log(len(x)))
        weight[model.classes_] = coefficients / scale
        bias[model.classes_] = intercepts
        bias -= weight @ mean
        linear = Linear(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), cost)
        loss = 0.0
        if validation:
            loss = F.cross_entropy(validation[0] @ linear.weight.T + linear.bias, validation[1]).item()
        if best is None or loss < best[0]:
            best = loss, linear
    assert best is not None
    return best[1]


@torch.no_grad()
def _see(model: Model, experiment: Experiment, name: str, records: Sequence[Record], ranks: Ranks) -> _Seen | None:
    """The features of the examples that can be read, in their order, on every rank; None where there are none."""
    task, training = experiment.tasks[name], experiment.training
    if not records:
        return None
    specs = {key: experiment.model.inputs[key] for key in task.inputs}
    views = ViewSet(records, task.objective.classes, specs, Views())
    precision = torch.bfloat16 if training.precision == "bfloat16" else torch.float32
    examples = view_batches(views, rank=ranks.rank, world=ranks.world_size, workers=training.workers)
    numbered = ((i, x) for i, x in enumerate(examples) if not isinstance(x, MediaError))
    found: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
    was_training = model.training
    model.eval()
    while part := list(islice(numbered, _AT_ONCE)):
        inputs = {key: torch.cat([x.inputs[key] for _, x in part]).to(ranks.device) for key in specs}
        with torch.autocast(ranks.device.type, precision, enabled=precision != torch.float32):
            pooled = model.encoder(model.preprocess(inputs)).pooled.float().cpu()
        places = torch.tensor([ranks.rank + i * ranks.world_size for i, _ in part])
        targets = [_by_set(x.target, task.objective.label_sets) for _, x in part]
        found.append((places, pooled, {key: torch.stack([t[key] for t in targets]) for key in targets[0]}))
    model.train(was_training)
    everywhere = [found]
    if ranks.control is not None:
        everywhere = [found] * ranks.world_size
        dist.all_gather_object(everywhere, found, group=ranks.control)
    parts = [part for of_rank in everywhere for part in of_rank]
    if not parts:
        return None
    order = torch.cat([places for places, _, _ in parts]).argsort()
    sets = {key: torch.cat([targets[key] for _, _, targets in parts])[order] for key in parts[0][2]}
    return _Seen(torch.cat([pooled for _, pooled, _ in parts])[order], sets)


def _by_set(target: Tensor | Mapping[str, Tensor] | None, label_sets: Sequence[str]) -> Mapping[str, Tensor]:
    assert target is not None
    return target if isinstance(target, Mapping) else {label_sets[0]: target}
