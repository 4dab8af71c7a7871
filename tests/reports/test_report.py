"""The report: one page that shows every number with its views and coverage, and plays the clips it talks about."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import tubelet.reports
from colors import CARD, NAMES, color_model, view_set, write_colors
from media_files import record_sound
from senses import write_senses, write_senses_run
from tubelet.cards import Answer
from tubelet.data.views import Views
from tubelet.evaluation.evaluate import evaluate_task
from tubelet.evaluation.predictions import Scored
from tubelet.evaluation.results import results_json, write_details
from tubelet.evaluation.run import evaluate_run
from tubelet.media.info import probe
from tubelet.reports import pictures
from tubelet.reports.comparison import Compared, Comparison
from tubelet.reports.examples import make_preview, pick_examples
from tubelet.reports.report import read_log, write_report

SEEN = [("red",), ("green",), ("blue", "blue", "red"), ("red",)]
LABELS = ["red", "green", "blue", "blue"]


@pytest.fixture
def run(tmp_path):
    manifest = write_colors(tmp_path / "data", SEEN, LABELS, broken=1)
    result = evaluate_task(color_model().model, "color", CARD, view_set(manifest, Views(clips=3)))
    folder = tmp_path / "my <run>"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results_json({"color": result})))
    write_details(folder, {"color": result})
    lines = [{"step": i, "task": "color", "loss": 2 / (i + 1), "learning_rate": 0.1} for i in range(40)]
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 40, "ta'
    (folder / "log.jsonl").write_text(text)
    config = {"experiment": {"model": {"kind": "vivit"}, "notes": "The colors are synthetic.\n\nAll of them."}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_number_has_its_views_and_coverage(run):
    page = write_report(run).read_text()
    assert "75.0%<small>named right at the first try</small>" in page
    assert "3x1 views" in page
    assert '<span class="chip warn">4 of 5 scored</span>' in page
    assert "named right at the first try, 1x1 view" in page
    assert "broken0.mp4" in page
    assert "<p>The colors are synthetic.</p><p>All of them.</p>" in page
    assert "my &lt;run&gt;" in page
    assert "my <run>" not in page


def test_the_page_needs_nothing_from_elsewhere_and_its_clips_play(run):
    page = write_report(run).read_text()
    assert not re.search(r'(src|href)="(https?:)?//', page)
    sources = re.findall(r'<video[^>]* src="([^"]+)"', page)
    assert len(sources) == 4
    for source in sources:
        info = probe(run / source)
        assert (info.codec, info.pixel_format) == ("h264", "yuv420p")
    assert page.count('class="clip wrong"') + page.count('class="clip right"') == 4
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
    assert page.count("<svg") == 2


def test_notes_given_take_the_place_of_the_experiments(run):
    page = write_report(run, notes="Real colors.", clips=1).read_text()
    assert "Real colors." in page
    assert "synthetic" not in page.partition('class="verdict')[0]
    assert page.count("<video") == 2


def test_without_matplotlib_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "tubelet.reports.pictures")
    monkeypatch.delattr(tubelet.reports, "pictures")
    page = write_report(run).read_text()
    assert 'pip install "tubelet[demo]"' in page
    assert "3x1 views" in page


def test_a_clip_that_is_gone_leaves_its_place_in_the_page(run):
    (run.parent / "data" / "0.mp4").unlink()
    page = write_report(run).read_text()
    assert page.count("<video") == 3
    assert "0.mp4" in page


def test_a_folder_without_results_is_told_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="tubelet eval"):
        write_report(tmp_path)


BASELINE = {
    "name": "nearest neighbor on <pixels>",
    "validation": 0.9,
    "metrics": {"top1": 1.0, "mean_class_accuracy": 1.0},
    "scored": 4,
    "expected": 5,
    "train": 20,
    "seconds": 2.4,
    "tried": {"trees": 0.95, "nearest neighbor on <pixels>": 0.9},
}


def with_baseline(run, top1: float):
    results = json.loads((run / "results.json").read_text())
    results["tasks"]["color"]["baseline"] = {**BASELINE, "metrics": {"top1": top1}}
    (run / "results.json").write_text(json.dumps(results))


def test_the_verdict_comes_first_beside_chance_and_the_best_simple_classifier(run):
    with_baseline(run, 1.0)
    page = write_report(run).read_text()
    first = page.partition('<div class="outcome">')[2]
    assert first.startswith("A simple classifier does better.")
    assert page.index('class="outcome"') < page.index("<svg")
    assert page.index("What to do next") < page.index("Where it fails") < page.index("How it learned")
    rows = re.findall(r'<div class="share">([^<]+)</div>', page)
    assert rows == ["50.0%", "100%", "75.0%"]
    assert "nearest neighbor on &lt;pixels&gt;" in page
    assert "<pixels>" not in page
    table = page.partition("all 2 simple classifiers")[2].partition("</table>")[0]
    assert table.index("nearest") < table.index("trees")


def test_a_run_without_a_baseline_is_told_without_one(run):
    page = write_report(run).read_text()
    assert "Best simple classifier" not in page
    assert "What it was compared with" not in page
    assert re.findall(r'<div class="share">([^<]+)</div>', page) == ["50.0%", "75.0%"]
    assert "1 test file of 5 that cannot be read" in page


def test_a_curve_of_validation_marks_the_weights_that_were_kept(run):
    lines = [{"step": 4 * i, "validation": 0.1 * i, "standard_error": 0.05, "kept": 4 * i} for i in range(1, 10)]
    log = (run / "log.jsonl").read_text().rpartition("\n")[0]
    (run / "log.jsonl").write_text("\n".join([log, *map(json.dumps, lines)]) + "\n")
    learned = write_report(run).read_text().partition("<h2>How it learned</h2>")[2].partition("</div>")[0]
    assert "The weights of update 36 were kept" in learned
    assert "still rising" in learned
    assert "validation, %" in learned
    assert "learning rate" not in learned


def test_a_line_of_pixels_is_shown_and_can_be_seen(tmp_path):
    for width, height in ((1, 2000), (2000, 1), (1, 1), (3, 500)):
        Image.new("RGB", (width, height), "red").save(tmp_path / "line.png")
        preview = make_preview(replace(example("a", "a", 1.0), path=str(tmp_path / "line.png")), tmp_path)
        shown = probe(preview.path)
        assert min(shown.width, shown.height) >= max(2, max(shown.width, shown.height) / 60)


def test_a_picture_of_classes_named_like_formulas(tmp_path):
    names = ["$x^$", "<b>&", "a" * 80]
    drawn = pictures.svg(pictures.confusion_picture(np.eye(3, dtype=np.int64), names))
    ElementTree.fromstring(drawn)
    assert "a" * 80 not in drawn


def test_an_unfinished_last_line_of_the_log_is_left_out(run):
    assert [line["step"] for line in read_log(run / "log.jsonl")] == list(range(40))


def example(label: str, answer: str, p: float) -> Scored:
    return Scored(
        task="t", key=f"{label}{answer}{p}", path="", start=0.0, end=None, labels={"label": (label,)},
        top={"label": (Answer(answer, p),)},
    )  # fmt: skip


def test_shown_are_the_surest_mistakes_and_every_class():
    right = [example(c, c, 0.9) for c in "aaabbc"]
    wrong = [example("a", "b", 0.5), example("a", "c", 0.8), example("b", "a", 0.6)]
    mistakes, shown = pick_examples([*right, *wrong], 2)
    assert [e.confidence for e in mistakes] == [0.8, 0.6]
    assert len(shown) == 2
    _, shown = pick_examples(right, 3)
    assert sorted(e.labels["label"][0] for e in shown) == ["a", "b", "c"]


def test_a_picture_of_many_classes_has_neither_names_nor_numbers():
    many = pictures.confusion_picture(np.eye(120, dtype=np.int64), [f"class {i}" for i in range(120)])
    few = pictures.confusion_picture(np.eye(3, dtype=np.int64), NAMES)
    assert "class 7" not in pictures.svg(many)
    assert "green" in pictures.svg(few)
    assert "currentColor" in pictures.svg(few)


def test_smoothing_keeps_a_constant_and_the_mean_inside():
    np.testing.assert_allclose(pictures.smooth(np.full(7, 3.0), width=3), 3.0)
    np.testing.assert_allclose(pictures.smooth(np.arange(7.0), width=3)[1:-1], np.arange(7.0)[1:-1])


def write_senses_report(folder):
    """The page of an evaluated run of images, videos and sounds, with the log and the comparison of a co-training."""
    run = write_senses_run(folder / "run", write_senses(folder / "data"))
    evaluate_run(run, workers=0, progress=False)
    lines = [
        {"step": step, "task": task, "loss": 2 / (step + 1), "learning_rate": 0.1}
        for step in range(10)
        for task in ("picture", "film", "pitch")
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = Compared(model="one <model> per task", models=3, parameters=300, updates=9, seconds=150, scores={"film": 0.5})
    Comparison(rows=(row,), metrics={"film": "top1"}, note="Equal & fair.").write(run)
    return run, write_report(run).read_text()


def test_a_page_of_images_videos_and_sounds(tmp_path):
    run, page = write_senses_report(tmp_path)
    for task, modality in {"picture": "image", "film": "video", "pitch": "audio"}.items():
        card = page.partition(f'<div class="name">{task}</div>')[2].partition("</dl>")[0]
        assert f'<span class="chip">{modality}</span>' in card
        assert f"<h2>{task}</h2>" in page
    pitch = page.partition("<h2>pitch</h2>")[2]
    assert "<video" not in pitch
    sounds, pictures = (re.findall(rf'<{tag}[^>]* src="([^"]+)"', pitch) for tag in ("audio", "img"))
    assert len(sounds) == len(pictures) == 5
    assert all(probe(run / sound).codec == "aac" for sound in sounds)
    assert all(probe(run / picture).kind == "image" for picture in pictures)
    assert "digital silence" in page
    film = page.partition("<h2>film</h2>")[2].partition("<h2>")[0]
    assert len(re.findall("<video", film)) == 2


def test_a_co_training_shows_its_plan_and_its_comparison(tmp_path):
    _, page = write_senses_report(tmp_path)
    assert "Minibatches: film 40, picture 40, pitch 40; one an update." in page
    training = page.partition("<h2>How it learned</h2>")[2].partition("<h2>")[0]
    assert training.count("<svg") == 2
    comparison = page.partition("<h2>Comparison</h2>")[2].partition("<h2>")[0]
    assert "Equal &amp; fair." in comparison
    assert "<td>one &lt;model&gt; per task</td>" in comparison
    assert "2.5 min" in comparison


def test_a_spectrogram_of_a_short_silence_is_drawn(tmp_path):
    record_sound(tmp_path / "none.wav", np.zeros(100))
    preview = make_preview(replace(example("a", "a", 1.0), path=str(tmp_path / "none.wav")), tmp_path)
    assert preview.kind == "audio"
    assert preview.picture is not None
    assert probe(preview.picture).height == 128
