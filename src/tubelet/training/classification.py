"""Classes of a video, a picture or a sound, from one label set or several."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.cards import ClassCard
from tubelet.data.batch import Batch
from tubelet.data.labels import Classes
from tubelet.data.manifest import LABEL, Manifest
from tubelet.models.model import Encoder, Model
from tubelet.nn.heads import HeadInit, LinearHead, MultiHead, build_head
from tubelet.training.objectives import Linear, Mixup, Objective, mixup, only_linear
from tubelet.training.ranks import Ranks

_COSTS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of scikit-learn: how much the examples count against small weights
_COST = 0.1  # without held-out examples
_STEPS = 500  # of L-BFGS at most


@dataclass(frozen=True, kw_only=True)
class Classification(Objective):
    """Classes, from one label set or several.

    ``label_sets``: the manifest's label sets, one head each (EPIC: verb and noun). ``classes``: their names, in the
    order of the logits, by label set unless that is "label" alone; empty: all that the manifest's training split has.
    ``labels`` "several" means that an example may have any number of them. ``loss`` "sigmoid" is summed over classes,
    as the released code does; the losses of several label sets are averaged. ``head_init`` and ``head_bias`` are where
    the heads' weights and biases start; ``head_dropout`` is the share of a head's features that training drops;
    ``hidden`` the widths of hidden layers before the logits. ``balanced``, with "sigmoid": examples of rare labels
    count more, as :func:`balanced_cross_entropy` says.
    """

    label_sets: tuple[str, ...] = ("label",)
    classes: Classes = ()
    labels: Literal["one", "several"] = "one"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    smoothing: float = 0.0
    mixup: Mixup = Mixup()
    head_init: HeadInit = "zeros"
    head_bias: float = 0.0
    head_dropout: float = 0.0
    hidden: tuple[int, ...] = ()
    balanced: bool = False

    def __post_init__(self) -> None:
        if not self.label_sets:
            raise ValueError("label_sets must name at least one label set of the manifest")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"label {self.smoothing=} must be in [0, 1)")
        if self.labels == "several" and self.loss == "softmax":
            raise ValueError('an example with several labels needs loss="sigmoid"; softmax picks one class')
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"{self.head_dropout=} must be in [0, 1)")
        if self.balanced and self.loss == "softmax":
            raise ValueError('balanced is of loss="sigmoid"')

    @property
    def mixes(self) -> bool:
        return self.mixup.alpha > 0

    def resolved(self, manifest: Manifest, split: str) -> Classification:
        if self.classes:
            return self
        by_set = {label_set: manifest.classes(label_set, split) for label_set in self.label_sets}
        return replace(self, classes=by_set[LABEL] if list(by_set) == [LABEL] else by_set)

    def card(self, inputs: tuple[str, ...] = ()) -> ClassCard:
        classes = self.classes
        if isinstance(classes, tuple) and self.label_sets != (LABEL,):
            classes = dict.fromkeys(self.label_sets, classes)
        return ClassCard(classes=classes, multilabel=self.labels == "several", inputs=inputs, hidden=self.hidden)

    def sizes(self) -> dict[str, int]:
        """The number of classes of each label set."""
        classes = self.classes if isinstance(self.classes, dict) else {self.label_sets[0]: self.classes}
        return {name: len(classes[name]) for name in self.label_sets}

    def head(self, encoder: Encoder) -> nn.Module:
        """A head that gives logits (B, K), or a dict of them by label set where there are several."""
        heads = {
            n: build_head(encoder.width, k, self.head_init, self.head_bias, self.head_dropout, self.hidden)
            for n, k in self.sizes().items()
        }
        return MultiHead(heads) if len(heads) > 1 else next(iter(heads.values()))

    def __call__(self, model: Model, batch: Batch, ranks: Ranks) -> tuple[Tensor, dict[str, Tensor]]:
        if batch.targets is None:
            raise ValueError(f"the batch has no targets, but the objective needs those of {self.label_sets}")
        inputs, sizes, card = model.preprocess(batch.inputs), self.sizes(), self.card()
        targets = {name: one_hot(t, sizes[name]) for name, t in card.named(batch.targets).items()}
        if self.mixup.alpha:
            mix = self.mixup.drawn(batch.seed, len(batch))
            inputs = {name: mixup(x, *mix) for name, x in inputs.items()}
            targets = {name: mixup(t, *mix) for name, t in targets.items()}
        logits = card.named(model(inputs, batch.task))
        kinds = {"softmax": softmax_cross_entropy, "sigmoid": sigmoid_cross_entropy}
        cross_entropy = balanced_cross_entropy if self.balanced else kinds[self.loss]
        loss = multi_head_cross_entropy(logits, targets, smoothing=self.smoothing, cross_entropy=cross_entropy)
        correct = [logits[n].argmax(-1) == t.argmax(-1) for n, t in targets.items()]
        metrics = {} if self.labels == "several" else {"top1": torch.stack(correct).all(0).float().mean().detach()}
        return loss, metrics

    def linear_heads(self, head: nn.Module) -> dict[str, LinearHead]:
        if self.labels == "several":
            return {}
        parts = dict(head.heads.items()) if isinstance(head, MultiHead) else {self.label_sets[0]: head}
        found = {n: part for n, part in parts.items() if isinstance(part, LinearHead) and only_linear(part)}
        return found if len(found) == len(parts) else {}

    def fit(self, name: str, pooled: Tensor, targets: Tensor, held_out: tuple[Tensor, Tensor] | None) -> Linear | None:
        return fit_linear(pooled, targets, self.sizes()[name], held_out)


def one_hot(targets: Tensor, classes: int) -> Float[Tensor, "B K"]:
    """Class indices (B,) as rows of zeros with a one; what has rows already passes as floats."""
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets.float()


def smooth_labels(targets: Float[Tensor, "B K"], smoothing: float) -> Float[Tensor, "B K"]:
    """targets (1 - s) + s / K, for one-hot and multi-hot targets alike, as the released code does."""
    return targets * (1 - smoothing) + smoothing / targets.shape[-1]


def softmax_cross_entropy(
    logits: Float[Tensor, "*modalities B K"],
    targets: Float[Tensor, "B K"],
    weights: Float[Tensor, " B"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean over examples (weighted, where ``weights`` are given) of the cross-entropy with the softmax.

    Where each modality answers for itself, as MBT's do in training, also the mean over them, all with the same targets.
    """
    return _mean(-(smooth_labels(targets, smoothing) * logits.log_softmax(-1)).sum(-1), weights)


