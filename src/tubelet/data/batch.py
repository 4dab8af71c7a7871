"""What flows through the loader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from tubelet.media.errors import MediaError

Targets = Tensor | dict[str, Tensor]


@dataclass
class Batch:
    """A minibatch of one task; picklable, pinned and moved as a whole.

    ``inputs``: by the names of the model's specs, rasters still uint8; "<name>_mask" (B,) where an example may lack an
    input. ``targets``: class indices (B,), multi-hot (B, K), or a dict of them by label set; None where unlabeled.
    ``keys``: each example's id, carried to the metrics. ``replaced``: unreadable examples that a worker passed over.
    ``seed``: of the objective's own random numbers, such as mixup's weight; the same for all micro-batches.
    """

    task: str
    inputs: dict[str, Tensor]
    targets: Targets | None
    keys: list[str]
    replaced: list[MediaError] = field(default_factory=list)
    seed: int = 0

    def __len__(self) -> int:
        return len(self.keys)

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        targets = self.targets
        if isinstance(targets, dict):
            targets = {name: move(x) for name, x in targets.items()}
        elif targets is not None:
            targets = move(targets)
        return replace(self, inputs={name: move(x) for name, x in self.inputs.items()}, targets=targets)

    def pin_memory(self) -> Batch:
        return self._map(lambda x: x.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        return self._map(lambda x: x.to(device, non_blocking=True))

    def split(self, parts: int) -> list[Batch]:
        """``parts`` consecutive pieces of (nearly) equal size: the micro-batches of gradient accumulation."""
        if not 1 <= parts <= len(self):
            raise ValueError(f"cannot split a batch of {len(self)} examples into {parts} micro-batches")
        bounds = [len(self) * i // parts for i in range(parts + 1)]
        return [self._slice(slice(a, b)) for a, b in pairwise(bounds)]

    def _slice(self, rows: slice) -> Batch:
        part = self._map(lambda x: x[rows])
        return replace(part, keys=self.keys[rows], replaced=self.replaced if rows.start == 0 else [])
