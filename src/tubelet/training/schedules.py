"""Which task trains on each minibatch, and the learning rate of each update; pure functions of numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tubelet.seeds import mix

Decay = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """Every task gets exactly its own number of minibatches, in a random order. With one task: that task's length.

    One random permutation of all minibatches, as the released PolyViT code, not independent draws.
    """

    tasks_per_update: ClassVar[int] = 1

    def plan(self, lengths: Mapping[str, int], seed: int) -> list[str]:
        """The task of each minibatch."""
        names = [name for name, length in lengths.items() for _ in range(length)]
        draw = random.Random(mix(seed, _PLAN))
        order = [draw.random() for _ in names]
        return [name for _, name in sorted(zip(order, names, strict=True))]


Schedule = Weighted

_PLAN = 1  # keeps the plan's random numbers apart from those of the data and the model


def learning_rate(
    step: int, base: float, warmup: float, total: int, decay: Decay = "cosine", end: float = 0.0
) -> float:
    """The learning rate of update ``step``, counted from 0.

    Linear warm-up from 0 over ``warmup`` updates, then a decay from ``base`` to ``end`` that is complete after
    ``total`` updates. At ``step = total`` the released code's cosine jumps back to ``base``; this one stays at ``end``.
    """
    rising = min(1.0, step / warmup) if warmup > 0 else 1.0
    progress = min(1.0, max(0.0, step - warmup) / max(1, total - int(warmup)))
    match decay:
        case "cosine":
            left = 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            left = 1 - progress
        case "constant":
            left = 1.0
    return rising * (end + (base - end) * left)
