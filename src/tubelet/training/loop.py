"""The training loop: minibatches to updates. Logging, checkpoints and the rest are hooks that it calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tubelet.data.batch import Batch
from tubelet.seeds import mix
from tubelet.training.optimizers import clip_by_global_norm_, fill_missing_gradients
from tubelet.training.parallel import gradient_sync
from tubelet.training.ranks import Ranks

_MODEL, _OBJECTIVE = 2, 3  # keep the random numbers of the two apart from each other and from the plan's


@dataclass(frozen=True)
class Update:
    """One update of the weights, as hooks see it. Tensors are detached and may still be on their way.

    ``step``: updates done, this one included. ``scores``: the loss and the metrics of each of its ``batches``, on this
    rank's part of it. ``started`` (time.perf_counter) and ``waited``: when the update began, and the seconds it waited
    for data.
    """

    step: int
    batches: Sequence[Batch]
    scores: Sequence[dict[str, Tensor]]
    gradient_norm: Tensor
    learning_rate: float
    started: float
    waited: float

    @property
    def tasks(self) -> list[str]:
        """The task of each minibatch."""
        return [batch.task for batch in self.batches]

    @property
    def losses(self) -> list[Tensor]:
        """The loss of each minibatch."""
        return [scores["loss"] for scores in self.scores]


Hook = Callable[[Update], None]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """``module`` takes a minibatch to its loss; ``learning_rate`` takes an update's step and tasks to its rate."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    ranks: Ranks
    seed: int
    learning_rate: Callable[[int, Sequence[str]], float]
    tasks_per_update: int = 1
    micro_batches: int = 1
    clip_norm: float = 1.0
    precision: torch.dtype = torch.float32

    def run(
        self,
        batches: Iterator[Batch],
        start: int,
        end: int,
        hooks: Sequence[Hook],
        enough: Callable[[], bool] = lambda: False,
    ) -> int:
        """Updates ``start`` to ``end``, or until there are ``enough``; returns the updates done.

        ``batches`` begins with the first minibatch of update ``start``.
        """
        self.module.train()
        for step in range(start, end):
            if enough():
                return step
            update = self._update(batches, step)
            for hook in hooks:
                hook(update)
        return end

    def _update(self, batches: Iterator[Batch], step: int) -> Update:
        started, waited, seen, scores = time.perf_counter(), 0.0, list[Batch](), list[dict[str, Tensor]]()
        self.optimizer.zero_grad()
        for minibatch in range(step * self.tasks_per_update, (step + 1) * self.tasks_per_update):
            asked = time.perf_counter()
            seen.append(next(batches))
            waited += time.perf_counter() - asked
            scores.append(self._backward(seen[-1], minibatch))
        rate = self.learning_rate(step, [batch.task for batch in seen])
        norm = self._step(rate)
        return Update(step + 1, seen, scores, norm, rate, started, waited)

    def _backward(self, batch: Batch, minibatch: int) -> dict[str, Tensor]:
        """Add the gradient of the minibatch's mean loss; its scores. Micro-batches count by their sizes."""
        self._seed(mix(self.seed, _MODEL, minibatch, self.ranks.rank))
        seed = mix(self.seed, _OBJECTIVE, minibatch, self.ranks.rank)
        parts = replace(batch.to(self.ranks.device), seed=seed).split(self.micro_batches)
        total: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            share = len(part) / len(batch)
            with gradient_sync(self.module, now=index == len(parts) - 1):
                with torch.autocast(self.ranks.device.type, self.precision, enabled=self.precision != torch.float32):
                    loss, metrics = self.module(part)
                (loss * share).backward()
            for name, value in {"loss": loss.detach(), **metrics}.items():
                total[name] = total.get(name, 0) + value * share
        return total

    def _seed(self, seed: int) -> None:
        """As torch.manual_seed, which spends half a millisecond on devices that are not in use."""
        torch.default_generator.manual_seed(seed)
        if self.ranks.device.type != "cpu":
            torch.get_device_module(self.ranks.device).manual_seed(seed)

    def _step(self, rate: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        fill_missing_gradients(parameters)
        norm = clip_by_global_norm_([p.grad for p in parameters], self.clip_norm)
        self.optimizer.step()
        return norm
