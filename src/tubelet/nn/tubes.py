"""Sparse video tubes (TubeViT, Piergiovanni et al. 2022, Sec. 3.2-3.4): tokens from blocks far apart in a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.initializers import init_dense_
from tubelet.nn.positions import Grid
from tubelet.nn.tokenizers import Tubelet

Extent = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Tube:
    """A kernel of (t, h, w) frames and pixels, applied every ``stride`` from ``offset`` on, where it fits (valid).

    ``neighbors``: space-to-depth (Sec. 3.4). The stride is divided by it along each axis, and so many neighboring
    results are concatenated along the channels: a token sees more at the cost of a thinner kernel. ``channels``: those
    of one result; 0 stands for the model's width divided by the neighbors. Of a concatenation that is wider than the
    model, the first channels are taken.
    """

    kernel: Tubelet
    stride: Tubelet
    offset: Tubelet = (0, 0, 0)
    neighbors: Tubelet = (1, 1, 1)
    channels: int = 0

    def __post_init__(self) -> None:
        if min(*self.kernel, *self.stride, *self.neighbors) < 1 or min(*self.offset, self.channels) < 0:
            raise ValueError(f"{self} must have positive kernel, stride and neighbors, and no negative number")
        if any(s % n for s, n in zip(self.stride, self.neighbors, strict=True)):
            raise ValueError(f"{self.stride=} must be a multiple of {self.neighbors=}, axis by axis")

    @property
    def step(self) -> Tubelet:
        """From one application of the kernel to the next."""
        (t, h, w), (a, b, c) = self.stride, self.neighbors
        return t // a, h // b, w // c

    def grid(self, extent: Extent) -> Grid:
        """How many tokens (n_t, n_h, n_w) a clip of (frames, height, width) gives."""
        axes = zip(extent, self.offset, self.kernel, self.step, self.neighbors, strict=True)
        n_t, n_h, n_w = (((size - o - k) // s + 1) // n for size, o, k, s, n in axes)
        if min(n_t, n_h, n_w) < 1:
            raise ValueError(f"a clip of (frames, height, width) {extent} is too small for one token of {self}")
        return n_t, n_h, n_w

    def result_width(self, width: int) -> int:
        """The channels of one result in a model of ``width``."""
        count = math.prod(self.neighbors)
        if not self.channels and width % count:
            raise ValueError(f"{width=} must be a multiple of the {count} neighbors of {self}, or channels be given")
        channels = self.channels or width // count
        if channels * count < width:
            raise ValueError(f"{count} neighbors of {channels} channels do not fill {width=}: {self}")
        return channels

    def boxes(self, extent: Extent) -> Float[Tensor, "N 3 2"]:
        """The [start, end) of every token in frames, rows and columns: of all its neighbors together."""
        axes = [
            o + s * torch.arange(n, dtype=torch.float32)
            for o, s, n in zip(self.offset, self.stride, self.grid(extent), strict=True)
        ]
        starts = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        sides = [k + (n - 1) * s for k, n, s in zip(self.kernel, self.neighbors, self.step, strict=True)]
        return torch.stack([starts, starts + torch.tensor(sides, dtype=torch.float32)], dim=-1)

    def cut(self, video: Float[Tensor, "B T C H W"]) -> Float[Tensor, "B N n values"]:
        """The pixels of the n neighbors of every token; those that lie under none are never read."""
        (t, h, w), (s_t, s_h, s_w), (a, b, c) = self.kernel, self.step, self.neighbors
        axes = zip(self.offset, self.kernel, self.step, self.neighbors, self.grid(extent_of(video)), strict=True)
        frames, rows, columns = [slice(o, o + (n * m - 1) * s + k) for o, k, s, m, n in axes]
        blocks = video[:, frames, :, rows, columns].unfold(1, t, s_t).unfold(3, h, s_h).unfold(4, w, s_w)
        return rearrange(blocks, "B (T a) C (H b) (W c) t h w -> B (T H W) (a b c) (C t h w)", a=a, b=b, c=c)


class TubeKernel(nn.Module):
    """A kernel learned in one shape and applied in any (interpolated kernels, Sec. 3.4)."""

    def __init__(self, tubelet: Tubelet, channels: int, width: int) -> None:
        super().__init__()
        self.tubelet = tubelet
        self.projection = nn.Linear(channels * math.prod(tubelet), width)
        init_dense_(self.projection)

    def weight(self, shape: Tubelet) -> Float[Tensor, "D values"]:
        """The kernel in ``shape``: trilinear, times the ratio of the volumes.

        The paper does not say that it rescales. Without it a larger kernel answers louder; with it, and with the
        kernel's mean kept, every shape answers a constant block alike.
        """
        weight = self.projection.weight
        if shape == self.tubelet:
            return weight
        t, h, w = self.tubelet
        learned = rearrange(weight, "D (C t h w) -> D C t h w", t=t, h=h, w=w)
        kernel = F.interpolate(learned, size=shape, mode="trilinear", align_corners=False)
        axes = (2, 3, 4)
        kernel = kernel - kernel.mean(axes, keepdim=True) + learned.mean(axes, keepdim=True)
        return kernel.flatten(1) * (math.prod(self.tubelet) / math.prod(shape))

    def forward(self, video: Float[Tensor, "B T C H W"], tube: Tube) -> Float[Tensor, "B N D"]:
        """The tokens of ``tube``: the results of its neighbors, side by side."""
        return F.linear(tube.cut(video), self.weight(tube.kernel), self.projection.bias).flatten(2)


class SparseTubes(nn.Module):
    """Tokens of several tubes, one tube after the other.

    ``learned``: the shapes that the kernels are learned in, one per tube, or one for a single kernel that all tubes
    share; empty: each in its tube's own.
    """

    def __init__(self, tubes: Sequence[Tube], width: int, channels: int, learned: Sequence[Tubelet] = ()) -> None:
        super().__init__()
        self.tubes, self.width = tuple(tubes), width
        widths = kernel_widths(tubes, width, learned)
        shapes = learned or [tube.kernel for tube in tubes]
        self.kernels = nn.ModuleList(TubeKernel(s, channels, n) for s, n in zip(shapes, widths, strict=True))

    def forward(self, video: Float[Tensor, "B T C H W"]) -> Float[Tensor, "B N D"]:
        kernels = [*self.kernels] * (len(self.tubes) // len(self.kernels))
        tokens = [kernel(video, tube)[..., : self.width] for kernel, tube in zip(kernels, self.tubes, strict=True)]
        return torch.cat(tokens, dim=1)


def kernel_widths(tubes: Sequence[Tube], width: int, learned: Sequence[Tubelet] = ()) -> list[int]:
    """The width of every kernel of :class:`SparseTubes`; raises ValueError where ``learned`` does not fit the tubes."""
    widths = [tube.result_width(width) for tube in tubes]
    if len(learned) == 1 < len(tubes):
        if len(set(widths)) > 1:
            raise ValueError(f"one kernel for all tubes gives all the same channels, not {widths}")
        return widths[:1]
    if learned and len(learned) != len(tubes):
        raise ValueError(f"{len(learned)} shapes of learned kernels for {len(tubes)} tubes: give one per tube, or one")
    return widths


class TubePositions(nn.Module):
    """Fixed sinusoids of the centers of tubes (Sec. 3.3), and the boxes of the tubes, for clips of any extent."""

    table: Tensor
    boxes: Tensor

    def __init__(self, tubes: Sequence[Tube], width: int, extent: Extent) -> None:
        super().__init__()
        self.tubes, self.width, self.extent = tuple(tubes), width, extent
        table, boxes = self._places(extent)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("boxes", boxes, persistent=False)

    def forward(self, extent: Extent) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N 3 2"]]:
        """The positions of all tokens, and their boxes as fractions of the clip."""
        if extent == self.extent:
            return self.table, self.boxes
        table, boxes = self._places(extent)
        return table.to(self.table), boxes.to(self.boxes)

    def _places(self, extent: Extent) -> tuple[Tensor, Tensor]:
        boxes = torch.cat([tube.boxes(extent) for tube in self.tubes])
        centers = boxes.mean(-1)[:, [0, 2, 1]]  # (t, x, y)
        return center_sinusoids(centers, self.width), boxes / torch.tensor(extent, dtype=torch.float32)[:, None]


def center_sinusoids(centers: Float[Tensor, "N 3"], width: int, tau: float = 10_000.0) -> Float[Tensor, "N D"]:
    """Sine and cosine of t, x and y, in turn for each of D // 6 frequencies (Eq. 3-7); channels left over are zero.

    The frequencies are tau^(-j / (D // 6)), as in the transformer that the paper cites: the printed 1 / tau^j would
    leave nothing from j = 2 on.
    """
    count = width // 6
    if not count:
        raise ValueError(f"{width=} must be at least 6, for a sine and a cosine of t, x and y")
    angles = centers[:, None, :] * (tau ** (-torch.arange(count) / count))[:, None]
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return F.pad(waves, (0, width - waves.shape[1]))


def extent_of(video: Float[Tensor, "B T C H W"]) -> Extent:
    return video.shape[1], video.shape[3], video.shape[4]
