"""Small data for the recipe ``folder``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from media_files import record_sound
from tubelet.data.manifest import Record, write_manifest
from tubelet.nn.blocks import Backbone

TINY = Backbone(width=32, depth=2, heads=2, mlp=64)


def manifest(path: Path, seconds: float, train: int, *, test: str = "val", suffix: str = ".mp4") -> str:
    """A manifest of files that are not there, whose lengths an index has cached."""
    fps = 25.0 if suffix == ".mp4" else 0.0
    records = [
        Record(f"{i}{suffix}", {"label": (f"class {i % 2}",)}, split=split, duration=seconds, fps=fps)
        for split, numbers in (("train", range(train)), (test, range(train, train + 4)))
        for i in numbers
    ]
    write_manifest(path, records)
    return str(path)


def sounds(path: Path, seconds: Sequence[float] = (0.3,) * 5) -> str:
    """Class folders of a low and a high tone in noise, a file of each length in each."""
    random = np.random.default_rng(0)
    for pitch in (200, 3000):
        (path / f"{pitch} Hz").mkdir(parents=True)
        for i, length in enumerate(seconds):
            times = np.arange(int(length * 16_000)) / 16_000
            tone = 0.5 * np.sin(2 * np.pi * pitch * times) + 0.01 * random.standard_normal(len(times))
            record_sound(path / f"{pitch} Hz" / f"{i}.wav", tone.astype(np.float32))
    return str(path)


def pictures(path: Path) -> str:
    """Class folders of dark and bright pictures."""
    for grey in (40, 210):
        (path / str(grey)).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (40, 32), (grey, grey + i, grey)).save(path / str(grey) / f"{i}.png")
    return str(path)
