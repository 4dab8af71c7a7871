"""VATT from recipes to use: the papers' experiments, a folder without labels, the demo, and comparing files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path

import pytest
import torch

import tubelet
from commands import experiment_of
from tubelet.data.manifest import Record, write_manifest
from tubelet.data.talking_digits import make
from tubelet.models.vatt.config import Sense, VattConfig
from tubelet.recipes import vatt, vatt_demo
from tubelet.recipes.folder.pace import Pace
from tubelet.recipes.run import run
from tubelet.specs import TextSpec, VideoSpec, WaveformSpec
from tubelet.training.contrastive import Contrastive
from tubelet.training.experiment import Experiment
from tubelet.training.run import initial_model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "data"
    make(folder, train=40, val=20)
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures of what was learned: they take seconds, and one test here has them."""
    for module in ("tubelet.recipes.run", "tubelet.recipes.vatt_demo"):
        monkeypatch.setattr(f"{module}.draw", lambda *_, **__: None)


def shortened(experiment: Experiment, task: str, steps: int, batch: int) -> Experiment:
    made = experiment.tasks[task]
    length = replace(made.length, steps=steps)
    tasks = {task: replace(made, length=length, warmup=replace(made.warmup, steps=1), batch_size=batch)}
    return replace(experiment, tasks=tasks, training=replace(experiment.training, workers=0))


