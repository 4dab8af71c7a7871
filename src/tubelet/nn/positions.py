"""Where tokens are: learned tables that fit any clip, fixed sinusoids, and the boxes that tokens cover."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.inflation import Inflation

Grid = tuple[int, int, int]
Resize = Literal["linear", "cubic", "antialiased"]


class LearnedPositions(nn.Module):
    """A learned vector per place of a (t, h, w) grid, and one per special token, whose rows come first (Eq. 1).

    A clip of another size gets the table interpolated in (t, h, w): ``resize`` "linear" is the released code's way,
    with the corners aligned; "cubic" that of DINOv2 and of transformers; "antialiased" is cubic, too, and that of
    DINOv2 with registers. ``start``: the places' rows begin as N(0,
    0.02) numbers, or as sinusoids.
    """

    def __init__(
        self,
        grid: Grid,
        width: int,
        special: int = 0,
        start: Literal["normal", "sinusoids"] = "normal",
        resize: Resize = "linear",
    ) -> None:
        super().__init__()
        self.grid, self.special = grid, special
        self.resize: Resize = resize
        self.table = nn.Parameter(torch.empty(special + math.prod(grid), width))
        nn.init.normal_(self.table, std=0.02)
        if start == "sinusoids":
            with torch.no_grad():
                self.table[special:] = grid_sinusoids(grid, width)

    def forward(self, grid: Grid) -> Float[Tensor, "N D"]:
        """The rows for the special tokens and the places of ``grid``, which may differ from the table's own."""
        if grid == self.grid:
            return self.table
        special, places = self.table[: self.special], self.table[self.special :]
        return torch.cat([special, interpolate_grid(places, self.grid, grid, self.resize)])

    def resample(self, name: str, value: Tensor, theirs: nn.Module, how: Inflation) -> Tensor:
        """``value``, the table of ``theirs``, for this grid: linear in time, height and width, corners aligned.

        An image's table is so repeated in time and resized in space: what the released code's "tile", "resize" and
        "resize_tile" do where they are used as meant. It guesses grids from lengths, and copies a table of equal length
        whatever its grid; here the grids are known. A table of one frame gets the mean over the source's frames,
        resized in space (PolyViT App. D). A special token that only this table has keeps its own row.
        """
        if not isinstance(theirs, LearnedPositions):
            return value
        special = (value if theirs.special >= self.special else self.table)[: self.special]
        places, grid = value[theirs.special :], theirs.grid
        if grid != self.grid:
            volume = places.double()
            if self.grid[0] == 1:
                volume, grid = volume.unflatten(0, (grid[0], -1)).mean(0), (1, *grid[1:])
            places = interpolate_grid(volume, grid, self.grid).to(value)
        return torch.cat([special, places])


class FixedPositions(LearnedPositions):
    """Sinusoids of the number of each place of a (t, h, w) grid, which nothing trains (VideoMAE's).

    Another model may start from them; they start from nothing but themselves.
    """

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__(grid, width)
        with torch.no_grad():
            self.table.copy_(sinusoid_1d(math.prod(grid), width, dtype=torch.float64))
        self.table.requires_grad_(False)

    def resample(self, name: str, value: Tensor, theirs: nn.Module, how: Inflation) -> Tensor:
        return self.table


def interpolate_grid(
    places: Float[Tensor, "N D"], source: Grid, target: Grid, resize: Resize = "linear"
) -> Float[Tensor, "M D"]:
    """A table of a (t, h, w) grid resized to another one: trilinear, with the corners aligned; or cubic in height and
    width, with the cells' corners aligned, and linear in time."""
    t, h, w = source
    if resize != "linear":
        frames = rearrange(places, "(t h w) D -> t D h w", t=t, h=h, w=w)
        smooth = resize == "antialiased"
        resized = F.interpolate(frames, size=target[1:], mode="bicubic", align_corners=False, antialias=smooth)
        places, source = rearrange(resized, "t D h w -> (t h w) D"), (t, *target[1:])
        if source == target:
            return places
        t, h, w = source
    volume = rearrange(places, "(t h w) D -> 1 D t h w", t=t, h=h, w=w)
    resized = F.interpolate(volume, size=target, mode="trilinear", align_corners=True)
    return rearrange(resized, "1 D t h w -> (t h w) D")


def grid_boxes(grid: Grid) -> Float[Tensor, "N 3 2"]:
    """The [start, end) of every token of a (t, h, w) grid in time, height and width, as fractions of the input."""
    axes = [torch.arange(n, dtype=torch.float32) for n in grid]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    size = torch.tensor(grid, dtype=torch.float32)
    return torch.stack([places / size, (places + 1) / size], dim=-1)


def grid_sinusoids(grid: Grid, width: int) -> Float[Tensor, "N D"]:
    """Sinusoids of the places of a (t, h, w) grid, over those of its axes that are longer than one.

    Neighbors differ by a quarter turn in the fastest of the frequencies, which are 1 to 1/100 of that; channels that
    the axes do not share out evenly are zero.
    """
    axes = [torch.arange(n) * (math.pi / 2) for n in grid if n > 1] or [torch.zeros(math.prod(grid))]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))
    even = width - width % (2 * len(axes))
    return F.pad(sinusoids(places, even, longest=100.0), (0, width - even))


def sinusoid_1d(
    length: int, width: int, longest: float = 10_000.0, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "N D"]:
    """Sine and cosine interleaved, frequencies longest^(-2j / D) (Vaswani et al. 2017, Sec. 3.5)."""
    frequencies = torch.exp(torch.arange(0, width, 2, dtype=dtype) * (-math.log(longest) / width))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


def sinusoids(places: Float[Tensor, "N A"], width: int, longest: float = 10_000.0) -> Float[Tensor, "N D"]:
    """For each of the A axes in turn, the sines and then the cosines of width / 2A frequencies longest^(-j / (D / 2A)).

    The released code's tables are ``places`` of (x, y) for images and (t, x, y) for videos.
    """
    axes = places.shape[1]
    if width % (2 * axes):
        raise ValueError(f"{width=} must be a multiple of {2 * axes} for sinusoids over {axes} axes")
    count = width // (2 * axes)
    angles = places[:, :, None] * longest ** (-torch.arange(count) / count)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
