"""A recipe that trains in a second, with all that a run can lose: dropout, mixup, averaged and validated weights."""

from __future__ import annotations

from pathlib import Path

import torch

from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Record, write_manifest
from tubelet.data.views import Views
from tubelet.media.write import write_video
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import VideoSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Mixup


def make_videos(folder: Path, files: int = 24) -> Path:
    """The manifest of tiny videos of two classes."""
    draw, records = torch.Generator().manual_seed(0), list[Record]()
    for i in range(files):
        frames = torch.randint(0, 128, (8, 3, 4, 4), dtype=torch.uint8, generator=draw) + 100 * (i % 2)
        write_video(folder / f"{i}.mp4", frames.repeat_interleave(8, 2).repeat_interleave(8, 3), fps=8.0)
        records.append(Record(f"{i}.mp4", {"label": (str(i % 2),)}, split="val" if i % 4 == 3 else "train"))
    write_manifest(folder / "all.csv", records)
    return folder / "all.csv"


def experiment(data: str, *, updates: int = 24) -> Experiment:
    """A tiny ViViT; a checkpoint every other update."""
    backbone = TransformerConfig(width=32, depth=2, heads=2, mlp=64, dropout=0.1, attention_dropout=0.1)
    task = Task(
        source=Source(path=data, held_out=0.25),
        objective=Classification(head_init="lecun", mixup=Mixup(0.3)),
        augment=Augmentation(),
        batch_size=4,
        length=Length(steps=updates),
        warmup=Length(steps=2),
        stochastic_depth=0.1,
        views=Views(clips=1),
    )
    video = VideoSpec(frames=4, size=(16, 16), short_side=16)
    return Experiment(
        model=ViViTConfig(backbone=backbone, tubelet=(2, 8, 8), video=video),
        tasks={"motion": task},
        training=Training(workers=1, log_every=1, checkpoint_every=2, validate_every=8, ema=0.9),
    )
