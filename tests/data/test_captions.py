"""Captions of examples: where they come from, which of them a clip gets, and examples that have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import media_files
from media_files import SOUND_RATE, encode, with_captions
from tubelet.data import captions
from tubelet.data.augment import Augmentation
from tubelet.data.captions import nearest, subtitles_of
from tubelet.data.dataset import Example, TrainSet, VideoViews, ViewSet
from tubelet.data.loader import train_batches
from tubelet.data.manifest import Record
from tubelet.data.readers import reader_of
from tubelet.data.views import Views
from tubelet.inference.kinds import fitting_views, misfit
from tubelet.media.errors import MediaError, NoTrackError
from tubelet.media.info import probe
from tubelet.media.subtitles import Caption
from tubelet.specs import InputSpec, TextSpec, VideoSpec, WaveformSpec

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEXT = TextSpec(captions=3, words=4, ids=20, vocabulary=" ".join(["<pad>", "<unk>", *WORDS]), seconds=1.0)
VIDEO = VideoSpec(frames=10, stride=1, fps=10.0, size=(16, 16), short_side=16)
SOUND = WaveformSpec(samples=16_000, rate=16_000)
PLAIN = Augmentation.none()


def said(ids: Tensor) -> list[str]:
    """The captions of (P, L) ids that are not empty."""
    vocabulary = TEXT.vocabulary.split(" ")
    return [" ".join(vocabulary[i] for i in row if i) for row in ids.tolist() if any(row)]


def trained(record: Record, spec: TextSpec = TEXT, pass_: int = 0) -> Tensor:
    example = TrainSet([record], None, {"text": spec}, PLAIN).example(0, pass_)
    assert isinstance(example, Example), example
    assert example.inputs["text"].dtype == torch.int64
    assert example.inputs["text"].shape == spec.shape
    return example.inputs["text"]


def viewed(record: Record, views: Views = Views(), spec: TextSpec = TEXT) -> Tensor:
    example = ViewSet([record], None, {"text": spec}, views).example(0)
    assert isinstance(example, VideoViews), example
    assert example.inputs["text"].shape == (len(views), *spec.shape)
    return example.inputs["text"]


@pytest.fixture(scope="module")
def film(media: Path) -> Path:
    """Five seconds of numbered pictures at 10 frames per second, without sound."""
    return encode(media / "silent_film.mp4", 50, fps=10, size=(32, 32))


@pytest.fixture
def video(film: Path, tmp_path: Path) -> Path:
    (tmp_path / "clip.mp4").symlink_to(film)
    return tmp_path / "clip.mp4"


def write_counted(path: Path, seconds: int = 5) -> None:
    """A subtitle file that says the number of each second while it lasts."""
    cues = [f"00:0{i}.000 --> 00:0{i}.999\n{WORDS[i].upper()}!\n" for i in range(seconds)]
    path.write_text("WEBVTT\n\n" + "\n".join(cues))


def test_captions_of_the_manifest_come_first(video):
    write_counted(video.with_suffix(".vtt"))
    record = Record(str(video), text="One, two", texts=("three purple", "... !", "four"))
    assert said(viewed(record)[0]) == ["one two", "three <unk>", "four"]
    assert said(viewed(replace(record, text="", texts=("..!",)))[0]) == ["one", "two", "three"]
    assert torch.equal(viewed(record, Views(2, 1)), viewed(record).expand(2, -1, -1))


def test_training_draws_among_captions_without_times_and_the_test_takes_the_first():
    record = Record("nowhere.mp4", texts=tuple(WORDS[:5]))
    assert said(viewed(record)[0]) == WORDS[:3]
    seen = [said(trained(record, pass_=i)) for i in range(40)]
    assert all(len(set(each)) == 3 for each in seen)
    assert {word for each in seen for word in each} == set(WORDS[:5])
    assert said(trained(replace(record, texts=("two", "one")))) == ["two", "one"]


def test_a_clip_has_the_captions_nearest_to_its_middle_in_their_order(video):
    write_counted(video.with_suffix(".en.vtt"))
    record = Record(str(video))
    assert [said(ids) for ids in viewed(record, Views(3, 1))] == [
        ["zero", "one", "two"],
        ["one", "two", "three"],
        ["two", "three", "four"],
    ]
    beside = ViewSet([record], None, {"video": replace(VIDEO, short_side=20), "text": TEXT}, Views(2, 3)).example(0)
    assert isinstance(beside, VideoViews)
    assert torch.equal(beside.inputs["text"], viewed(record, Views(2, 1)).repeat_interleave(3, 0))
    data = TrainSet([record], None, {"video": VIDEO, "text": replace(TEXT, captions=1)}, PLAIN)
    for pass_ in range(20):
        example = data.example(0, pass_)
        assert isinstance(example, Example)
        middle = data.times(0, pass_, "video")[0] + 0.5
        assert said(example.inputs["text"]) == [WORDS[int(middle)]]
    part = replace(record, start=3.0, end=4.0)
    assert said(trained(part, replace(TEXT, captions=1))) == ["three"]
    assert said(viewed(record, spec=replace(TEXT, seconds=0.0))[0]) == ["zero", "one", "two"], "no times are wanted"


def test_what_is_shown_is_nearest():
    long, short, later = Caption(0, 10, "long"), Caption(3, 4, "short"), Caption(7, 8, "later")
    assert nearest([long, short, later], 3.6, 1) == [short]
    assert nearest([long, short, later], 5.2, 2) == [long, short]
    assert nearest([later, short], 5.6, 1) == [later]
    assert nearest([], 1.0, 5) == []


def test_a_track_of_the_video_and_a_file_of_its_own(film, tmp_path):
    path = with_captions(
        film, tmp_path / "a.mkv", [(0.0, 1.0, "Six"), (1.0, 2.0, "\\N"), (2.0, 5.0, "Seven")], "subrip"
    )
    assert said(viewed(Record(str(path)))[0]) == ["six", "seven"]
    write_counted(tmp_path / "other.vtt")
    apart = replace(TEXT, column="path.captions")
    record = Record(str(path), text="nine", paths={"captions": str(tmp_path / "other.vtt")})
    assert said(viewed(record, spec=apart)[0]) == ["one", "two", "three"]
    with pytest.raises(ValueError, match=r"input 'text' is read from the column 'path.captions'"):
        ViewSet([Record(str(path))], None, {"text": apart})


def test_captions_are_read_once_until_the_file_changes(video, monkeypatch):
    file = video.with_suffix(".vtt")
    write_counted(file)
    read, plain = list[str](), captions.read_subtitles
    monkeypatch.setattr(captions, "read_subtitles", lambda path: read.append(path) or plain(path))
    assert len(subtitles_of(str(video))) == len(subtitles_of(str(video))) == 5
    assert read == [str(file)]
    file.write_text("00:01,0 --> 00:02,0\nanew\n")
    assert [caption.text for caption in subtitles_of(str(video))] == ["anew"]


def test_a_file_without_captions_is_missing_them(video):
    found = ViewSet([Record(str(video))], None, {"text": TEXT}).example(0)
    assert isinstance(found, NoTrackError)
    assert "no captions in the manifest, beside the file" in found.reason
    assert isinstance(TrainSet([Record(str(video))], None, {"text": TEXT}).example(0, 0), NoTrackError)
    video.with_suffix(".srt").write_text("no cue")
    found = ViewSet([Record(str(video))], None, {"text": TEXT}).example(0)
    assert isinstance(found, MediaError)
    assert found.path.endswith(".srt")
    assert not isinstance(found, NoTrackError)


def test_a_spec_without_words_reads_nothing(video):
    with pytest.raises(ValueError, match="input 'text' has no vocabulary, so no caption can be read"):
        TrainSet([Record(str(video))], None, {"text": TextSpec()})


def test_what_the_library_asks_of_a_reader(film, video, tmp_path):
    reader = reader_of(TEXT)
    info = probe(video)
    assert not reader.given_by(info)
    assert reader.given_by(probe(with_captions(film, tmp_path / "a.mp4", [(0.0, 1.0, "Six")], "mov_text")))
    video.with_suffix(".de.srt").touch()
    assert reader.given_by(info)
    assert torch.equal(reader.blank(), torch.zeros(1, 3, 4, dtype=torch.int64))
    assert reader.summary() == "3 captions of up to 4 words, those nearest to the middle of 1 s"
    with pytest.raises(ValueError, match="captions have no timeline"):
        reader.grid(25.0)
    with pytest.raises(TypeError, match="no way to draw captions"):
        reader.picture(reader.blank()[0])
    assert fitting_views("", {"video": VIDEO, "text": TEXT}) == Views(4, 1)
    said_ = str(misfit(info, "this model", [{"video": VIDEO, "text": TEXT}]))
    assert "takes videos with captions; give it a video with captions" in said_


INPUTS: dict[str, InputSpec] = {"video": VIDEO, "audio": SOUND, "text": TEXT}


def test_examples_that_lack_inputs_train_with_the_others_and_masks(film, video, tmp_path):
    whole = encode(tmp_path / "whole.mp4", 50, fps=10, size=(32, 32), sound=np.ones((2, 5 * SOUND_RATE)) * 0.1)
    write_counted(whole.with_suffix(".vtt"))
    write_counted(video.with_suffix(".vtt"))
    (tmp_path / "bare.mp4").symlink_to(film)
    records = [Record(str(path)) for path in (whole, video, tmp_path / "bare.mp4")]
    strict, lenient = (TrainSet(records, None, INPUTS, PLAIN, may_miss=may_miss) for may_miss in (False, True))
    assert isinstance(strict.example(1, 0), NoTrackError)
    first = strict.example(0, 0)
    again = lenient.example(0, 0)
    assert isinstance(first, Example)
    assert isinstance(again, Example)
    assert set(first.inputs) == set(INPUTS), "no masks unless they are asked for"
    assert all(torch.equal(x, again.inputs[name]) for name, x in first.inputs.items())
    masks = {1: (1, 0, 1), 2: (1, 0, 0)}
    for index, wanted in masks.items():
        example = lenient.example(index, 0)
        assert isinstance(example, Example)
        assert tuple(int(example.inputs[f"{name}_mask"]) for name in INPUTS) == wanted
        for name, present in zip(INPUTS, wanted, strict=True):
            x = example.inputs[name]
            assert x.shape == INPUTS[name].shape
            assert x.dtype == again.inputs[name].dtype
            assert bool(x.any()) == bool(present)
    (batch,) = train_batches({"t": lenient}, ["t"], {"t": 3}, seed=0)
    assert batch.inputs["text_mask"].tolist() == [float(x.any()) for x in batch.inputs["text"]]
    assert sum(batch.inputs["audio_mask"].tolist()) == 1
    assert not batch.replaced


def test_sound_that_has_ended_when_a_clip_begins_is_missing(tmp_path):
    film = encode(tmp_path / "a.mp4", 50, fps=10, size=(32, 32), sound=np.ones((2, SOUND_RATE)) * 0.1)
    record = Record(str(film), start=3.0)
    specs: dict[str, InputSpec] = {"video": VIDEO, "audio": SOUND}
    assert isinstance(TrainSet([record], None, specs, PLAIN).example(0, 0), NoTrackError)
    example = TrainSet([record], None, specs, PLAIN, may_miss=True).example(0, 0)
    assert isinstance(example, Example)
    assert (int(example.inputs["video_mask"]), int(example.inputs["audio_mask"])) == (1, 0)


def test_an_example_with_none_of_the_inputs_cannot_be_read(video):
    data = TrainSet([Record(str(video))], None, {"audio": SOUND, "text": TEXT}, PLAIN, may_miss=True)
    assert isinstance(data.example(0, 0), NoTrackError)


@pytest.mark.parametrize(
    ("sound_seconds", "sound_start"),
    [(8.0, 0.0), (7.0, 0.0), (9.0, 0.0), (7.5, 0.5)],
    ids=["equal tracks", "less sound", "more sound", "sound begins later"],
)
def test_pictures_sound_and_captions_show_the_same_moment(tmp_path, monkeypatch, sound_seconds, sound_start):
    """A flash, a beep and a word, at 4 s of a film of 8 s, whichever clip is drawn."""
    flash, length, rate = 4.0, 0.5, 30
    sound = np.zeros((2, round(sound_seconds * SOUND_RATE)))
    first = round((flash - sound_start) * SOUND_RATE)
    sound[:, first : first + round(length * SOUND_RATE)] = 0.5

    def lit(number: int, size: tuple[int, int]) -> np.ndarray:
        on = flash <= number / rate < flash + length
        return np.full((size[1], size[0], 3), 255 if on else 0, np.uint8)

    monkeypatch.setattr(media_files, "picture", lit)
    film = encode(tmp_path / "a.mp4", 8 * rate, fps=rate, size=(32, 32), sound=sound, sound_start=sound_start)
    film.with_suffix(".srt").write_text("00:04,000 --> 00:04,500\nFour\n\n00:00,000 --> 00:00,100\nZero\n")
    specs: dict[str, InputSpec] = {
        "video": VideoSpec(frames=32, stride=1, fps=10.0, size=(32, 32), short_side=32),
        "audio": WaveformSpec(samples=6_400, rate=2_000),
        "text": replace(TEXT, captions=1, seconds=3.2),
    }
    data = TrainSet([Record(str(film))], None, specs, PLAIN, seed=1, cache_gib=0.1)
    together = 0
    for pass_ in range(25):
        seen, heard = (data.times(0, pass_, name)[0] for name in ("video", "audio"))
        assert seen == pytest.approx(heard, abs=1e-9)
        example = data.example(0, pass_)
        assert isinstance(example, Example)
        bright = (example.inputs["video"].float().mean((1, 2, 3)) > 128).nonzero().flatten()
        loud = (example.inputs["audio"].abs() > 0.2).nonzero().flatten()
        if len(bright) and len(loud) and bright[0] and loud[0]:
            late = bright[0].item() / 10 - loud[0].item() / 2_000
            assert -0.01 < late < 0.1 + 0.01, "the first frame after the beep; AAC smears it by some milliseconds"
            assert said(example.inputs["text"]) == ["four"]
            together += 1
    assert together > 5
