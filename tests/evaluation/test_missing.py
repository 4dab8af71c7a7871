"""A model of video and sound, and files that lack one of them: answered by the other, and told."""

from __future__ import annotations

import json

import pytest
import torch

from colors import NAMES, frames_of
from senses import MBT_CARD, small_mbt, tone, write_senses
from tubelet.cli import main
from tubelet.configs import ConfigError
from tubelet.data.views import Views
from tubelet.evaluation.run import evaluate_run
from tubelet.inference.predictor import Predictor, load
from tubelet.media.errors import MediaError
from tubelet.media.write import write_video
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task
from tubelet.training.resolve import Resolved, TaskData, write_run
from tubelet.weights.folder import save_model

FILES = ("green_high.mp4", "mute_red.mp4", "low.wav")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("missing")
    data = write_senses(folder / "data")
    rows = zip(FILES, ("green", "red", "blue"), strict=True)
    (data / "duet.csv").write_text("path,label,split\n" + "".join(f"{name},{label},val\n" for name, label in rows))
    (data / "films.csv").write_text("path,label\ngreen_high.mp4,green\nmute_red.mp4,red\n")
    loaded = small_mbt()
    task = Task(
        source=Source(path=str(data / "duet.csv")),
        objective=Classification(classes=NAMES),
        inputs=MBT_CARD.inputs,
        length=Length(steps=40),
        views=Views.parse(MBT_CARD.views),
    )
    lengths = TaskData(examples=1, updates=40, warmup=0, sha256="")
    write_run(
        folder / "run",
        Resolved(experiment=Experiment(model=loaded.config, tasks={"duet": task}), data={"duet": lengths}),
    )
    save_model(folder / "run" / "model", loaded.model, loaded.config, loaded.tasks, {})
    return folder / "run"


@pytest.mark.parametrize("workers", [0, 1])
def test_every_file_is_scored_and_what_was_missing_is_told(run, workers):
    (result,) = evaluate_run(run, workers=workers, progress=False, views_per_forward=5).values()
    assert (result.coverage, result.views, result.inputs) == ("3/3", "2x3", ("video", "audio"))
    assert "1 of 3 examples have no audio: answered by video alone" in result.warnings
    assert "1 of 3 examples have no video: answered by audio alone" in result.warnings
    predictor = load(run, device="cpu")
    for example in result.examples:  # alone, and in minibatches with whole examples
        said = predictor.predict(example.path, views="2x3", top=5).labels
        assert [label for label, _ in example.top["label"]] == [label for label, _ in said]
        assert [p for _, p in example.top["label"]] == pytest.approx([p for _, p in said], abs=1e-5)


def test_nothing_of_a_missing_sense_is_in_the_answer(run):
    predictor = load(run, device="cpu")
    video = predictor.predict(run.parent / "data" / "mute_red.mp4", views="1x1")
    assert video.warnings == ("audio: not in this file, so the answer is of video alone",)
    sound = predictor.predict(run.parent / "data" / "low.wav")
    assert (sound.views, sound.warnings) == ("2x1", ("video: not in this file, so the answer is of audio alone",))
    whole = predictor.predict(run.parent / "data" / "green_high.mp4")
    assert (whole.views, whole.warnings) == ("2x3", ())
    pooled = predictor.embed(run.parent / "data" / "mute_red.mp4", views="1x1")
    logits = predictor.heads["duet"].projection(pooled).detach()
    assert dict(video.labels)[NAMES[int(logits.argmax())]] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)


def test_silence_beside_pictures_is_told(run, tmp_path):
    film = tmp_path / "silent.mp4"
    write_video(film, frames_of("red"), fps=10.0, audio=torch.from_numpy(tone("none")))
    assert load(run, device="cpu").predict(film).warnings == (
        "audio: the sound is digital silence, so the answer is of video alone",
    )


def test_a_picture_has_neither(run):
    with pytest.raises(MediaError, match="is an image, but this model takes videos with sound or videos or sound"):
        load(run, device="cpu").predict(run.parent / "data" / "blue.png")


def test_one_sense_alone_can_be_asked_for(run, capsys):
    data = str(run.parent / "data" / "films.csv")
    (both,) = evaluate_run(run, data=data, workers=0, progress=False).values()
    (alone,) = evaluate_run(run, data=data, inputs=["video"], workers=0, progress=False).values()
    assert (both.inputs, alone.inputs) == (("video", "audio"), ("video",))
    assert not any("have no" in warning for warning in alone.warnings)
    whole, mute = ([dict(e.top["label"]) for e in r.examples] for r in (both, alone))
    assert whole[0] != pytest.approx(mute[0], abs=1e-3)
    assert whole[1] == pytest.approx(mute[1], abs=1e-5)
    (deaf,) = evaluate_run(run, data=data, inputs=["audio"], workers=0, progress=False).values()
    assert (deaf.coverage, deaf.views) == ("1/2", "2x1")
    with pytest.raises(ConfigError, match="task 'duet' takes video with audio, or video, or audio"):
        evaluate_run(run, data=data, inputs=["text"], workers=0)
    assert main(["eval", str(run), "--data", data, "--inputs", "video", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["duet"]["inputs"] == ["video"]


def test_the_command_line_says_what_was_missing(run, capsys):
    assert main(["predict", str(run), str(run.parent / "data" / "mute_red.mp4")]) == 0
    assert "duet: audio: not in this file, so the answer is of video alone" in capsys.readouterr().err
    assert main(["eval", str(run)]) == 0
    assert "duet: 1 of 3 examples have no audio: answered by video alone" in capsys.readouterr().err


def test_a_model_that_concatenates_its_tokens_does_without_a_sense_file_by_file(run, tmp_path):
    loaded = small_mbt(fusion="concatenate")
    film = run.parent / "data" / "mute_red.mp4"
    assert Predictor(loaded, CPU).predict(film).warnings == (
        "audio: not in this file, so the answer is of video alone",
    )
    save_model(tmp_path, loaded.model, loaded.config, loaded.tasks, {})
    (result,) = evaluate_run(tmp_path, data=str(run.parent / "data" / "films.csv"), workers=0, progress=False).values()
    assert result.coverage == "1/2"
    assert "no audio track" in str(result.errors[0])
