"""Tables of positions for another size of input (ViViT Sec. 3.4, PolyViT App. D)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tubelet.nn.positions import Grid, LearnedPositions, interpolate_grid


def resize_positions(source: LearnedPositions, target: LearnedPositions) -> Float[Tensor, "N D"]:
    """The table of ``source`` for the grid of ``target``: linear in time, height and width, corners aligned.

    An image's table is so repeated in time and resized in space: what the released code's "tile", "resize" and
    "resize_tile" do where they are used as meant. It guesses grids from lengths, and copies a table of equal length
    whatever its grid; here the grids are known. A target of one frame gets the mean over the source's frames, resized
    in space (App. D). A special token that only the target has keeps its own row.
    """
    special = (source if source.special >= target.special else target).table[: target.special]
    places = source.table[source.special :]
    if source.grid != target.grid:
        volume, grid = places.double(), source.grid
        if target.grid[0] == 1:
            volume, grid = volume.unflatten(0, (grid[0], -1)).mean(0), (1, *grid[1:])
        places = interpolate_grid(volume, grid, target.grid).to(places)
    return torch.cat([special, places])


def square_grid(places: int) -> Grid:
    """The most square picture of so many places: 2 x 2 for 4, 2 x 3 for 6."""
    height = next(side for side in range(math.isqrt(places), 0, -1) if places % side == 0)
    return 1, height, places // height
