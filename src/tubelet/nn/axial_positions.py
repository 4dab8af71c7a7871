"""Learned positions as a sum of one table per axis, and the spline that resizes a table (VATT Sec. 3.1, A.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.inflation import Inflation


class PositionTable(nn.Module):
    """A learned vector for each of ``places`` places along one axis, truncated normal of variance 1 / D."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        std = 1 / math.sqrt(width)
        self.table = nn.Parameter(torch.empty(places, width))
        nn.init.trunc_normal_(self.table, std=std, a=-2 * std, b=2 * std)

    def forward(self, places: int) -> Float[Tensor, "places D"]:
        return resize_table(self.table, places)

    def resample(self, name: str, value: Tensor, theirs: nn.Module, how: Inflation) -> Tensor:
        """``value``, the table of another model, for as many places as this one has."""
        return resize_table(value.double(), len(self.table)).to(value)


class AxialPositions(nn.Module):
    """LN(sum over the axes of one learned vector per place along each), as the released code has it.

    ``axes``: the number of places along each axis, by name, slowest first. An input with more or fewer places gets the
    tables resized before the norm. ``by_column`` orders the places of two axes with the second one slowest: the
    released code does so for spectrograms, though the tokens that they are added to are in the other order, and its
    models are trained that way.
    """

    def __init__(self, axes: Mapping[str, int], width: int, eps: float = 1e-6, *, by_column: bool = False) -> None:
        super().__init__()
        self.by_column = by_column
        self.axes = nn.ModuleDict({name: PositionTable(places, width) for name, places in axes.items()})
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, places: Sequence[int]) -> Float[Tensor, "N D"]:
        """The vectors of a grid of so many ``places`` along each axis."""
        tables = [cast("PositionTable", t)(n) for t, n in zip(self.axes.values(), places, strict=True)]
        total = reduce(lambda a, b: a[..., None, :] + b, tables)
        if self.by_column:
            total = total.transpose(0, 1)
        return self.norm(total.flatten(0, -2))


def resize_table(table: Float[Tensor, "n D"], places: int) -> Float[Tensor, "m D"]:
    """A table of n places for m = ``places``, by a polyharmonic spline of order 3.

    ``sum_i w_i |x - i/n|^3 + a + b x`` goes through all rows at i/n, and is read at j/m. The last places lie beyond
    the last row, and are extrapolated, as in the released code (the paper says bi-cubic interpolation). For one place
    this is the first row. Differentiable; the weights are computed in float64.
    """
    if len(table) == places:
        return table
    if len(table) == 1:
        return table.expand(places, -1)
    return spline_weights(len(table), places).to(table) @ table


def spline_weights(n: int, m: int) -> Float[Tensor, "m n"]:
    """What each of n rows counts in each of m places; float64."""
    knots, queries = (torch.arange(count, dtype=torch.float64, device="cpu") / count for count in (n, m))
    affine = torch.stack([torch.ones_like(knots), knots], dim=1)
    cubes = (knots[:, None] - knots).abs() ** 3
    system = torch.cat([torch.cat([cubes, affine], 1), torch.cat([affine.T, affine.new_zeros(2, 2)], 1)])
    values = torch.eye(n + 2, n, dtype=torch.float64, device="cpu")
    basis = torch.cat([(queries[:, None] - knots).abs() ** 3, torch.stack([torch.ones_like(queries), queries], 1)], 1)
    return basis @ torch.linalg.solve(system, values)
