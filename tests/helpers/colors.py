"""Videos of one color, and a model that sees colors: what it must answer is known without training."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tubelet.cards import ClassCard
from tubelet.configs import register
from tubelet.data.dataset import ViewSet
from tubelet.data.manifest import read_manifest
from tubelet.data.views import Views
from tubelet.evaluation.evaluate import evaluate_task
from tubelet.media.write import write_video
from tubelet.models import Encoder, Model, ModelConfig
from tubelet.nn.features import Features
from tubelet.specs import InputSpec, VideoSpec
from tubelet.training.ranks import init_distributed
from tubelet.weights.loaded import LoadedModel

NAMES = ("red", "green", "blue")
CARD = ClassCard(classes=NAMES, views="2x1")
SPEC = VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16)


@dataclass(frozen=True, kw_only=True)
class ColorConfig(ModelConfig):
    spec: InputSpec = SPEC
    name: str = "video"

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return {self.name: self.spec}

    def build(self) -> ColorEncoder:
        return ColorEncoder(self)


register(ModelConfig, "colors", ColorConfig)


class ColorEncoder(Encoder):
    """Pooled features: the mean red, green and blue of a view, times 4."""

    def __init__(self, config: ColorConfig) -> None:
        super().__init__(config, 3)
        self.scale = nn.Parameter(torch.tensor(4.0))

    def encode(self, inputs):
        (x,) = inputs.values()
        pooled = x.movedim(-3, 1).flatten(2).mean(2) * self.scale
        return Features(pooled[:, None], pooled)


class Pooled(nn.Module):
    def forward(self, features: Features) -> Tensor:
        return features.pooled


def color_model(config: ColorConfig = ColorConfig(), card: ClassCard = CARD) -> LoadedModel:
    return LoadedModel(Model(config.build(), {"color": Pooled()}), config, {"color": card})


def frames_of(*colors: str, each: int = 10, size: int = 16) -> Tensor:
    """``each`` frames of every color in turn."""
    frames = torch.zeros(len(colors) * each, 3, size, size, dtype=torch.uint8)
    for place, color in enumerate(colors):
        frames[place * each : (place + 1) * each, NAMES.index(color)] = 220
    return frames


def write_colors(folder: Path, seen: Sequence[tuple[str, ...]], labels: Sequence[str], *, broken: int = 0) -> Path:
    """A manifest of videos (10 frames a second) that show ``seen`` and are labeled ``labels``, then broken ones."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str]] = []
    for number, (colors, label) in enumerate(zip(seen, labels, strict=True)):
        write_video(folder / f"{number}.mp4", frames_of(*colors), fps=10.0)
        rows.append((f"{number}.mp4", label, "val"))
    for number in range(broken):
        (folder / f"broken{number}.mp4").write_bytes(b"not a video at all")
        rows.append((f"broken{number}.mp4", "red", "val"))
    with (folder / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "all.csv"


def view_set(manifest: Path, views: Views = Views(clips=2), card: ClassCard = CARD) -> ViewSet:
    return ViewSet(read_manifest(manifest).split("val"), card.targets(), {"video": SPEC}, views)


def evaluate_on_rank(rank: int, world: int, port: int, manifest: Path, views: Views, out: Path) -> None:
    """One process of a group: evaluates and leaves the result in ``out``."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    model = color_model().model
    calls: list[int] = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    with init_distributed() as ranks:
        result = evaluate_task(model, "color", CARD, view_set(manifest, views), views_per_forward=4, ranks=ranks)
    torch.save({"json": result.as_json(), "keys": [e.key for e in result.examples], "forwards": len(calls)}, out)
