"""Where the heads start that stand on a trained encoder: a linear model of its features, fitted in closed form.

Fine-tuning from random heads distorts the features before the heads have learned to use them; from heads that fit, it
need not (Kumar et al. 2022, arXiv:2202.10054).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor

from tubelet.data.dataset import ViewSet
from tubelet.data.loader import view_batches
from tubelet.data.manifest import Record
from tubelet.data.views import Views
from tubelet.media.errors import MediaError
from tubelet.models import Model
from tubelet.training.experiment import Experiment
from tubelet.training.objectives import Linear
from tubelet.training.ranks import Ranks
from tubelet.training.resolve import Prepared

_AT_ONCE = 32  # examples of a forward


@dataclass(frozen=True)
class _Seen:
    """``pooled`` (N, D) float32 on the CPU; the ``targets`` (N, ...) by name."""

    pooled: Tensor
    targets: dict[str, Tensor]


def probe_heads(model: Model, prepared: Prepared, ranks: Ranks, keep: Collection[str] = ()) -> Iterator[str]:
    """Set the heads of ``model``, but those of the tasks ``keep``, to linear models of the encoder's features.

    Each training example is seen once, in the view in its middle and without augmentation; what cannot be read is left
    out. Validation examples choose how strongly the weights are held small. Heads that are not linear, and those of
    tasks whose examples have several labels, stay as they are. Yields a sentence for each task; every rank must take
    them all.
    """
    experiment = prepared.resolved.experiment
    model.to(ranks.device)
    for name, task in experiment.tasks.items():
        heads = task.objective.linear_heads(model.heads[name])
        if name in keep or not heads:
            yield f"{name}: no probe; its head starts {'from the weights' if name in keep else 'as it was built'}"
            continue
        seen = _see(model, experiment, name, prepared.training[name], ranks)
        held_out = _see(model, experiment, name, prepared.validation.get(name, ()), ranks)
        fitted: list[dict[str, Linear | None]] = [{}]
        if seen is not None and ranks.is_main:
            for target in heads:
                validation = (held_out.pooled, held_out.targets[target]) if held_out else None
                fitted[0][target] = task.objective.fit(target, seen.pooled, seen.targets[target], validation)
        if ranks.control is not None:
            dist.broadcast_object_list(fitted, src=0, group=ranks.control)
        for target, linear in fitted[0].items():
            if linear is not None:
                with torch.no_grad():
                    heads[target].projection.weight.copy_(linear.weight)
                    heads[target].projection.bias.copy_(linear.bias)
        costs = " and ".join(f"{linear.cost:g}" for linear in fitted[0].values() if linear is not None)
        if not costs:
            yield f"{name}: no probe, for too few examples can be read; its head starts as it was built"
            continue
        examples = len(seen.pooled) if seen is not None else 0
        yield f"{name}: head fitted to the frozen features of {examples:,} examples (C = {costs})"


@torch.no_grad()
def _see(model: Model, experiment: Experiment, name: str, records: Sequence[Record], ranks: Ranks) -> _Seen | None:
    """The features of the examples that can be read, in their order, on every rank; None where there are none."""
    task, training = experiment.tasks[name], experiment.training
    if not records:
        return None
    specs = {key: experiment.model.inputs[key] for key in task.inputs}
    card = task.objective.card()
    views = ViewSet(records, card.targets(), specs, Views())
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
        targets = [card.named(x.target) for _, x in part if x.target is not None]
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
