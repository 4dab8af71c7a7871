"""Rasters to tokens: image patches, tubelets and uniformly sampled frames (ViViT Sec. 3.2)."""

from __future__ import annotations

import numpy as np
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.compiling import constant_result
from tubelet.nn.inflation import Inflation, Tubelet, resample_kernel
from tubelet.nn.initializers import init_dense_


class TubeletTokenizer(nn.Module):
    """Tubelets of (t, h, w) pixels, each mapped linearly to one token.

    They begin a ``stride`` (t, h, w) apart, which is their own size unless told otherwise; with less, they overlap, as
    AST's patches do. Equal to a valid convolution: frames and pixels that fill no tubelet are left out. With t = 1
    every frame is cut into image patches. An image is a video of one frame; a spectrogram is an image of T x M pixels
    whose channels are all the same, a waveform one of 1 x S.
    """

    def __init__(self, tubelet: Tubelet, width: int, channels: int = 3, stride: Tubelet | None = None) -> None:
        super().__init__()
        self.tubelet, self.stride, self.channels = tubelet, stride or tubelet, channels
        self.projection = nn.Linear(channels * tubelet[0] * tubelet[1] * tubelet[2], width)
        init_dense_(self.projection)

    def forward(
        self,
        x: Float[Tensor, "B T C H W"] | Float[Tensor, "B C H W"] | Float[Tensor, "B time M"] | Float[Tensor, "B S"],
    ) -> Float[Tensor, "B t h w D"]:
        t, h, w = self.tubelet
        video = as_video(x, self.channels)
        frames, height, width = grid_of((video.shape[1], video.shape[3], video.shape[4]), self.tubelet, self.stride)
        if self.stride == self.tubelet:
            video = video[:, : frames * t, :, : height * h, : width * w]
            blocks = rearrange(video, "B (T t) C (H h) (W w) -> B T H W (C t h w)", t=t, h=h, w=w)
        else:
            for axis, size, step in zip((1, 3, 4), self.tubelet, self.stride, strict=True):
                video = video.unfold(axis, size, step)
            blocks = rearrange(video, "B T C H W t h w -> B T H W (C t h w)")
        return self.projection(blocks)

    def resample(self, name: str, value: Tensor, theirs: nn.Module, how: Inflation) -> Tensor:
        """``value``, a parameter of another tokenizer, for these tubelets; see :func:`resample_kernel`.

        Where the numbers of channels differ, each gets an equal share of the sum of theirs: what is the same in all
        channels, as sound and gray pictures are, then stays the same token.
        """
        if name != "projection.weight" or not isinstance(theirs, TubeletTokenizer):
            return value
        if self.channels != theirs.channels:
            kernels = value.unflatten(1, (theirs.channels, -1)).sum(1, keepdim=True) / self.channels
            value = kernels.expand(-1, self.channels, -1).flatten(1)
        return resample_kernel(value, theirs.tubelet, self.tubelet, how)


def as_video(
    x: Float[Tensor, "B T C H W"] | Float[Tensor, "B C H W"] | Float[Tensor, "B time M"] | Float[Tensor, "B S"],
    channels: int,
) -> Float[Tensor, "B T C H W"]:
    """A video, an image or sound as a video; sound is repeated for every channel."""
    if x.ndim == 2:
        x = x[:, None]
    if x.ndim == 3:
        x = x[:, None].expand(-1, channels, -1, -1)
    return x[:, None] if x.ndim == 4 else x


def grid_of(size: tuple[int, int, int], tubelet: Tubelet, stride: Tubelet | None = None) -> tuple[int, int, int]:
    """(n_t, n_h, n_w): how many tubelets fit into (T, H, W), rounded down (Sec. 3.2).

    They begin a ``stride`` (t, h, w) apart; one after the other, if None.
    """
    if min(*tubelet, *(stride or tubelet)) < 1:
        raise ValueError(f"a tubelet of (frames, height, width) {tubelet} must have at least one of each")
    t, h, w = ((whole - part) // step + 1 for whole, part, step in zip(size, tubelet, stride or tubelet, strict=True))
    grid = (t, h, w)
    if min(grid) < 1:
        raise ValueError(f"a clip of (frames, height, width) {size} is smaller than one tubelet {tubelet}")
    return grid


@constant_result
def uniform_frames(frames: int, count: int) -> list[int]:
    """The indices of ``count`` frames spread evenly over a clip of ``frames`` (uniform frame sampling, Sec. 3.2).

    As the released code rounds: for a few pairs, (8, 2) among them, one more index than asked comes out, which is what
    its tables of positions are made for.
    """
    if count < 1:
        raise ValueError(f"{count=} frames cannot be sampled")
    if count >= frames:
        return list(range(frames))
    step = frames / (count + 1)
    places = np.arange(step, frames, step, dtype=np.float32)
    return np.clip(np.round(places), 0, frames - 1).astype(int).tolist()
