"""A model of images, videos and sounds whose answers are known without training, and files for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from colors import NAMES, frames_of
from media_files import record_sound
from tubelet.cards import ClassCard
from tubelet.configs import register
from tubelet.data.views import Views
from tubelet.media.write import write_video
from tubelet.models import Encoder, MBTConfig, Modality, Model, ModelConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.features import Features
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task
from tubelet.training.resolve import Resolved, TaskData, write_run
from tubelet.weights.folder import save_model
from tubelet.weights.loaded import LoadedModel, build_model

PITCHES = ("low", "middle", "high")
HERTZ = {"low": 200.0, "middle": 1200.0, "high": 5000.0}
RATE = 16_000
INPUTS: dict[str, InputSpec] = {
    "image": ImageSpec(size=(16, 16), short_side=16),
    "video": VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16),
    "audio": SpectrogramSpec(frames=50, bins=24),
}
CARDS = {
    "picture": ClassCard(classes=NAMES, inputs=("image",)),
    "film": ClassCard(classes=NAMES, inputs=("video",), views="2x1"),
    "pitch": ClassCard(classes=PITCHES, inputs=("audio",), views="3x1"),
}


@dataclass(frozen=True, kw_only=True)
class SensesConfig(ModelConfig):
    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return INPUTS

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        return tuple((name,) for name in INPUTS)

    def build(self) -> SensesEncoder:
        return SensesEncoder(self)


register(ModelConfig, "senses", SensesConfig)


class SensesEncoder(Encoder):
    """Pooled features: the mean red, green and blue of a view; or the loudness of a sound's thirds of bins."""

    def __init__(self, config: SensesConfig) -> None:
        super().__init__(config, 3)
        self.scale = nn.Parameter(torch.tensor(4.0))

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        ((name, x),) = inputs.items()
        if name == "audio":
            pooled = x.unflatten(-1, (3, -1)).mean((1, 3))
        else:
            pooled = x.movedim(-3, 1).flatten(2).mean(2) * self.scale
        return Features(pooled[:, None], pooled)


def senses_model() -> LoadedModel:
    """Every head answers with the largest of the pooled features."""
    config = SensesConfig()
    encoder = config.build()
    heads = {task: card.head(encoder) for task, card in CARDS.items()}
    for head in heads.values():
        head.load_state_dict({"projection.weight": torch.eye(3), "projection.bias": torch.zeros(3)})
    return LoadedModel(Model(encoder, heads), config, CARDS)


def tone(*pitches: str, seconds: float = 1.0) -> np.ndarray:
    """``seconds`` of each pitch in turn; "none" is digital silence."""
    time = np.arange(round(seconds * RATE)) / RATE
    parts = [0.3 * np.sin(2 * np.pi * HERTZ[p] * time) if p != "none" else np.zeros_like(time) for p in pitches]
    return np.concatenate(parts).astype(np.float32)


def write_senses(folder: Path) -> Path:
    """A picture, a film with and one without sound, and sounds; their names say what they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frames_of("blue", each=1)[0].permute(1, 2, 0).numpy()).save(folder / "blue.png")
    write_video(folder / "mute_red.mp4", frames_of("red"), fps=10.0)
    write_video(folder / "green_high.mp4", frames_of("green"), fps=10.0, audio=torch.from_numpy(tone("high")))
    for pitch in (*PITCHES, "none"):
        record_sound(folder / f"{pitch}.wav", tone(pitch))
    record_sound(folder / "low_none_high.wav", tone("low", "none", "high", seconds=2.0))
    return folder


MANIFESTS = {
    "picture": "path,label,split\nblue.png,blue,val\n",
    "film": "path,label,split\nmute_red.mp4,red,val\ngreen_high.mp4,blue,val\n",
    "pitch": "path,label,split\n"
    + "".join(f"{pitch}.wav,{pitch},val\n" for pitch in PITCHES)
    + "green_high.mp4,high,val\nnone.wav,low,val\nmute_red.mp4,low,val\n",
}
"""What the files hold, but for three: a green film is labeled blue, one sound is silence, one film has none."""


def write_senses_run(folder: Path, data: Path) -> Path:
    """A run of all three tasks as training leaves it, without having trained; ``data`` gets the manifests."""
    loaded = senses_model()
    for task, text in MANIFESTS.items():
        (data / f"{task}.csv").write_text(text)
    tasks = {
        task: Task(
            source=Source(path=str(data / f"{task}.csv")),
            objective=Classification(classes=card.classes),
            inputs=card.inputs,
            length=Length(steps=40),
            views=Views.parse(card.views or "1x1"),
        )
        for task, card in CARDS.items()
    }
    lengths = TaskData(examples=1, updates=40, warmup=0, sha256="")
    resolved = Resolved(experiment=Experiment(model=loaded.config, tasks=tasks), data=dict.fromkeys(tasks, lengths))
    write_run(folder, resolved)
    save_model(folder / "model", loaded.model, loaded.config, CARDS, {})
    return folder


MBT_CARD = ClassCard(classes=NAMES, inputs=("video", "audio"), views="2x3")


def small_mbt(**options) -> LoadedModel:
    """An MBT of video and sound with random weights."""
    config = MBTConfig(
        backbone=TransformerConfig(width=16, depth=3, heads=2, mlp=32),
        modalities={
            "video": Modality(spec=VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16), patch=(2, 8, 8)),
            "audio": Modality(spec=SpectrogramSpec(frames=48, bins=32), patch=(1, 16, 8)),
        },
        **{"fusion_layer": 1, **options},
    )
    torch.manual_seed(0)
    model = build_model(config, {"duet": MBT_CARD})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return LoadedModel(model, config, {"duet": MBT_CARD})
