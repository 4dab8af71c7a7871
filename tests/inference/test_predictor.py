"""Using a model on files: what it answers, and what it says about files that it cannot look at."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import tubelet
from colors import CARD, NAMES, ColorConfig, color_model, frames_of, view_set, write_colors
from tubelet.cards import ClassCard
from tubelet.data.views import Views
from tubelet.evaluation.evaluate import evaluate_task
from tubelet.inference import answers
from tubelet.inference.answers import Segment, merged
from tubelet.inference.predictor import Predictor
from tubelet.media.errors import MediaError
from tubelet.media.info import probe
from tubelet.media.write import write_video
from tubelet.models import Model
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.folder import save_model
from tubelet.weights.loaded import LoadedModel

CPU = torch.device("cpu")
IMAGES = ColorConfig(name="image", spec=ImageSpec(size=(16, 16), short_side=16))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_colors(folder, [("red",), ("green",), ("red", "green", "green", "blue")], ["red", "green", "green"], broken=1)
    pixels = frames_of("blue", each=1)[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / "blue.png")
    return folder


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(color_model(), CPU)


def test_a_prediction_is_the_best_classes_with_probabilities(predictor, files):
    prediction = predictor.predict(files / "0.mp4")
    assert prediction.labels[0].label == "red"
    assert [p for _, p in prediction.labels] == sorted((p for _, p in prediction.labels), reverse=True)
    assert sum(p for _, p in prediction.labels) == pytest.approx(1)
    assert (prediction.task, prediction.views) == ("color", "2x1")
    assert "red" in str(prediction)


def test_it_answers_as_evaluation_does(predictor, files):
    result = evaluate_task(predictor, "color", CARD, view_set(files / "all.csv", Views(clips=3, crops=3)))
    for example in result.examples:
        prediction = predictor.predict(example.path, views="3x3", top=3)
        assert [label for label, _ in prediction.labels] == [label for label, _ in example.top["label"]]
        np.testing.assert_allclose([p for _, p in prediction.labels], [p for _, p in example.top["label"]], atol=1e-6)


def test_broken_files_give_their_error_and_the_rest_go_on(predictor, files):
    paths = [files / name for name in ("broken0.mp4", "0.mp4", "blue.png", "no_such_file.mp4", "1.mp4")]
    results = list(predictor.predict_many(paths, top=1))
    assert [isinstance(result, MediaError) for result in results] == [True, False, True, True, False]
    assert [result.labels[0].label for result in (results[1], results[4])] == ["red", "green"]
    assert "is an image, but this model takes videos; give it a video" in str(results[2])


def test_views_of_several_files_share_forwards(predictor, files, monkeypatch):
    sizes = list[int]()
    forward = predictor.forward
    monkeypatch.setattr(predictor, "forward", lambda x, task: sizes.append(len(x["video"])) or forward(x, task))
    predictor.views_per_forward = 5
    names = ["0.mp4", "broken0.mp4", "1.mp4", "2.mp4", "0.mp4"]
    results = predictor.predict_many([files / name for name in names], views="2x1")
    first = next(results)
    assert sizes == [5, 1], "read ahead no further than a forward needs"
    (broken, *rest) = results
    assert sizes == [5, 1, 2]
    assert isinstance(broken, MediaError)
    alone = [predictor.predict(files / name, views="2x1") for name in names if name != "broken0.mp4"]
    for together, own in zip([first, *rest], alone, strict=True):
        assert (together.path, together.views) == (own.path, own.views)
        assert [label for label, _ in together.labels] == [label for label, _ in own.labels]
        np.testing.assert_allclose([p for _, p in together.labels], [p for _, p in own.labels], atol=1e-6)


def test_tasks_of_a_file_answer_in_turn(files):
    loaded = color_model()
    loaded.model.heads["second"] = loaded.model.heads["color"]
    predictor = Predictor(LoadedModel(loaded.model, loaded.config, {"color": CARD, "second": CARD}), CPU)
    results = predictor.predict_many([files / "0.mp4", files / "no_such_file.mp4", files / "1.mp4"], top=1)
    said = [result if isinstance(result, MediaError) else (result.task, result.labels[0].label) for result in results]
    assert said[:2] == [("color", "red"), ("second", "red")]
    assert isinstance(said[2], MediaError)
    assert said[3:] == [("color", "green"), ("second", "green")]


def test_an_image_model_wants_images(files):
    predictor = Predictor(color_model(IMAGES), CPU)
    prediction = predictor.predict(files / "blue.png")
    assert prediction.labels[0].label == "blue"
    assert prediction.views == "1x1"
    with pytest.raises(MediaError, match="is a video, but this model takes images; give it an image"):
        predictor.predict(files / "0.mp4")
    with pytest.raises(MediaError, match="no timeline"):
        predictor.timeline(files / "blue.png")
    assert predictor.embed(files / "blue.png").shape == (3,)


def test_a_file_whose_name_says_another_kind_is_what_it_holds(predictor, files):
    disguised = files / "video.png"
    disguised.write_bytes((files / "0.mp4").read_bytes())
    said, expected = predictor.predict_many([disguised, files / "0.mp4"])
    assert said.labels == expected.labels


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "motion"}, "no task 'motion'; it has color"),
        ({"views": "4by3"}, "clips x crops"),
        ({"top": 0}, "top"),
    ],
)
def test_wrong_options_are_refused(predictor, files, options, says):
    with pytest.raises(ValueError, match=says):
        predictor.predict(files / "0.mp4", **options)


def test_a_model_of_several_tasks_wants_one_named(files):
    loaded = color_model()
    loaded.model.heads["second"] = loaded.model.heads["color"]
    predictor = Predictor(LoadedModel(loaded.model, loaded.config, {"color": CARD, "second": CARD}), CPU)
    with pytest.raises(ValueError, match="color, second: say which"):
        predictor.predict(files / "0.mp4")
    assert predictor.predict(files / "0.mp4", task="second").task == "second"


def test_label_sets_answer_together_and_apart(files):
    card = ClassCard(classes={"verb": ("cut", "wash"), "noun": ("onion", "cup", "pan")})
    torch.manual_seed(0)
    loaded = color_model(card=card)
    head = loaded.model.heads["color"] = card.head(loaded.model.encoder)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    prediction = Predictor(loaded, CPU).predict(files / "0.mp4", top=6)
    verb, noun = prediction.sets["verb"], prediction.sets["noun"]
    assert prediction.labels[0].label == f"{verb[0].label} {noun[0].label}"
    assert prediction.labels[0].probability == pytest.approx(verb[0].probability * noun[0].probability)
    assert sum(p for _, p in prediction.labels) == pytest.approx(1)


def test_a_timeline_says_when_what_is_seen(predictor, files):
    segments = predictor.timeline(files / "2.mp4", window=0.5)
    assert len(segments) == 8
    assert (segments[0].start, segments[-1].end) == (0, pytest.approx(4.0))
    assert [s.label for s in segments] == ["red"] * 2 + ["green"] * 4 + ["blue"] * 2
    assert [(s.start, s.end, s.label) for s in merged(segments)] == [
        (0, 1, "red"),
        (1, 3, "green"),
        (3, pytest.approx(4), "blue"),
    ]


def test_segments_come_while_the_video_is_read(predictor, tmp_path):
    noise = torch.randint(0, 256, (60, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_video(tmp_path / "damaged.mp4", noise, fps=10.0)
    data = bytearray((tmp_path / "damaged.mp4").read_bytes())
    data[-len(data) // 4 : -len(data) // 5] = bytes(len(data))[-len(data) // 4 : -len(data) // 5]
    (tmp_path / "damaged.mp4").write_bytes(data)
    predictor.views_per_forward = 1
    segments = predictor.segments(tmp_path / "damaged.mp4", window=0.4)
    assert next(segments).start == 0
    with pytest.raises(MediaError):
        list(segments)


def test_an_embedding_is_the_mean_of_the_views(predictor, files):
    predictor.views_per_forward = 2
    embedding = predictor.embed(files / "2.mp4", views="5x1")
    assert embedding.shape == (3,)
    views = [predictor.embed(files / f"{i}.mp4") for i in (0, 1)]
    assert int(views[0].argmax()) == 0
    assert int(views[1].argmax()) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny ViViT on disk."""
    torch.manual_seed(0)
    config = ViViTConfig(
        backbone=TransformerConfig(width=16, depth=2, heads=2, mlp=32),
        tubelet=(2, 8, 8),
        video=VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16),
    )
    card = ClassCard(classes=NAMES)
    encoder = config.build()
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_model(path, Model(encoder, {"color": card.head(encoder)}), config, {"color": card}, {})
    return path