def test_pre_training_is_the_released_one(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    write_manifest(tmp_path / "all.csv", [Record("a.mp4", split="train", text="a dog, a Dog and a cat")])
    made = vatt.pretrain(str(tmp_path / "all.csv"), also="other.csv")
    task, model = made.tasks["pretrain"], made.model
    assert isinstance(model, VattConfig)
    assert (model.kept, model.name) == (0.5, "vatt-mbs")
    video, text = model.inputs["video"], model.inputs["text"]
    assert isinstance(video, VideoSpec)
    assert (video.frames, video.step(25.0), video.size, video.value_range) == (32, 0.1, (224, 224), (-1.0, 1.0))
    assert isinstance(text, TextSpec)
    assert (text.vocabulary, text.ids, text.captions) == ("<pad> <unk> a dog and cat", 65_536, 5)
    assert (task.source.also, task.batch_size, task.length.steps, task.warmup.steps) == (
        ("other.csv",), 2048, 500_000, 5_000,
    )  # fmt: skip
    assert (task.learning_rate, made.training.decay_to, made.training.clip_norm) == (1e-4, 0.5, 0.0)
    assert task.objective == Contrastive()


def test_the_papers_variations_are_flags_of_pre_training(tmp_path: Path) -> None:
    """Tables 5, 9 and 10 by the flags that the docstring gives: the tokens of video and sound, and the share kept."""
    write_manifest(tmp_path / "all.csv", [Record("a.mp4", split="train", text="a dog")])
    expected = {
        "--keep 0.25": ((8, 14, 14), (1, 1, 1200), 0.25),
        "--keep 1": ((8, 14, 14), (1, 1, 1200), 1.0),
        "--patch 5 16 16 --pixels 200": ((6, 12, 12), (1, 1, 1200), 0.5),
        "--patch 5 16 16 --frames 64": ((12, 14, 14), (1, 1, 1200), 0.5),
        "--patch 8 32 32": ((4, 7, 7), (1, 1, 1200), 0.5),
        "--sound 1024": ((8, 14, 14), (1, 1, 150), 0.5),
        "--sound spectrogram": ((8, 14, 14), (1, 9, 16), 0.5),
    }
    for flags, (video, audio, kept) in expected.items():
        assert f"{flags} " in (vatt.pretrain.__doc__ or "")
        model = experiment_of("vatt.pretrain", "--data", str(tmp_path / "all.csv"), *flags.split()).model
        assert isinstance(model, VattConfig)
        grids = {n: m.grid for n, m in model.modalities.items() if isinstance(m, Sense)}
        assert (grids, model.kept) == ({"video": video, "audio": audio}, kept), flags


def test_table_6_is_flags_of_fine_tuning() -> None:
    model = vatt.kinetics(frames=64, pixels=224, keep=0.5).model
    assert isinstance(model, VattConfig)
    (sense,) = model.modalities.values()
    assert isinstance(sense, Sense)
    assert (sense.grid, model.kept) == ((16, 14, 14), 0.5)


@pytest.mark.parametrize(
    ("recipe", "input", "tokens"),
    [("kinetics", "video", 3200), ("audioset", "audio", 1200), ("imagenet", "image", 576)],
)
def test_fine_tuning_has_one_tower_and_all_its_tokens(recipe: str, input: str, tokens: int) -> None:
    made: Experiment = getattr(vatt, recipe)()
    (task,) = made.tasks.values()
    assert isinstance(made.model, VattConfig)
    assert task.inputs == tuple(made.model.inputs) == (input,)
    (sense,) = made.model.modalities.values()
    assert made.model.kept == 1.0
    grid = sense.grid
    assert grid[0] * grid[1] * grid[2] == tokens
    assert made.optimizer.momentum == 0.9  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.usefixtures("undrawn")
def test_a_video_alone_starts_from_all_three(digits: Path, tmp_path: Path) -> None:
    """The chain of the documentation: pre-train, then fine-tune one tower."""
    result = run(shortened(vatt.talking(str(digits)), "talking", 2, 8), tmp_path / "pre", progress=False)
    assert result.results["tasks"]["talking"]["metrics"]["text_to_video_pool"] == 20
    pretrained = tubelet.load(tmp_path / "pre")
    fine = vatt.kinetics(str(digits / "motion.csv"), init=str(tmp_path / "pre"))
    assert isinstance(pretrained.config, VattConfig)
    model = pretrained.config.with_only(("video",))
    report = tubelet.create_model(model, num_classes=0, weights=tmp_path / "pre").started_from
    assert report is not None
    assert not report.fresh
    assert fine.init[0].source == str(tmp_path / "pre")

    record = str(digits / "motion" / "val" / "00000.mp4")
    for beside, inputs, width in (("text", "video", 256), ("audio", "video", 512), ("video", "audio", 512)):
        vector = pretrained.embed(record, inputs=inputs, beside=beside)
        assert vector.shape == (width,)
        assert vector.norm() == pytest.approx(1.0, abs=1e-5)
    said = pretrained.similarity(record, text="a white seven moves quickly")
    expected = pretrained.embed(record, beside="text") @ pretrained.embed_text("a white seven moves quickly")
    assert said == pytest.approx(float(expected), abs=1e-6)
    assert -1 <= pretrained.similarity(record, record) <= 1
    with pytest.raises(ValueError, match="compares and predicts nothing"):
        pretrained.predict(record)
    with pytest.raises(ValueError, match="either a second file"):
        pretrained.similarity(record)


def test_a_folder_without_labels(digits: Path, tmp_path: Path) -> None:
    """Videos with and without sound, one with subtitles beside it; one that is broken."""
    films = tmp_path / "films" / "deep"
    films.mkdir(parents=True)
    for i in range(24):
        shutil.copy(digits / "motion" / "train" / f"{i:05d}.mp4", films / f"{i}.mp4")
    (films / "0.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nA dog barks.\n")
    (films / "broken.mp4").write_bytes(b"nothing")
    made = vatt.folder(str(tmp_path / "films"), steps=3, part=1.0, size=32)
    assert tuple(made.model.inputs) == ("video", "audio", "text")
    assert "Captions: 1 texts" in made.notes
    assert "broken.mp4" in made.notes
    result = run(shortened(made, "clips", 3, 8), tmp_path / "run", progress=False)
    metrics = result.results["tasks"]["clips"]["metrics"]
    assert metrics["audio_to_video_pool"] == result.results["tasks"]["clips"]["coverage"]["scored"] > 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "No clip has a label" in page.partition("<h2>What it learned</h2>")[2].partition("<h2>")[0]
    alone = vatt.folder(str(tmp_path / "films"), steps=3, part=1.0, captions=False)
    assert tuple(alone.model.inputs) == ("video", "audio")
    assert "Captions" not in alone.notes


def test_what_was_measured_is_kept_for_a_resume(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command gives the recipe back what it chose under the names of parameters: the same experiment comes out."""
    shutil.copytree(digits / "motion" / "train", tmp_path / "films")
    monkeypatch.setattr(vatt, "measure", lambda experiment, ranks: {"clips": Pace(update=2.0, first_read=0.0)})
    made = vatt.folder(str(tmp_path / "films"), minutes=10.0, part=1.0)
    assert made.tasks["clips"].length.steps == 255
    kept = {key: value for key, value in made.chosen.items() if key in signature(vatt.folder).parameters}
    again = vatt.folder(str(tmp_path / "films"), minutes=10.0, part=1.0, **kept)  # pyright: ignore[reportArgumentType]
    assert replace(again, chosen=made.chosen) == made


@pytest.mark.usefixtures("undrawn")
def test_the_demo_shows_what_was_learned(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vatt_demo, "make", partial(make, train=40, val=20))
    shown = vatt_demo.run_vatt_demo(tmp_path / "demo", data=digits, updates=2, progress=False)
    assert [one.name for one in shown] == ["untrained", "DropToken 50 %", "all tokens"]
    assert all(set(one.probes) == {"motion", "spoken"} for one in shown)
    assert all(one.pool == 20 and one.minutes is not None for one in shown[1:])
    assert set(json.loads((tmp_path / "demo" / "demo.json").read_text())) == {one.name for one in shown}
    assert (tmp_path / "demo" / "half" / "report.html").exists()
    assert len(vatt_demo.table(shown).rows) == 4


def test_two_trainings_from_one_seed_are_the_same(digits: Path) -> None:
    experiment = vatt.talking(str(digits))
    one, two = (initial_model(experiment).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(name.endswith("variance") for name in one), "statistics of the batch norms are part of the model"
    assert isinstance(vatt.audioset().model.inputs["audio"], WaveformSpec)
