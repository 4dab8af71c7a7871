"""Small data sets and tiny models for probing: pictures and videos of one color, which any encoder tells apart."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from tubelet.media.write import write_video
from tubelet.models import Model, ModelConfig
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.folder import save_model

COLORS = ("red", "green", "blue")
SIZE = TransformerConfig(width=32, depth=2, heads=2, mlp=32)
IMAGE = ImageSpec(size=(16, 16), short_side=16)
VIDEO = VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16)
VIT = ViTConfig(backbone=SIZE, patch=(8, 8), image=IMAGE)
VIVIT = ViViTConfig(backbone=SIZE, tubelet=(2, 8, 8), video=VIDEO)
POLYVIT = PolyViTConfig(
    backbone=SIZE,
    adaptor_depth=1,
    modalities={
        "image": Modality(spec=IMAGE, patch=(1, 8, 8)),
        "video": Modality(spec=VIDEO, patch=(2, 8, 8)),
        "audio": Modality(spec=SpectrogramSpec(frames=32, bins=16, fft=512), patch=(1, 8, 8)),
    },
)


def save_tiny(folder: Path, config: ModelConfig, seed: int = 0) -> Path:
    """A model folder of random weights, without heads."""
    torch.manual_seed(seed)
    save_model(folder, Model(config.build(), {}), config, {})
    return folder


def color_frames(color: str, number: int, frames: int = 1) -> torch.Tensor:
    """(T, 3, 24, 16) of one color, with noise that ``number`` decides."""
    noise = torch.Generator().manual_seed(number)
    made = torch.randint(0, 60, (1, 3, 24, 16), generator=noise, dtype=torch.uint8)
    made[:, COLORS.index(color)] += 180
    return made.expand(frames, -1, -1, -1).contiguous()


def write_media(
    folder: Path, splits: Mapping[str, int], *, video: bool = False, broken: Sequence[str] = (), name: str = "toys.csv"
) -> Path:
    """A manifest with so many examples of every color in each split, and a broken file in each split of ``broken``."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = ".mp4" if video else ".png"
    rows: list[tuple[str, str, str]] = []
    for split, count in splits.items():
        for number in range(count):
            for color in COLORS:
                file = folder / f"{split}_{color}_{number}{ending}"
                frames = color_frames(color, len(rows), 8 if video else 1)
                if video:
                    write_video(file, frames, fps=8.0)
                else:
                    Image.fromarray(frames[0].permute(1, 2, 0).numpy()).save(file)
                rows.append((file.name, color, split))
    for split in broken:
        (folder / f"{split}_broken{ending}").write_bytes(b"nothing that can be read")
        rows.append((f"{split}_broken{ending}", "red", split))
    return write_rows(folder / name, rows)


def write_rows(path: Path, rows: Sequence[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return path
