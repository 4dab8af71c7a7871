"""Where a model looked, as numbers and as a file to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from tubelet.inference.overlay import overlay
from tubelet.media.write import write_video

_VISIBLE = 256  # pixels: smaller pictures are enlarged, or nobody sees where the light falls


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """``shares`` (t, h, w): how much each token of the grid has in the result; they sum to 1.

    ``part``: how much this input has in it, of all that the model looked at together.
    ``frames`` (T, 3, H, W): what the model saw, uint8. ``rate``: its frames per second; 0 for an image. Of ``sound``
    the grid is (1, time, frequency), and ``frames`` is one picture of it: time rightwards, frequency upwards.
    """

    path: str
    shares: Float[Tensor, "t h w"]
    frames: UInt8[Tensor, "T 3 H W"]
    rate: float
    sound: bool = False
    part: float = 1.0

    def overlay(self) -> UInt8[Tensor, "T 3 H2 W2"]:
        """The frames with the shares laid over them, small ones enlarged by a whole number."""
        times = -(-_VISIBLE // min(self.frames.shape[-2:]))
        frames = self.frames.repeat_interleave(times, -1).repeat_interleave(times, -2)
        return overlay(frames, self.shares.mT.flip(-2) if self.sound else self.shares)

    def write(self, path: str | Path) -> None:
        """Write the overlay: an mp4 for a video, else a picture in the format that ``path`` ends with."""
        frames = self.overlay()
        if self.rate:
            write_video(path, frames[..., : frames.shape[-2] // 2 * 2, : frames.shape[-1] // 2 * 2], fps=self.rate)
        else:
            Image.fromarray(frames[0].permute(1, 2, 0).numpy()).save(path)
