"""A handwritten digit that moves over a field without edges.

The field is a torus: what leaves on one side comes back on the other. With the starting point drawn uniformly, the
digit's place at any moment is uniform too, whatever its direction and speed, so one frame says nothing about motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits


class Direction(NamedTuple):
    name: str
    words: str
    step: tuple[float, float]  # (down, right), of length 1


class Ink(NamedTuple):
    name: str
    rgb: tuple[int, int, int]


_D = 0.5**0.5
DIRECTIONS = (
    Direction("up", "up", (-1, 0)),
    Direction("up-right", "up and to the right", (-_D, _D)),
    Direction("right", "to the right", (0, 1)),
    Direction("down-right", "down and to the right", (_D, _D)),
    Direction("down", "down", (1, 0)),
    Direction("down-left", "down and to the left", (_D, -_D)),
    Direction("left", "to the left", (0, -1)),
    Direction("up-left", "up and to the left", (-_D, -_D)),
)
INKS = (
    Ink("white", (255, 255, 255)),
    Ink("red", (255, 80, 80)),
    Ink("green", (90, 230, 90)),
    Ink("blue", (110, 150, 255)),
    Ink("yellow", (250, 220, 60)),
    Ink("pink", (255, 130, 220)),
)
SLOW, FAST = (0.35, 0.5), (0.6, 0.8)  # fields per second


class Glyphs:
    """The written digits, one index for each, and which split its writer belongs to.

    ``load_digits`` keeps the order in which 14 filled-in sheets were scanned; each begins with 0123456789 three times.
    The cut lies between two sheets: the first eleven train (1,415 digits), the last three validate (382).
    """

    _CUT = 1415

    def __init__(self) -> None:
        data = load_digits()
        self._pixels: NDArray[np.float32] = (data.images / 16).astype(np.float32)  # pyright: ignore
        self.digit: list[int] = data.target.tolist()  # pyright: ignore

    def of(self, split: str) -> range:
        return range(self._CUT) if split == "train" else range(self._CUT, len(self.digit))

    def picture(self, glyph: int, size: int) -> NDArray[np.float32]:
        """The written digit ``glyph``, smoothly enlarged from its 8 x 8 pixels: (size, size) ink coverage in [0, 1]."""
        enlarged = Image.fromarray(self._pixels[glyph]).resize((size, size), Image.Resampling.BICUBIC)
        return np.clip(np.asarray(enlarged), 0, 1)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One digit in motion. ``start``: (down, right) in fields. ``pace`` in [0, 1]: where its speed lies in the range
    SLOW or FAST. ``direction`` and ``ink`` count in DIRECTIONS and INKS, ``glyph`` in the written digits."""

    glyph: int
    direction: int
    start: tuple[float, float]
    fast: bool
    pace: float
    ink: int

    @property
    def speed(self) -> float:
        """Fields per second."""
        low, high = FAST if self.fast else SLOW
        return low + self.pace * (high - low)

    def draw(self, glyphs: Glyphs, size: int, frames: int, fps: float) -> NDArray[np.uint8]:
        """The video, (frames, 3, size, size); the digit's box is half the field."""
        field = np.zeros((size, size), np.float32)
        field[: size // 2, : size // 2] = glyphs.picture(self.glyph, size // 2)
        seconds = np.arange(frames)[:, None] / fps
        place = np.asarray(self.start) + seconds * self.speed * np.asarray(DIRECTIONS[self.direction].step)
        coverage = _roll(field, place * size)
        return np.rint(coverage[:, None] * np.asarray(INKS[self.ink].rgb, np.float32)[:, None, None]).astype(np.uint8)


def _roll(field: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """``field`` (H, W) moved around the torus to each of the places (T, 2), in pixels and fractions: (T, H, W)."""
    whole = np.floor(places).astype(int)
    part = (places - whole)[:, :, None, None]
    H, W = field.shape

    def moved(down: int, right: int) -> NDArray[np.float32]:
        rows = (np.arange(H) - whole[:, :1] - down) % H
        columns = (np.arange(W) - whole[:, 1:] - right) % W
        return field[rows[:, :, None], columns[:, None, :]]

    upper = (1 - part[:, 1]) * moved(0, 0) + part[:, 1] * moved(0, 1)
    lower = (1 - part[:, 1]) * moved(1, 0) + part[:, 1] * moved(1, 1)
    return ((1 - part[:, 0]) * upper + part[:, 0] * lower).astype(np.float32)
