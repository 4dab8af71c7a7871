"""Pictures of what a model has learned: what they are measured on, what is left out, and that they can be read."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from colors import NAMES, frames_of
from tubelet.cards import ClassCard
from tubelet.cli import main
from tubelet.configs import ConfigError, to_json
from tubelet.data.dataset import ViewSet
from tubelet.data.manifest import read_manifest
from tubelet.data.records import Records
from tubelet.evaluation.run import evaluate_run
from tubelet.media.write import write_video
from tubelet.models.vatt.config import Sense, Tokens, VattConfig, Words
from tubelet.nn.blocks import TransformerConfig
from tubelet.reports.clips import look
from tubelet.reports.learned import NUMBERS, PICTURES, UNTRAINED, Learned, learn, read_learned, similarities_of
from tubelet.reports.learned_pictures import draw_learned
from tubelet.reports.pictures import svg
from tubelet.reports.report import write_report
from tubelet.specs import SpectrogramSpec, TextSpec, VideoSpec
from tubelet.training.contrastive import Contrastive
from tubelet.training.experiment import Experiment, Length, Source, Task
from tubelet.training.outcome import cards
from tubelet.training.resolve import resolve, write_run
from tubelet.training.run import initial_model
from tubelet.weights.folder import load_model, save_model
from tubelet.weights.loaded import build_model

BACKBONE = TransformerConfig(width=16, depth=2, heads=2, mlp=32)
MODALITIES: dict[str, Tokens] = {
    "video": Sense(
        spec=VideoSpec(frames=4, stride=1, fps=8.0, size=(16, 16), short_side=16), backbone=BACKBONE, patch=(2, 8, 8)
    ),
    "audio": Sense(spec=SpectrogramSpec(frames=40, bins=16), backbone=BACKBONE, patch=(1, 8, 16)),
    "text": Words(
        spec=TextSpec(captions=2, words=3, ids=6, vocabulary="<pad> <unk> red green blue dog"),
        backbone=BACKBONE,
        vectors=8,
        learned=True,
    ),
}
SOUND, SAID = 10, 7  # the first so many of the test's 12 clips have sound, captions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of the test and one that is broken: ten with sound, seven with captions."""
    folder = tmp_path_factory.mktemp("learned")
    random = torch.Generator().manual_seed(0)
    rows: list[tuple[str, str, str, str]] = []
    for i in range(14):
        color, split = NAMES[i % 3], "val" if i < 12 else "train"
        noise = torch.randint(0, 30, (8, 3, 16, 16), generator=random, dtype=torch.uint8)
        sound = 0.1 * torch.randn(16_000, generator=random)
        write_video(folder / f"{i}.mp4", frames_of(color, each=8) + noise, 8.0, sound if i < SOUND else None)
        rows.append((f"{i}.mp4", split, color, f"{color} dog" if i < SAID else ""))
    (folder / "broken.mp4").write_bytes(b"nothing")
    rows.append(("broken.mp4", "val", "red", ""))
    for name, columns in {"all": 4, "bare": 2}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(row[:columns] for row in [("path", "split", "label", "text"), *rows])
    return folder


def write_vatt_run(folder: Path, data: Path, seed_of_weights: int, shared: bool = True) -> Path:
    """A run whose model has the weights that training would start with, had it this seed; its own is 0."""
    experiment = Experiment(
        model=VattConfig(modalities=MODALITIES, projection=16 if shared else 0, position_dropout=0.0),
        tasks={
            "clips": Task(
                source=Source(path=str(data / "all.csv")),
                objective=Contrastive(),
                inputs=tuple(MODALITIES),
                batch_size=2,
                length=Length(steps=1),
                may_miss=True,
            )
        },
    )
    resolved = resolve(experiment).resolved
    write_run(folder, resolved)
    model = initial_model(replace(resolved.experiment, seed=seed_of_weights))
    about = {"experiment": to_json(resolved.experiment)}
    save_model(folder / "model", model, experiment.model, cards(resolved.experiment, {}), about)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vatt_run(tmp_path_factory.mktemp("runs") / "my run", data, seed_of_weights=1)