def sigmoid_cross_entropy(
    logits: Float[Tensor, "*modalities B K"],
    targets: Float[Tensor, "B K"],
    weights: Float[Tensor, " B"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean over examples of the binary cross-entropies, summed over classes; else as :func:`softmax_cross_entropy`."""
    smooth = smooth_labels(targets, smoothing).expand_as(logits)
    return _mean(F.binary_cross_entropy_with_logits(logits, smooth, reduction="none").sum(-1), weights)


def balanced_cross_entropy(
    logits: Float[Tensor, "*modalities B K"],
    targets: Float[Tensor, "B K"],
    weights: Float[Tensor, " B"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean over examples of w_i times their :func:`sigmoid_cross_entropy`, as VATT's released code has it for AudioSet.

    w_i = sum_c (y_ic / n_c) / sum_c y_ic with n_c = sum_i y_ic, over the examples at hand (those of a rank): the mean
    over an example's labels of one over how often the label occurs. 0 for an example without labels. ``targets`` may be
    those of mixup.
    """
    occurring = targets.sum(0)
    rarity = torch.where(occurring > 0, targets / occurring.clamp(min=torch.finfo(targets.dtype).tiny), 0.0).sum(1)
    labels = targets.sum(1)
    balance = torch.where(labels > 0, rarity / labels.clamp(min=torch.finfo(targets.dtype).tiny), 0.0)
    smooth = smooth_labels(targets, smoothing).expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none").sum(-1)
    return _mean(losses * balance, weights)


def multi_head_cross_entropy(
    logits: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    weights: Float[Tensor, " B"] | None = None,
    smoothing: float = 0.0,
    cross_entropy: Callable[..., Tensor] = softmax_cross_entropy,
) -> Float[Tensor, ""]:
    """The mean of the label sets' losses (EPIC: verb and noun), in float32."""
    return torch.stack([cross_entropy(logits[n].float(), t, weights, smoothing) for n, t in targets.items()]).mean()


def _mean(losses: Float[Tensor, "*modalities B"], weights: Float[Tensor, " B"] | None) -> Float[Tensor, ""]:
    if weights is None:
        return losses.mean()
    return (losses * weights).sum() / weights.expand_as(losses).sum()


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
