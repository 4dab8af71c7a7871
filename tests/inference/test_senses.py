"""A model of images, videos and sounds: a file is answered by the tasks that its contents fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from colors import frames_of
from senses import CARDS, senses_model, tone, write_senses
from tubelet.inference import answers
from tubelet.inference.answers import merged
from tubelet.inference.predictor import Predictor
from tubelet.media.errors import MediaError
from tubelet.media.heat import spectrogram_picture
from tubelet.media.write import write_video
from tubelet.models import Model
from tubelet.models.ast import AST, ASTConfig
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.loaded import LoadedModel

CPU = torch.device("cpu")
SMALL = TransformerConfig(width=16, depth=2, heads=2, mlp=32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_senses(tmp_path_factory.mktemp("senses"))


@pytest.fixture(scope="module")
def predictor():
    return Predictor(senses_model(), CPU)


@pytest.mark.parametrize(
    ("file", "task", "label", "views"),
    [
        ("blue.png", "picture", "blue", "1x1"),
        ("mute_red.mp4", "film", "red", "2x1"),
        ("low.wav", "pitch", "low", "3x1"),
        ("middle.wav", "pitch", "middle", "3x1"),
        ("high.wav", "pitch", "high", "3x1"),
    ],
)
def test_the_task_that_fits_a_file_answers(predictor, files, file, task, label, views):
    prediction = predictor.predict(files / file)
    assert (prediction.task, prediction.labels[0].label, prediction.views) == (task, label, views)
    assert prediction.warnings == ()


def test_a_film_with_sound_fits_two_tasks(predictor, files):
    with pytest.raises(ValueError, match="fits the tasks film, pitch: say which"):
        predictor.predict(files / "green_high.mp4")
    said = {p.task: p.labels[0].label for p in predictor.predict_many([files / "green_high.mp4"])}
    assert said == {"film": "green", "pitch": "high"}
    (only,) = predictor.predict_many([files / "green_high.mp4"], task="pitch")
    assert only.labels[0].label == "high"


def test_files_of_all_kinds_go_through_together(predictor, files):
    names = ["blue.png", "green_high.mp4", "no_such.wav", "low.wav"]
    results = list(predictor.predict_many([files / name for name in names], top=1))
    assert [r.task if not isinstance(r, MediaError) else None for r in results] == [
        "picture", "film", "pitch", None, "pitch",
    ]  # fmt: skip
    assert answers.as_json(results[0])["task"] == "picture"


@pytest.mark.parametrize(
    ("file", "task", "says"),
    [
        ("low.wav", "film", "is sound alone, but task 'film' takes videos; give it a video"),
        (
            "blue.png",
            "pitch",
            "is an image, but task 'pitch' takes sound; give it a sound file or a video with a sound",
        ),
        ("mute_red.mp4", "pitch", "is a video without a sound track, but task 'pitch' takes sound"),
    ],
)
def test_a_wrong_kind_of_file_is_told_what_the_task_takes(predictor, files, file, task, says):
    with pytest.raises(MediaError, match=says):
        predictor.predict(files / file, task=task)


def test_a_model_without_pictures_says_what_it_takes(files):
    config = ASTConfig(backbone=SMALL, audio=SpectrogramSpec(frames=32, bins=32))
    with pytest.raises(MediaError, match="is an image, but this model takes sound"):
        Predictor(LoadedModel(Model(AST(config), {}), config), CPU).embed(files / "blue.png")


def test_silence_is_told(predictor, files):
    prediction = predictor.predict(files / "none.wav")
    assert prediction.warnings == ("audio: the sound is digital silence, so the answer says nothing",)
    assert "digital silence" in str(prediction)


def test_views_are_those_that_the_input_has(predictor, files):
    assert predictor.predict(files / "blue.png", views="4x3").views == "1x3"
    assert predictor.predict(files / "low.wav", views="2x3").views == "2x1"
    assert predictor.predict(files / "mute_red.mp4", views="2x3").views == "2x3"


def test_an_embedding_is_of_the_pictures_unless_sound_is_asked_for(predictor, files):
    film = files / "green_high.mp4"
    assert int(predictor.embed(film).argmax()) == 1
    assert int(predictor.embed(film, inputs="audio").argmax()) == 2
    torch.testing.assert_close(predictor.embed(film, inputs=["video"]), predictor.embed(film))
    assert int(predictor.embed(files / "low.wav").argmax()) == 0
    with pytest.raises(ValueError, match="this model takes image, or video, or audio"):
        predictor.embed(film, inputs="text")
    with pytest.raises(MediaError, match="but input 'audio' takes sound"):
        predictor.embed(files / "mute_red.mp4", inputs="audio")


def test_a_timeline_of_sound_says_when_what_is_heard(predictor, files):
    segments = predictor.timeline(files / "low_none_high.wav")
    assert [(s.start, s.end) for s in segments[:2]] == [(0, 0.5), (0.5, 1.0)]
    runs = merged(segments)
    assert [(round(s.start), round(s.end), s.silent) for s in runs] == [(0, 2, False), (2, 4, True), (4, 6, False)]
    assert [runs[0].label, runs[2].label] == ["low", "high"]
    assert ",silent\n" in answers.timelines_csv({"a.wav": runs})


def test_a_films_sound_track_has_a_timeline_too(predictor, files):
    film = files / "green_high.mp4"
    assert {s.label for s in predictor.timeline(film, task="pitch", window=0.25)} == {"high"}
    assert {s.label for s in predictor.timeline(film, task="film")} == {"green"}
    with pytest.raises(ValueError, match="say which"):
        predictor.timeline(film)
    with pytest.raises(MediaError, match="no timeline"):
        predictor.timeline(files / "blue.png")


def test_what_was_heard_before_the_sound_ends_is_kept(predictor, tmp_path):
    write_video(tmp_path / "long.mp4", frames_of("red", each=40), fps=10.0, audio=torch.from_numpy(tone("low")))
    segments = predictor.segments(tmp_path / "long.mp4", task="pitch")
    assert [next(segments).label, next(segments).label] == ["low", "low"]
    with pytest.raises(MediaError, match="the sound ends at 1"):
        list(segments)


def test_a_task_of_several_inputs_has_no_timeline(files):
    loaded = senses_model()
    card = replace(CARDS["film"], inputs=("video", "audio"))
    predictor = Predictor(LoadedModel(loaded.model, loaded.config, {"film": card}), CPU)
    with pytest.raises(ValueError, match="task 'film' takes several together"):
        predictor.timeline(files / "green_high.mp4")
    with pytest.raises(MediaError, match="this model takes videos with sound; give it a video with a sound track"):
        predictor.predict(files / "mute_red.mp4")


@pytest.fixture(scope="module")
def polyvit():
    torch.manual_seed(0)
    config = PolyViTConfig(
        backbone=SMALL,
        adaptor_depth=1,
        modalities={
            "image": Modality(spec=ImageSpec(size=(16, 16), short_side=16), patch=(1, 8, 8)),
            "video": Modality(spec=VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16), patch=(2, 8, 8)),
            "audio": Modality(spec=SpectrogramSpec(frames=48, bins=32), patch=(1, 16, 8)),
        },
    )
    return Predictor(LoadedModel(Model(config.build(), {}), config), CPU)


@pytest.mark.parametrize(
    ("file", "inputs", "grid", "picture"),
    [
        ("blue.png", "", (1, 2, 2), (1, 3, 16, 16)),
        ("green_high.mp4", "", (2, 2, 2), (4, 3, 16, 16)),
        ("green_high.mp4", "audio", (1, 3, 4), (1, 3, 32, 48)),
        ("high.wav", "", (1, 3, 4), (1, 3, 32, 48)),
    ],
)
def test_polyvit_explains_every_modality(polyvit, files, tmp_path, file, inputs, grid, picture):
    explanation = polyvit.explain(files / file, inputs=inputs or ())
    assert explanation.shares.shape == grid
    assert explanation.shares.sum() == pytest.approx(1, abs=1e-5)
    assert explanation.frames.shape == picture
    if explanation.sound:
        explanation.write(tmp_path / "overlay.png")
        assert Image.open(tmp_path / "overlay.png").size == (48 * 8, 32 * 8)


def test_a_high_tone_is_bright_at_the_top_and_its_explanation_lies_over_it(polyvit, files):
    explanation = polyvit.explain(files / "high.wav")
    rows = explanation.frames[0].float().mean((0, 2))
    assert rows.argmax() < 8
    late_and_low = torch.zeros(1, 3, 4)
    late_and_low[0, 2, 0] = 1  # the last third of the time, the lowest quarter of the bins
    light = (type(explanation)(
        path="", shares=late_and_low, frames=torch.zeros_like(explanation.frames), rate=0.0, sound=True
    ).overlay()[0].float().mean(0))  # fmt: skip
    row, column = divmod(int(light.argmax()), light.shape[1])
    assert row > light.shape[0] * 0.7
    assert column > light.shape[1] * 0.6


def test_a_spectrogram_of_one_loudness_is_one_color():
    picture = spectrogram_picture(torch.full((5, 4), -13.8))
    assert picture.shape == (3, 4, 5)
    assert (picture == picture[:, :1, :1]).all()