@pytest.fixture(scope="module")
def learned(run: Path) -> Learned:
    return learn(run, workers=0, progress=False)


def of(found: Any) -> list[tuple[str, ...]]:
    return [(*one.of, one.model) for one in found]


def test_each_picture_has_only_the_clips_that_have_what_it_compares(learned: Learned) -> None:
    assert of(learned.features) == [(i, m) for i in MODALITIES for m in ("untrained", "trained")]
    assert of(learned.spaces) == of(learned.similarities)
    assert {one.of: one.pairs for one in learned.similarities} == {("video", "text"): SAID, ("video", "audio"): SOUND}
    for one in learned.spaces:
        pairs = SAID if "text" in one.of else SOUND
        assert one.clips == (*range(pairs), *range(pairs))
        assert one.inputs == ("video",) * pairs + (one.of[1],) * pairs
    assert {one.of: len(one.x) for one in learned.features} == {("video",): 12, ("audio",): SOUND, ("text",): SAID}
    assert learned.about() == (f"12 of 13 clips of split 'val' of {learned.data}; seed 0, perplexity 2 to 6.3")
    assert "broken.mp4" in learned.notes[0]
    assert len(learned.rows()) == 7


def test_untrained_is_what_the_runs_own_seed_starts_with(data: Path, tmp_path: Path, learned: Learned) -> None:
    begun = learn(write_vatt_run(tmp_path / "begun", data, seed_of_weights=0), workers=0, progress=False)
    assert all(before == after for _, before, after, _ in begun.rows())
    assert begun.activations[0].units == begun.activations[1].units
    assert [one for one in begun.similarities if one.model == UNTRAINED] == [
        one for one in learned.similarities if one.model == UNTRAINED
    ]
    assert learned.similarities[0].true != learned.similarities[1].true


def test_blanks_and_padding_activate_nothing(run: Path, data: Path) -> None:
    loaded = load_model(run)
    specs = loaded.model.encoder.inputs
    records = Records.of(read_manifest(data / "all.csv").split("val"))

    def activations(count: int) -> Mapping[str, np.ndarray]:
        videos = ViewSet(records.at(np.arange(count)), None, specs, may_miss=True)
        found = look({"m": loaded.model}, "clips", loaded.tasks["clips"], videos, workers=0, progress=False)
        return found.seen["m"].activations

    every, heard, said = activations(12), activations(SOUND), activations(SAID)
    assert every["audio"].shape == (2, 16)
    np.testing.assert_allclose(every["audio"], heard["audio"], rtol=1e-5)
    np.testing.assert_allclose(every["text"], said["text"], rtol=1e-5)
    assert not np.allclose(every["audio"], said["audio"], rtol=1e-5)


def test_units_are_measured_before_they_are_added(run: Path, data: Path, learned: Learned) -> None:
    """Those of the first block, for captions: computed by hand."""
    model = load_model(run).model.eval()
    tower, shared = model.encoder.modalities["text"], model.encoder.shared  # pyright: ignore
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        for i in range(SAID):
            ids = torch.tensor([[["red", "green", "blue"].index(NAMES[i % 3]) + 2, 5]])
            x = tower.before(tower.words(ids)) + tower.positions([3])[..., :2, :]
            z = torch.cat([tower.agg[None], x], dim=1)
            block = shared.blocks[0]
            z = z + block.attention(block.norm_attention(z), None)
            seen.append(block.mlp(block.norm_mlp(z))[0].abs())
    expected = torch.cat(seen).mean(0)
    np.testing.assert_allclose(learned.activations[1].units["text"][0], expected, rtol=2e-3)


def test_similarities_of_vectors_whose_answer_is_known() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 60, 64))
    same, apart = similarities_of("m", "text", [x, 3 * x], 0), similarities_of("m", "text", [x, y], 0)
    assert (same.above, same.true_mean) == (1.0, pytest.approx(1.0))
    assert apart.above == pytest.approx(0.5, abs=0.1)
    assert similarities_of("m", "text", [np.ones((6, 2)), np.ones((6, 2))], 0).above == 0.5, "a collapsed model"
    for curve in (same.true, same.random, apart.true, apart.random):
        at, density = np.array(curve).T
        assert density.mean() * (at[-1] - at[0]) == pytest.approx(1.0, abs=0.03)


