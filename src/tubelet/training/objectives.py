"""What a task optimizes: its heads, its loss, mixup, label smoothing, and the name of its metric."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.data.batch import Batch
from tubelet.models.model import Logits, Model
from tubelet.nn.heads import MultiHead, build_head

Classes = tuple[str, ...] | dict[str, tuple[str, ...]]


class Objective(Protocol):
    """The loss of a minibatch, and detached tensors to log; neither waits for the device."""

    def __call__(self, model: Model, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]: ...


@dataclass(frozen=True)
class Mixup:
    """Convex combinations of a minibatch and itself in reverse (ViViT Appendix A.1); ``alpha`` 0 does nothing.

    One weight, drawn from Beta(alpha, alpha), for the whole minibatch; the partner of an example is the one as far from
    the end as it is from the start. Both as the released code has them. With micro-batches or several ranks the partner
    lies in the same part; the weight is the same for all micro-batches, and differs between ranks.
    """

    alpha: float = 0.0

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"mixup {self.alpha=} must be at least 0")

    def weight(self, seed: int) -> float:
        """The share of the example itself, the rest being its partner's: 1 where mixup does nothing."""
        return random.Random(seed).betavariate(self.alpha, self.alpha) if self.alpha else 1.0


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Classes of a video or an image, from one label set or several.

    ``label_sets``: the manifest's label sets, one head each (EPIC: verb and noun). ``classes``: their names, in the
    order of the logits, by label set unless that is "label" alone; empty: all that the manifest's training split has.
    ``labels`` "several" means that an example may have any number of them. ``loss`` "sigmoid" is summed over classes,
    as the released code does; the losses of several label sets are averaged. ``head_bias`` is where the heads' biases
    start; ``hidden`` the widths of hidden layers before the logits.
    """

    label_sets: tuple[str, ...] = ("label",)
    classes: Classes = ()
    labels: Literal["one", "several"] = "one"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    smoothing: float = 0.0
    mixup: Mixup = Mixup()
    head_init: Literal["zeros", "lecun"] = "zeros"
    head_bias: float = 0.0
    hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.label_sets:
            raise ValueError("label_sets must name at least one label set of the manifest")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"label {self.smoothing=} must be in [0, 1)")
        if self.labels == "several" and self.loss == "softmax":
            raise ValueError('an example with several labels needs loss="sigmoid"; softmax picks one class')

    @property
    def metric(self) -> str:
        """The name of the metric that is reported first."""
        return "map" if self.labels == "several" else "action_top1" if len(self.label_sets) > 1 else "top1"

    def sizes(self) -> dict[str, int]:
        """The number of classes of each label set."""
        classes = self.classes if isinstance(self.classes, dict) else {self.label_sets[0]: self.classes}
        return {name: len(classes[name]) for name in self.label_sets}

    def head(self, width: int) -> nn.Module:
        """A head for features of ``width``: logits (B, K), or a dict of them by label set where there are several."""
        heads = {n: build_head(width, k, self.head_init, self.head_bias, self.hidden) for n, k in self.sizes().items()}
        return MultiHead(heads) if len(heads) > 1 else next(iter(heads.values()))

    def __call__(self, model: Model, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, sizes = model.preprocess(batch.inputs), self.sizes()
        targets = {name: one_hot(t, sizes[name]) for name, t in _by_set(batch.targets, self.label_sets).items()}
        if self.mixup.alpha:
            weight = self.mixup.weight(batch.seed)
            inputs = {name: mixup(x, weight) for name, x in inputs.items()}
            targets = {name: mixup(t, weight) for name, t in targets.items()}
        logits = _by_set(model(inputs, batch.task), self.label_sets)
        cross_entropy = softmax_cross_entropy if self.loss == "softmax" else sigmoid_cross_entropy
        loss = multi_head_cross_entropy(logits, targets, smoothing=self.smoothing, cross_entropy=cross_entropy)
        correct = [logits[n].argmax(-1) == t.argmax(-1) for n, t in targets.items()]
        metrics = {} if self.labels == "several" else {"top1": torch.stack(correct).all(0).float().mean().detach()}
        return loss, metrics


def _by_set(value: Logits | None, label_sets: Sequence[str]) -> Mapping[str, Tensor]:
    if value is None:
        raise ValueError(f"the batch has no targets, but the objective needs those of {label_sets}")
    return value if isinstance(value, dict) else {label_sets[0]: value}


def one_hot(targets: Tensor, classes: int) -> Float[Tensor, "B K"]:
    """Class indices (B,) as rows of zeros with a one; what has rows already passes as floats."""
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets.float()


def smooth_labels(targets: Float[Tensor, "B K"], smoothing: float) -> Float[Tensor, "B K"]:
    """targets (1 - s) + s / K, for one-hot and multi-hot targets alike, as the released code does."""
    return targets * (1 - smoothing) + smoothing / targets.shape[-1]


def mixup(x: Tensor, weight: float) -> Tensor:
    """weight x + (1 - weight) x in reverse order along the first axis."""
    return weight * x + (1 - weight) * x.flip(0)


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
