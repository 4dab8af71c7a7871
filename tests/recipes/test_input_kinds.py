"""Inputs beyond pictures, videos and spectrograms, from training to prediction: a kind of one's own, optical flow, and
waveforms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor, nn

import tubelet
from media_files import record_sound
from senses import tone
from tubelet.configs import register
from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Record, write_manifest
from tubelet.data.readers import ExampleFiles, InputReader, register_input
from tubelet.data.views import Views
from tubelet.media.errors import MediaError
from tubelet.media.video import open_video
from tubelet.media.write import write_video
from tubelet.models.model import Encoder, ModelConfig
from tubelet.models.mtv import MTVConfig, Stream
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.features import Features
from tubelet.recipes.run import run
from tubelet.specs import InputSpec, VideoSpec, WaveformSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task, Training


@dataclass(frozen=True, kw_only=True)
class CurveSpec(InputSpec):
    """The brightness of a video over time: ``(B, points)``, 0 to 1."""

    modality = "video"
    points: int = 5

    @property
    def shape(self) -> tuple[int]:
        return (self.points,)


class CurveReader(InputReader[CurveSpec]):
    kinds, one, many, timed = ("video",), "a brightness curve", "brightness curves", False

    def train(self, files: ExampleFiles, augment: Augmentation, random: Random) -> Tensor:
        return self._curve(files)

    def views(self, files: ExampleFiles, views: Views) -> tuple[Tensor, bool]:
        return self._curve(files)[None], False

    def _curve(self, files: ExampleFiles) -> Tensor:
        line, points = files.kept.timelines.of(files.part(self.spec)), self.spec.points
        with open_video(files.part(self.spec).path) as video:
            frames = video.frames_at([line.start + line.length * i / points for i in range(points)]).frames
        return frames.float().mean((1, 2, 3)) / 255


@dataclass(frozen=True, kw_only=True)
class RowConfig(ModelConfig):
    """A dense layer on whatever row of numbers ``spec`` describes."""

    spec: InputSpec

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return {"row": self.spec}

    def build(self) -> RowEncoder:
        return RowEncoder(self)


class RowEncoder(Encoder):
    def __init__(self, config: RowConfig) -> None:
        super().__init__(config, 8)
        self.dense = nn.Linear(config.spec.shape[0], 8)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        pooled = torch.tanh(self.dense(inputs["row"]))
        return Features(pooled[:, None], pooled)


register_input(CurveSpec, CurveReader, "curve")
register(ModelConfig, "row", RowConfig)


def experiment(model: ModelConfig, manifest: Path, steps: int = 30) -> Experiment:
    task = Task(
        source=Source(path=str(manifest)),
        objective=Classification(head_init="lecun"),
        inputs=tuple(model.inputs),
        augment=Augmentation(crop=0.0, flip=0.0, scale_jitter=0.0, color=0.0, grayscale=0.0),
        batch_size=4,
        length=Length(steps=steps),
        warmup=Length(),
        learning_rate=0.1,
        views=Views(),
    )
    return Experiment(model=model, tasks={"task": task}, training=Training(workers=0))


def trained(experiment: Experiment, out: Path) -> dict[str, float]:
    """The metrics of the test, as the run leaves them."""
    run(experiment, out, progress=False)
    return json.loads((out / "results.json").read_text())["tasks"]["task"]["metrics"]


def fading(up: bool, start: int) -> Tensor:
    levels = start + torch.arange(10) * 15
    levels = levels if up else levels.flip(0)
    return levels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16).contiguous()


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A manifest of videos that get brighter or darker, each with a flow that moves left or right."""
    folder = tmp_path_factory.mktemp("videos")
    records: list[Record] = []
    for i in range(16):
        up = bool(i % 2)
        seen, flow = folder / f"{i}.mp4", folder / f"{i}-flow.mp4"
        write_video(seen, fading(up, 4 * i), fps=10.0)
        moved = torch.full((9, 3, 16, 16), 128, dtype=torch.uint8)
        moved[:, 0] = 220 if up else 30
        write_video(flow, moved, fps=10.0)
        split = "train" if i < 10 else "val"
        labels = {"label": ("up" if up else "down",)}
        records.append(Record(path=str(seen), labels=labels, split=split, paths={"flow": str(flow)}))
    write_manifest(folder / "all.csv", records)
    return folder / "all.csv"


def test_a_kind_of_input_of_ones_own_trains_is_evaluated_predicts_and_is_loaded(videos, tmp_path):
    metrics = trained(experiment(RowConfig(spec=CurveSpec()), videos, steps=60), tmp_path / "run")
    assert metrics["top1"] == 1.0
    model = tubelet.load(tmp_path / "run")
    assert json.loads((tmp_path / "run/model/tubelet.json").read_text())["inputs"]["row"]["kind"] == "curve"
    for number, label in ((14, "down"), (15, "up")):
        assert model.predict(videos.parent / f"{number}.mp4").labels[0].label == label
    with pytest.raises(MediaError, match="brightness curve, which has no timeline"):
        model.timeline(videos.parent / "14.mp4")


def test_an_mtv_learns_from_videos_and_their_flow(videos, tmp_path):
    small = TransformerConfig(width=16, depth=1, heads=2, mlp=32)
    seen = {"frames": 4, "stride": 2, "size": (16, 16), "short_side": 16}
    flow = VideoSpec(**seen, values="flow", column="path.flow", mean=(0.5, 0.5), std=(0.5, 0.5))
    model = MTVConfig(
        streams={
            "flow": Stream(backbone=small, tubelet=(2, 8, 8), input="flow"),
            "video": Stream(backbone=small, tubelet=(2, 8, 8), input="video"),
        },
        media={"video": VideoSpec(**seen), "flow": flow},
        global_encoder=TransformerConfig(width=32, depth=1, heads=2, mlp=32),
    )
    metrics = trained(experiment(model, videos), tmp_path / "run")
    assert metrics["top1"] == 1.0
    loaded = tubelet.load(tmp_path / "run")
    assert loaded.config == model
    with pytest.raises(MediaError, match=r"'flow' is read from the column 'path.flow'.*manifest"):
        loaded.predict(videos.parent / "15.mp4")


def test_a_model_of_waveforms_learns_from_sound_files_and_predicts(tmp_path):
    spec = WaveformSpec(samples=800, rate=16_000)
    records: list[Record] = []
    for i in range(12):
        wave = tone("low") * (0.2 if i % 2 else 1.0)
        path = record_sound(tmp_path / f"{i}.wav", abs(wave))
        labels = {"label": ("quiet" if i % 2 else "loud",)}
        records.append(Record(path=str(path), labels=labels, split="train" if i < 8 else "val"))
    write_manifest(tmp_path / "all.csv", records)
    metrics = trained(experiment(RowConfig(spec=spec), tmp_path / "all.csv", steps=60), tmp_path / "run")
    assert metrics["top1"] == 1.0
    model = tubelet.load(tmp_path / "run")
    assert model.predict(tmp_path / "10.wav").labels[0].label == "loud"
    assert {part.label for part in model.timeline(tmp_path / "11.wav")} == {"quiet"}