def test_a_folder_is_loaded_and_explained(folder, files, tmp_path):
    model = tubelet.load(folder, device="cpu")
    assert len(model.predict(files / "0.mp4").labels) == 3
    explanation = model.explain(files / "2.mp4")
    assert explanation.shares.shape == (2, 2, 2)
    assert explanation.shares.sum() == pytest.approx(1, abs=1e-5)
    assert explanation.frames.shape == (4, 3, 16, 16)
    explanation.write(tmp_path / "overlay.mp4")
    info = probe(tmp_path / "overlay.mp4")
    assert (info.frames, info.width, info.height) == (4, 256, 256)
    assert info.fps == pytest.approx(10)


def test_models_without_a_rollout_say_so(predictor, files):
    with pytest.raises(TypeError, match="not written for Color"):
        predictor.explain(files / "0.mp4")


def test_tubelet_has_a_version_and_loads_late():
    assert tubelet.__version__
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        tubelet.lode  # noqa: B018


def test_results_as_table_json_and_csv(predictor, files):
    results = list(predictor.predict_many([files / "0.mp4", files / "broken0.mp4"], top=2))
    data = json.loads(json.dumps([answers.as_json(result) for result in results]))
    assert data[0]["labels"][0]["label"] == "red"
    assert data[1]["error"]
    assert data[1]["path"].endswith("broken0.mp4")

    rows = list(csv.DictReader(io.StringIO(answers.as_csv(results))))
    assert [(row["task"], row["rank"]) for row in rows] == [("color", "1"), ("color", "2"), ("", "")]
    assert rows[0]["label"] == "red"
    assert rows[2]["error"]

    console = Console(width=200, file=io.StringIO())
    console.print(answers.predictions_table(results))
    assert "red" in console.file.getvalue()
    assert "error" in console.file.getvalue()


def test_timelines_as_table_json_and_csv():
    segments = [Segment(start=0.0, end=2.5, label="cut", probability=0.9)]
    assert answers.timeline_json("a.mp4", segments)["timeline"] == [
        {"start": 0.0, "end": 2.5, "label": "cut", "probability": 0.9, "silent": False}
    ]
    (row,) = csv.DictReader(io.StringIO(answers.timelines_csv({"a.mp4": segments})))
    assert (row["path"], row["end"]) == ("a.mp4", "2.500")
    console = Console(width=100, file=io.StringIO())
    console.print(answers.timeline_table("a.mp4", segments))
    assert "0:02.5" in console.file.getvalue()
    assert answers.clock(3723.46) == "1:02:03.5"


def test_prediction_writes_a_wide_video_upright(predictor, tmp_path):
    frames = torch.zeros(8, 3, 32, 64, dtype=torch.uint8)
    frames[:, 0, :, 16:48] = 220
    write_video(tmp_path / "wide.mp4", frames, fps=10.0)
    assert predictor.predict(tmp_path / "wide.mp4", views="1x1").labels[0].label == "red"
