"""Examples that lack some of the inputs of a model that can do without."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tubelet.data.readers import reader_of
from tubelet.specs import InputSpec


def masked(inputs: Mapping[str, Tensor], specs: Mapping[str, InputSpec]) -> dict[str, Tensor]:
    """The views of an example that may lack some of ``specs``: blanks in their place, and for each of them a mask (V,)
    that is 0 where it is a blank, else 1."""
    views = len(next(iter(inputs.values())))
    blanks = {name: torch.cat([reader_of(spec).blank()] * views) for name, spec in specs.items() if name not in inputs}
    masks = {f"{name}_mask": torch.full((views,), float(name in inputs)) for name in specs}
    return {**inputs, **blanks, **masks}