def test_without_labels_and_captions_it_says_what_is_left_out(run: Path, data: Path) -> None:
    found = learn(run, data=str(data / "bare.csv"), clips=8, seed=1, workers=0, progress=False)
    assert (found.labels, found.features) == ((), ())
    assert {one.of for one in found.spaces} <= {("video", "audio")}
    assert set(found.activations[0].units) == {"video", "audio"}
    assert "No clip has a label: there is no picture of features by class." in found.notes
    assert "0 clips have video and text: a picture takes 5 at least." in found.notes
    assert found.available == 13
    assert set(draw_learned(found)) == {"inputs", "pairs", "units"}
    again = learn(run, data=str(data / "bare.csv"), clips=8, seed=1, workers=0, progress=False)
    assert again == found
    assert learn(run, data=str(data / "bare.csv"), clips=8, seed=2, workers=0, progress=False).keys != found.keys


def test_a_classifier_has_features_by_class_alone(data: Path, tmp_path: Path) -> None:
    config = VattConfig(modalities={"video": MODALITIES["video"]})
    tasks = {"color": ClassCard(classes=NAMES)}
    save_model(tmp_path / "model", build_model(config, tasks), config, tasks)
    found = learn(tmp_path / "model", data=str(data / "all.csv"), workers=0, progress=False)
    assert of(found.features) == [("video", "untrained"), ("video", "trained")]
    assert found.spaces == found.similarities == found.activations == ()
    assert "does not say what trained it" in found.notes[0]
    assert set(draw_learned(found)) == {"classes"}


def test_the_command_writes_pictures_numbers_and_the_page(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_run(run, data=str(data / "bare.csv"), out=run, workers=0, progress=False)
    assert "What it learned" not in write_report(run).read_text()
    assert main(["pictures", str(run), "--perplexity", "2"]) == 0
    out = capsys.readouterr().out
    assert "a true pair is more alike than a random one: video and audio" in out
    names = {path.name for path in (run / PICTURES).iterdir()}
    assert names == {"classes.png", "inputs.png", "pairs.png", "units.png", NUMBERS}
    kept = read_learned(run / PICTURES)
    assert kept is not None
    assert {one.perplexity for one in kept.spaces} == {2.0}
    assert kept.about() in (run / "report.html").read_text().replace("&#x27;", "'")
    section = (run / "report.html").read_text().partition("<h2>What it learned</h2>")[2].partition("<h2>")[0]
    drawn = re.findall(r"<svg.*?</svg>", section, re.DOTALL)
    assert len(drawn) == 4
    for one in drawn:
        ElementTree.fromstring(one)
    assert "not to scale" in section


def test_what_cannot_be_drawn_is_told_in_one_line(run: Path) -> None:
    for words, says in (({"clips": 3}, "give 5 clips"), ({"perplexity": 0.0}, "perplexity 0")):
        with pytest.raises(ConfigError, match=says):
            learn(run, **words)  # pyright: ignore
    with pytest.raises(ConfigError, match="give the data"):
        learn(run / "model")
    found = learn(run, split="train", workers=0, progress=False)
    assert not draw_learned(found)
    assert "2 clips have video and a label: a picture takes 5 at least." in found.notes


def test_many_classes_and_odd_names_are_drawn(learned: Learned) -> None:
    odd = replace(learned, labels=tuple(f"${i}^<b>" for i in range(len(learned.labels))))
    drawn = svg(draw_learned(odd)["classes"])
    ElementTree.fromstring(drawn)
    many = replace(
        learned,
        labels=tuple(f"class {i}" for i in range(40)),
        features=tuple(
            replace(one, clips=tuple(range(40)), inputs=("video",) * 40, x=tuple(range(40)), y=tuple(range(40)))
            for one in learned.features[:2]
        ),
    )
    assert "28 others" in svg(draw_learned(many)["classes"])
