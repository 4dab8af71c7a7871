"""What every encoder returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """The features of a minibatch.

    ``tokens`` (B, N, D): after the final norm, special tokens left out. ``pooled`` (B, D): class token, or the mean.
    ``boxes`` (N, 3, 2): where each token sits in time, height and width, as fractions of the input in [0, 1]; None
    where tokens have no place. ``parts``: the features of single modalities or streams, where a paper uses them.
    """

    tokens: Tensor
    pooled: Tensor
    boxes: Tensor | None = None
    parts: Mapping[str, Features] = field(default_factory=dict)


torch.export.register_dataclass(Features, serialized_type_name="tubelet.Features")
