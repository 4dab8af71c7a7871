"""Features of a frozen encoder, each computed once, and what classifies them: a linear head and k-NN.

Where the training does not augment (image tasks), a head trained on cached features is the head of the training on the
files, up to rounding: the same minibatches, learning rates and first weights. For videos and sounds, which the paper
augments, it is a departure: every training example is seen in one view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from tubelet.data.batch import Batch, Targets
from tubelet.data.dataset import VideoViews, ViewSet
from tubelet.data.loader import view_batches
from tubelet.data.manifest import Record
from tubelet.data.stream import Stream, slots
from tubelet.data.views import Views
from tubelet.evaluation.metrics import measure
from tubelet.evaluation.results import TaskResult
from tubelet.inference.scoring import by_set, evaluation_mode, view_logits
from tubelet.media.errors import MediaError
from tubelet.models import Encoder, Model
from tubelet.models.model import Inputs
from tubelet.nn.features import Features
from tubelet.specs import InputSpec
from tubelet.training.experiment import Experiment
from tubelet.training.loop import Loop
from tubelet.training.objectives import Classification
from tubelet.training.optimizers import build_optimizer
from tubelet.training.parallel import Ranks
from tubelet.training.schedules import learning_rate

_FEATURES = "features"
_QUERIES = 1024  # test features compared with the training features at a time


@dataclass(frozen=True)
class CachedFeatures:
    """``pooled`` (N, V, D) float32, on the CPU: the features of V views of each example that could be read.

    ``targets``: class indices (N,), multi-hot (N, K), or a dict of them by label set. ``keys``: the examples' own.
    ``errors``: of the examples that could not be read, which are left out. ``silent``: examples of digital silence.
    """

    pooled: Tensor
    targets: Targets
    keys: tuple[str, ...]
    views: Views
    errors: tuple[MediaError, ...] = ()
    silent: int = 0

    def __len__(self) -> int:
        return len(self.pooled)

    def of(self, keys: Iterable[str]) -> CachedFeatures:
        """Those of the examples with these keys, in this order; examples that could not be read are left out."""
        places = {key: place for place, key in enumerate(self.keys)}
        rows = [places[key] for key in keys if key in places]
        return CachedFeatures(
            self.pooled[rows],
            rows_of(self.targets, torch.tensor(rows, dtype=torch.long)),
            tuple(self.keys[row] for row in rows),
            self.views,
        )

    @property
    def expected(self) -> int:
        return len(self) + len(self.errors)


def rows_of(targets: Targets, rows: Tensor) -> Targets:
    """Some rows of the targets."""
    return {name: x[rows] for name, x in targets.items()} if isinstance(targets, dict) else targets[rows]


def error_json(error: MediaError) -> dict[str, Any]:
    return {"path": error.path, "time": error.time, "reason": error.reason}


class _Pooled(nn.Module):
    def forward(self, features: Features) -> Tensor:
        return features.pooled


def cache_features(
    encoder: Encoder,
    specs: Mapping[str, InputSpec],
    records: Sequence[Record],
    objective: Classification,
    views: Views,
    *,
    features_per_forward: int = 12,
    workers: int = 0,
    progress: str = "",
) -> CachedFeatures:
    """The pooled features of every example, in evaluation mode and on the encoder's device.

    ``specs``: the inputs to make, by name. ``progress``: what a bar on stderr is called; empty: none.
    Raises ValueError where no example can be read.
    """
    videos = ViewSet(records, objective.classes, specs, views, several=objective.labels == "several")
    model = Model(encoder, {_FEATURES: _Pooled()}).to(next(encoder.parameters()).device)
    errors: list[MediaError] = []
    targets: list[Targets | None] = []
    keys: list[str] = []
    pooled: list[Tensor] = []
    silent: list[str] = []

    def readable(found: Iterator[VideoViews | MediaError]) -> Iterator[Mapping[str, Tensor]]:
        for example in found:
            bar.advance(line)
            if isinstance(example, MediaError):
                errors.append(example)
            else:
                targets.append(example.target)
                keys.append(example.key)
                silent.extend(example.silent)
                yield example.inputs

    console = Console(stderr=True)
    with Progress(console=console, disable=not (progress and console.is_terminal), transient=True) as bar:
        line = bar.add_task(progress, total=len(videos))
        with evaluation_mode(model, "float32"):
            inputs = readable(view_batches(videos, workers=workers))
            for features in view_logits(model, _FEATURES, inputs, views_per_forward=features_per_forward):
                pooled.extend(features.values())
    if not pooled:
        raise ValueError(f"none of {len(videos)} examples can be read; the first: {errors[0]}")
    return CachedFeatures(torch.stack(pooled), default_collate(targets), tuple(keys), views, tuple(errors), len(silent))


class _FeatureEncoder(Encoder):
    """Features that are there already."""

    def __init__(self, width: int) -> None:
        nn.Module.__init__(self)
        self.inputs, self.width = {}, width

    def forward(self, inputs: Inputs, interpolate: bool = False) -> Features:
        return self.encode(cast("Mapping[str, Tensor]", inputs))

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        pooled = inputs[_FEATURES]
        return Features(pooled[:, None], pooled)


class _HeadLearner(nn.Module):
    """The loss of a minibatch of features."""

    def __init__(self, model: Model, objective: Classification) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective(self.model, batch)


def train_head(head: nn.Module, features: CachedFeatures, experiment: Experiment, device: torch.device) -> nn.Module:
    """A copy of ``head``, trained on features of one view each as ``experiment``, whose single task it is, would."""
    ((name, task),) = experiment.tasks.items()
    model = Model(_FeatureEncoder(features.pooled.shape[-1]), {name: deepcopy(head)}).to(device)
    updates = task.length.resolve(len(features), task.batch_size)
    warmup = task.warmup.resolve(len(features), task.batch_size)
    decay = experiment.training.decay
    loop = Loop(
        module=_HeadLearner(model, task.objective),
        optimizer=build_optimizer(experiment.optimizer, model.parameters()),
        ranks=Ranks(device),
        seed=experiment.seed,
        learning_rate=lambda step, _: learning_rate(step, task.learning_rate, warmup, updates, decay),
        clip_norm=experiment.training.clip_norm,
    )
    loop.run(_minibatches(features, name, updates, task.batch_size, experiment.seed), 0, updates, [])
    return model.heads[name].eval()


def _minibatches(features: CachedFeatures, task: str, updates: int, size: int, seed: int) -> Iterator[Batch]:
    """The examples that the loader would put into each minibatch."""
    stream = Stream(len(features), seed, task)
    for slot in slots([task] * updates, {task: size}):
        rows = torch.tensor([stream.at(position)[0] for position in range(slot.first, slot.end)])
        keys = [features.keys[row] for row in rows.tolist()]
        yield Batch(task, {_FEATURES: features.pooled[rows, 0]}, rows_of(features.targets, rows), keys)


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
