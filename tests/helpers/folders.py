"""Small data for the recipe ``folder``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from media_files import record_sound
from tubelet.data.manifest import Record, write_manifest
from tubelet.media.write import write_video
from tubelet.nn.blocks import TransformerConfig
from tubelet.recipes.folder import folder
from tubelet.training.experiment import Experiment

TINY = TransformerConfig(width=32, depth=2, heads=2, mlp=64)
_FPS = 5


def quick(data: str | tuple[str, ...], **options: Any) -> Experiment:
    """The recipe's experiment of one pass, without measuring anything."""
    size = "" if "init" in options else "32x1"
    return folder(data, **{"epochs": 1.0, "size": size, "baseline": False} | options)


def manifest(path: Path, seconds: float, train: int, *, test: str = "val", suffix: str = ".mp4") -> str:
    """A manifest of clips or sounds of two classes, which are all links to one file."""
    files = path.parent / f"files of {path.stem}"
    files.mkdir(parents=True)
    first = files / f"0{suffix}"
    if suffix == ".mp4":
        write_video(first, torch.full((round(seconds * _FPS), 3, 32, 32), 128, dtype=torch.uint8), fps=_FPS)
    else:
        record_sound(first, np.random.default_rng(0).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32))
    for i in range(1, train + 4):
        (files / f"{i}{suffix}").hardlink_to(first)
    records = [
        Record(str(files / f"{i}{suffix}"), {"label": (f"class {i % 2}",)}, split=split)
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
    for gray in (40, 210):
        (path / str(gray)).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (40, 32), (gray, gray + i, gray)).save(path / str(gray) / f"{i}.png")
    return str(path)


def clips(path: Path, files: int = 5) -> str:
    """Class folders of dark and bright clips of a second, ``files`` in each."""
    for gray in (60, 190):
        (path / str(gray)).mkdir(parents=True)
        for i in range(files):
            frames = torch.full((8, 3, 32, 32), gray + i, dtype=torch.uint8)
            write_video(path / str(gray) / f"{i}.mp4", frames, fps=8.0)
    return str(path)
