"""What Talking Digits consists of: every file of it as a value, before anything is drawn, spoken or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tubelet.data.talking_digits.scenes import DIRECTIONS, INKS, Glyphs, Scene
from tubelet.data.talking_digits.speech import VOICES, Utterance
from tubelet.seeds import mix

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


FRAMES, FPS = 25, 12.5  # of every video: 2 seconds, in which any voice has room for a digit
SECONDS = FRAMES / FPS


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """All that decides the files: equal parameters give equal bytes with the same versions of the packages.

    ``train``, ``val``: how many examples motion, spoken and duet have each; digit has every written digit once.
    ``size``: the side of the square field, pixels.
    """

    seed: int = 0
    train: int = 1600
    val: int = 400
    size: int = 32

    def __post_init__(self) -> None:
        if min(self.train, self.val) < 1:
            raise ValueError(f"{self.train=} and {self.val=} must be at least 1")
        if self.size < 16 or self.size % 2:
            raise ValueError(f"{self.size=} must be even and at least 16, or no digit can be told from another")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file: a still digit (``glyph``), an utterance, or a scene with an utterance.

    ``path``: below the data's folder. ``labels``: by manifest, for a file may stand in several. ``onset``: when the
    voice sets in, from 0 (at once) to 1 (so late that it ends with the video).
    """

    path: str
    split: Split
    labels: dict[str, str]
    text: str
    glyph: int | None = None
    scene: Scene | None = None
    utterance: Utterance | None = None
    onset: float = 0.0


def items(parameters: Parameters, glyphs: Glyphs) -> list[Item]:
    """Every file of the data, in a fixed order."""
    plan: list[Item] = []
    for split in SPLITS:
        count = parameters.train if split == "train" else parameters.val
        draws = [_Draws(parameters.seed, task, split, count, glyphs) for task in range(3)]
        plan += [_digit(split, glyph, glyphs.digit[glyph]) for glyph in glyphs.of(split)]
        plan += [_motion(draws[0], split, i) for i in range(count)]
        plan += [_spoken(draws[1], split, i) for i in range(count)]
        plan += [_duet(draws[2], split, i) for i in range(count)]
    return plan


def _digit(split: Split, glyph: int, digit: int) -> Item:
    return Item(
        path=f"digit/{split}/{glyph:04d}.png",
        split=split,
        labels={"digit": WORDS[digit]},
        text=f"a handwritten {WORDS[digit]}",
        glyph=glyph,
    )


def _motion(draws: _Draws, split: Split, i: int) -> Item:
    """A digit moves one of eight ways while a voice says the same digit."""
    scene = draws.scene(i, direction=draws.order[i] % len(DIRECTIONS))
    digit = draws.written(i)
    return Item(
        path=f"motion/{split}/{i:05d}.mp4",
        split=split,
        labels={"motion": DIRECTIONS[scene.direction].name, "talking": WORDS[digit]},
        text=_caption(scene, digit),
        scene=scene,
        utterance=draws.utterance(i, digit),
        onset=draws.onset[i],
    )


def _spoken(draws: _Draws, split: Split, i: int) -> Item:
    digit = draws.order[i] % len(WORDS)
    return Item(
        path=f"spoken/{split}/{i:05d}.wav",
        split=split,
        labels={"spoken": WORDS[digit]},
        text=f"a voice says {WORDS[digit]}",
        utterance=draws.utterance(i, digit),
    )


def _duet(draws: _Draws, split: Split, i: int) -> Item:
    """The spoken digit is drawn without regard to the written one: only ear and eye together know the label."""
    spoken, direction = divmod(draws.order[i] % (len(WORDS) * len(DIRECTIONS)), len(DIRECTIONS))
    scene = draws.scene(i, direction=direction)
    return Item(
        path=f"duet/{split}/{i:05d}.mp4",
        split=split,
        labels={"duet": f"{WORDS[spoken]}/{DIRECTIONS[direction].name}"},
        text=f"{_caption(scene, draws.written(i))} while a voice says {WORDS[spoken]}",
        scene=scene,
        utterance=draws.utterance(i, spoken),
        onset=draws.onset[i],
    )


def _caption(scene: Scene, digit: int) -> str:
    pace = "quickly" if scene.fast else "slowly"
    return f"a {INKS[scene.ink].name} {WORDS[digit]} moves {pace} {DIRECTIONS[scene.direction].words}"


class _Draws:
    """The random numbers of one task's split, ``count`` of each kind."""

    def __init__(self, seed: int, task: int, split: Split, count: int, glyphs: Glyphs) -> None:
        random = np.random.default_rng(mix(seed, task, SPLITS.index(split)))
        self._glyphs, self._voices = glyphs, VOICES[split]
        self.order: list[int] = random.permutation(count).tolist()  # a label is order % classes: balanced and shuffled
        self.glyph = _spread(random, glyphs.of(split), count)
        self.ink = random.integers(len(INKS), size=count)
        self.start = random.random((count, 2))
        self.fast = random.random(count) < 0.5
        self.pace = random.random(count)
        self.voice = random.integers(len(self._voices), size=count)
        self.rate = random.integers(130, 221, size=count)
        self.pitch = random.integers(20, 81, size=count)
        self.gain = random.uniform(0.3, 0.9, size=count)
        self.onset: list[float] = random.random(count).tolist()

    def written(self, i: int) -> int:
        return self._glyphs.digit[self.glyph[i]]

    def scene(self, i: int, direction: int) -> Scene:
        return Scene(
            glyph=self.glyph[i],
            direction=direction,
            start=(float(self.start[i, 0]), float(self.start[i, 1])),
            fast=bool(self.fast[i]),
            pace=float(self.pace[i]),
            ink=int(self.ink[i]),
        )

    def utterance(self, i: int, digit: int) -> Utterance:
        return Utterance(
            word=WORDS[digit],
            voice=self._voices[self.voice[i]],
            rate=int(self.rate[i]),
            pitch=int(self.pitch[i]),
            gain=float(self.gain[i]),
        )


def _spread(random: np.random.Generator, pool: Sequence[int], count: int) -> list[int]:
    """``count`` members of ``pool``, each taken once before any is taken again."""
    rounds = [random.permutation(np.asarray(pool)) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count].tolist()
