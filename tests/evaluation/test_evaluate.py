"""Evaluating tasks: what is averaged, what is counted, and that ranks, workers and chunks change nothing."""

from __future__ import annotations

import json
import socket

import pytest
import torch

from colors import CARD, color_model, evaluate_on_rank, view_set, write_colors
from tubelet.cards import ClassCard
from tubelet.data.views import Views
from tubelet.evaluation.evaluate import evaluate_task
from tubelet.evaluation.predictions import read_predictions
from tubelet.evaluation.results import results_json, write_details
from tubelet.media.errors import MediaError
from tubelet.nn.heads import MultiHead

# The fourth is mislabeled; the sixth is blue, but green in the middle, where a single clip looks.
SEEN = [("red",), ("green",), ("blue",), ("red",), ("green",), ("blue", "green", "blue"), ("red",)]
LABELS = ["red", "green", "blue", "blue", "green", "blue", "red"]
VIEWS = Views(clips=3)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_colors(tmp_path_factory.mktemp("colors"), SEEN, LABELS, broken=2)


@pytest.fixture(scope="module")
def result(manifest):
    return evaluate_task(color_model().model, "color", CARD, view_set(manifest, VIEWS))


def test_metrics_are_those_of_the_readable_examples(result):
    assert result.metrics == pytest.approx({"top1": 6 / 7, "mean_class_accuracy": 8 / 9})
    assert result.views == "3x1"


def test_one_view_per_video_is_told_apart(result):
    assert result.single_view["top1"] == pytest.approx(5 / 7)
    assert result.as_json()["single_view"]["views"] == "1x1"


def test_unreadable_examples_are_counted_and_listed_not_replaced(result):
    assert (result.scored, result.expected, result.coverage) == (7, 9, "7/9")
    assert all(isinstance(error, MediaError) for error in result.errors)
    assert [error.path.rpartition("/")[2] for error in result.errors] == ["broken0.mp4", "broken1.mp4"]
    assert [example.key for example in result.examples] == [f"{i}.mp4" for i in range(7)]


def test_logits_are_averaged_and_not_probabilities(manifest):
    model = color_model().model
    videos = view_set(manifest, VIEWS)
    result = evaluate_task(model, "color", CARD, videos)
    views = videos.example(5)
    with torch.no_grad():
        logits = model(model.preprocess(views.inputs), "color")
    label, probability = result.examples[5].top["label"][0]
    assert label == "blue"
    assert probability == pytest.approx(logits.mean(0).softmax(0).max().item(), abs=1e-5)
    assert probability != pytest.approx(logits.softmax(1).mean(0).max().item(), abs=1e-2)


@pytest.mark.parametrize("options", [{"views_per_forward": 1}, {"views_per_forward": 100}, {"workers": 2}])
def test_chunks_and_workers_change_nothing(manifest, result, options):
    again = evaluate_task(color_model().model, "color", CARD, view_set(manifest, VIEWS), **options)
    assert again.as_json() == result.as_json()


def test_bfloat16_and_the_progress_bar(manifest, result):
    model = color_model().model
    again = evaluate_task(model, "color", CARD, view_set(manifest, VIEWS), precision="bfloat16", progress=True)
    assert again.metrics == result.metrics


def test_identical_clips_are_warned_of(tmp_path):
    short = write_colors(tmp_path, [("red",), ("green",)], ["red", "green"])
    result = evaluate_task(color_model().model, "color", CARD, view_set(short))
    assert len(result.warnings) == 1
    assert "the 2 clips of 2 of 2 videos show the same pixels" in result.warnings[0]


def test_two_ranks_of_an_odd_number_of_videos_equal_one(manifest, tmp_path, result):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    outs = [tmp_path / f"{rank}.pt" for rank in range(2)]
    arguments = [(rank, 2, port, manifest, VIEWS, out) for rank, out in enumerate(outs)]
    ranks = [context.Process(target=evaluate_on_rank, args=each) for each in arguments]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    first, second = (torch.load(out) for out in outs)
    assert first["json"] == second["json"] == result.as_json()
    assert first["keys"] == [example.key for example in result.examples]
    assert first["forwards"] == second["forwards"]


def test_several_labels_are_measured_by_map(manifest):
    card = ClassCard(classes=CARD.classes, multilabel=True)
    result = evaluate_task(color_model(card=card).model, "color", card, view_set(manifest, VIEWS, card))
    assert set(result.metrics) == {"map", "classes_scored", "auc"}  # no mistake: d' is infinite
    assert result.metrics["classes_scored"] == 1
    assert [row["name"] for row in result.tables.classes["label"]] == list(CARD.classes)
    assert result.tables.confusion == {}


def test_label_sets_give_each_and_the_best_pair(tmp_path):
    source = write_colors(tmp_path, [("red",), ("green",), ("blue",)], ["red", "green", "blue"])
    lines = ["path,split,label.color,label.warm"]
    lines += [f"{i}.mp4,val,{c},{w}" for i, (c, w) in enumerate([("red", "yes"), ("green", "no"), ("blue", "yes")])]
    source.write_text("\n".join(lines))
    card = ClassCard(classes={"color": CARD.classes, "warm": ("yes", "no")})
    model = color_model(card=card).model
    head = card.head(model.encoder)
    assert isinstance(head, MultiHead)
    with torch.no_grad():
        head.heads["color"].projection.weight.copy_(torch.eye(3))
        head.heads["warm"].projection.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]]))
    model.heads["color"] = head
    result = evaluate_task(model, "color", card, view_set(source, VIEWS, card))
    assert result.metrics["color_top1"] == 1
    assert result.metrics["warm_top1"] == pytest.approx(2 / 3)
    assert result.metrics["action_top1"] == pytest.approx(2 / 3)
    assert set(result.tables.confusion) == {"color", "warm"}
    assert [e.right for e in result.examples] == [True, True, False]


def test_nothing_readable_is_an_error_that_says_why(tmp_path):
    manifest = write_colors(tmp_path, [], [], broken=2)
    with pytest.raises(ValueError, match=r"none of 2 examples can be read; the first: .*broken0\.mp4"):
        evaluate_task(color_model().model, "color", CARD, view_set(manifest))


def test_results_are_written_as_the_report_and_scripts_read_them(tmp_path, result):
    data = json.loads(json.dumps(results_json({"color": result}), allow_nan=False))["tasks"]["color"]
    assert data["metrics"]["top1"] == pytest.approx(6 / 7)
    assert data["coverage"] == {"scored": 7, "expected": 9}
    assert data["errors"][0]["path"].endswith("broken0.mp4")
    write_details(tmp_path, {"color": result})
    assert tuple(read_predictions(tmp_path / "predictions.jsonl"))[3].labels == {"label": ("blue",)}
    table = json.loads((tmp_path / "classes.json").read_text())["color"]["label"]
    assert table["confusion"] == [[2, 0, 0], [0, 2, 0], [1, 0, 2]]
    assert table["classes"][2] == {
        "name": "blue",
        "examples": 3,
        "accuracy": pytest.approx(2 / 3),
        "precision": 1.0,
        "mistaken_for": "red",
    }
