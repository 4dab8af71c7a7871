"""A model of videos and captions in prediction and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from colors import NAMES, frames_of
from tubelet.cards import ClassCard
from tubelet.configs import register
from tubelet.data.views import Views
from tubelet.evaluation.run import evaluate_run
from tubelet.inference.predictor import Predictor
from tubelet.media.errors import MediaError
from tubelet.media.write import write_video
from tubelet.models import Encoder, Model, ModelConfig
from tubelet.nn.features import Features
from tubelet.specs import InputSpec, TextSpec, VideoSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task
from tubelet.training.resolve import Resolved, TaskData, write_run
from tubelet.weights.folder import save_model
from tubelet.weights.loaded import LoadedModel

CPU = torch.device("cpu")
TEXT = TextSpec(captions=2, words=3, ids=5, vocabulary="<pad> <unk> red green blue", seconds=0.4)
SPECS: dict[str, InputSpec] = {
    "video": VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16),
    "text": TEXT,
}


@dataclass(frozen=True, kw_only=True)
class ListenerConfig(ModelConfig):
    """Answers with the color that the captions name, or with that of the pictures where there are none."""

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return SPECS

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        return ("video", "text"), ("video",), ("text",)

    @property
    def may_miss(self) -> bool:
        return True

    def build(self) -> Listener:
        return Listener(self, 3)


register(ModelConfig, "listener", ListenerConfig)


class Listener(Encoder):
    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        pooled = torch.zeros(len(next(iter(inputs.values()))), 3)
        if "video" in inputs:
            pooled = pooled + inputs["video"].movedim(2, 1).flatten(2).mean(2)
        if "text" in inputs:
            pooled = pooled + 100 * (inputs["text"].flatten(1)[..., None] == torch.arange(2, 5)).sum(1)
        return Features(pooled[:, None], pooled)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Red films, one with a subtitle file that speaks of green first and of blue later, one with nothing."""
    folder = tmp_path_factory.mktemp("captions")
    for name in ("told", "mute"):
        write_video(folder / f"{name}.mp4", frames_of("red"), fps=10.0)
    (folder / "told.srt").write_text("00:00,000 --> 00:00,500\nGreen!\n\n00:00,500 --> 00:20,000\nGreen (green)\n")
    (folder / "films.csv").write_text("path,label,split\ntold.mp4,green,val\nmute.mp4,red,val\n")
    (folder / "written.csv").write_text(
        "path,label,split,text.1,text.2\nmute.mp4,blue,val,blue,\ntold.mp4,blue,val,blue,blue\n"
    )
    config = ListenerConfig()
    card = ClassCard(classes=NAMES, inputs=("video", "text"), views="2x1")
    encoder = config.build()
    head = card.head(encoder)
    order = [("red", "green", "blue").index(name) for name in NAMES]
    head.load_state_dict({"projection.weight": torch.eye(3)[order], "projection.bias": torch.zeros(3)})
    loaded = LoadedModel(Model(encoder, {"color": head}), config, {"color": card})
    task = Task(
        source=Source(path=str(folder / "films.csv"), train="val"),
        objective=Classification(classes=NAMES),
        inputs=card.inputs,
        length=Length(steps=4),
        views=Views(2, 1),
    )
    experiment = Experiment(model=config, tasks={"color": task})
    lengths = TaskData(examples=1, updates=4, warmup=0, sha256="")
    write_run(folder / "run", Resolved(experiment=experiment, data={"color": lengths}))
    save_model(folder / "run" / "model", loaded.model, config, loaded.tasks, {})
    return folder, loaded


def test_a_file_s_captions_are_read_where_it_has_some(run, tmp_path):
    folder, loaded = run
    predictor = Predictor(loaded, CPU)
    told, mute = (predictor.predict(folder / f"{name}.mp4") for name in ("told", "mute"))
    assert (told.labels[0][0], told.warnings, told.views) == ("green", (), "2x1")
    assert mute.labels[0][0] == "red"
    assert mute.warnings == ("text: not in this file, so the answer is of video alone",)
    assert predictor.embed(folder / "told.mp4", inputs="text")[1] >= 100
    with pytest.raises(MediaError, match="a video without captions, but input 'text' takes captions"):
        predictor.embed(folder / "mute.mp4", inputs="text")


def test_evaluation_reads_subtitles_and_manifests(run):
    folder, _ = run
    (result,) = evaluate_run(folder / "run", workers=0, progress=False).values()
    assert (result.coverage, result.metrics["top1"]) == ("2/2", 1.0)
    assert "1 of 2 examples have no text: answered by video alone" in result.warnings
    (written,) = evaluate_run(folder / "run", data=str(folder / "written.csv"), workers=0, progress=False).values()
    assert (written.coverage, written.metrics["top1"]) == ("2/2", 1.0)
    assert not any("have no text" in warning for warning in written.warnings)
