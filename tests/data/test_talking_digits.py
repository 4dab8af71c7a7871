"""Talking Digits: whole or not at all, the same every time, and a test of what it claims to be a test of."""

from __future__ import annotations

import hashlib
import shutil
import sys
import wave
from collections import Counter
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from tubelet.data.manifest import Record, read_manifest
from tubelet.data.talking_digits import make
from tubelet.data.talking_digits import speech as speech_module
from tubelet.data.talking_digits.plan import FPS, FRAMES, WORDS, Item, Parameters, items
from tubelet.data.talking_digits.scenes import DIRECTIONS, Glyphs
from tubelet.data.talking_digits.speech import RATE, VOICES
from tubelet.media.video import open_video

pytest.importorskip("espeakng_loader", reason="eSpeak NG comes with the extra tubelet[demo]")
SMALL = {"train": 16, "val": 8}
GLYPHS = Glyphs()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talking") / "digits"
    make(folder, **SMALL)
    return folder


@pytest.fixture
def no_workers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that write media fail."""
    broken = tmp_path_factory.mktemp("bin") / "python"
    broken.write_text("#!/bin/sh\necho disk full >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@cache
def everything(parameters: Parameters) -> list[Item]:
    return items(parameters, GLYPHS)


def plan(task: str, split: str, parameters: Parameters = Parameters()) -> list[Item]:
    return [item for item in everything(parameters) if task in item.labels and item.split == split]


# The folder


@pytest.mark.parametrize(
    ("task", "train", "val", "classes"),
    [
        ("digit", 1415, 382, 10),
        ("motion", 16, 8, 8),
        ("spoken", 16, 8, 10),
        ("talking", 16, 8, 10),
        ("duet", 16, 8, 80),
    ],
)
def test_manifests_list_existing_files(folder: Path, task: str, train: int, val: int, classes: int) -> None:
    manifest = read_manifest(folder / f"{task}.csv")
    counts = Counter(record.split for record in manifest.records)
    assert counts == {"train": train, "val": val}
    assert len({label(record) for record in manifest.records}) <= classes
    assert all((folder / record.path).is_file() for record in manifest.records)
    assert all(record.text for record in manifest.records)


def label(record: Record) -> str:
    (only,) = record.labels["label"]
    return only


def test_a_missing_file_has_all_made_again_and_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    missing = again / "motion/train/00003.mp4"
    missing.unlink()
    make(again, **SMALL)
    assert missing.is_file()
    assert contents(again) == contents(folder)
    assert list(tmp_path.iterdir()) == [again]


def test_another_seed_gives_other_clips() -> None:
    assert plan("motion", "train") != plan("motion", "train", Parameters(seed=1))


def test_made_once_and_reused(folder: Path, no_workers: None) -> None:
    manifests = make(folder, **SMALL)
    assert manifests["motion"] == folder / "motion.csv"
    (folder / "notes.txt").write_text("a reader's own file")
    make(folder, **SMALL)
    (folder / "notes.txt").unlink()


def test_other_parameters_are_not_mistaken_and_a_failure_leaves_what_was_there(folder: Path, no_workers: None) -> None:
    before = contents(folder)
    with pytest.raises(RuntimeError, match="disk full"):
        make(folder, seed=1, **SMALL)
    assert contents(folder) == before


def test_a_failure_leaves_nothing_half_made(tmp_path: Path, no_workers: None) -> None:
    with pytest.raises(RuntimeError, match="disk full"):
        make(tmp_path / "data" / "digits", **SMALL)
    assert not list((tmp_path / "data").iterdir())


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="folder of their own"):
        make(tmp_path, **SMALL)
    assert contents(tmp_path).keys() == {"thesis.txt"}


def test_without_espeak_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_module, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .tubelet\[demo\]"):
        make(tmp_path / "digits", **SMALL)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"size": 33}, {"size": 8}])
def test_wrong_parameters_are_named(tmp_path: Path, wrong: dict[str, int]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        make(tmp_path / "digits", **wrong)


# What is seen


def test_videos_move_as_their_label_says(folder: Path) -> None:
    for record in read_manifest(folder / "motion.csv").records:
        with open_video(folder / record.path) as video:
            info = video.probe()
            frames = video.frames_at([i / FPS + 1e-3 for i in range(FRAMES)]).frames.float()
        assert (info.width, info.height) == (32, 32)
        assert info.duration == pytest.approx(2.0, abs=0.1)
        step = next(direction.step for direction in DIRECTIONS if direction.name == label(record))
        moved = np.array([circular_shift(a, b) for a, b in zip(places(frames), places(frames)[1:], strict=False)])
        assert np.dot(moved.mean(0) / np.linalg.norm(moved.mean(0)), step) > 0.95


def test_no_frame_is_coded_from_others_for_its_traces_would_tell_the_direction(folder: Path) -> None:
    with av.open(str(folder / "motion/train/00000.mp4")) as video:
        packets = [packet for packet in video.demux(video=0) if packet.size]
    assert len(packets) == FRAMES
    assert all(packet.is_keyframe for packet in packets)


def places(frames) -> list[np.ndarray]:
    """The center of the ink of each frame, (down, right) as angles around the torus."""
    ink = frames.mean(1).numpy()
    turn = np.exp(2j * np.pi * np.arange(ink.shape[1]) / ink.shape[1])
    return [np.angle([(frame.sum(1) * turn).sum(), (frame.sum(0) * turn).sum()]) for frame in ink]


def circular_shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * (b - a)))


def test_one_frame_is_at_chance_and_two_are_not() -> None:
    """Two frames a third of a second apart."""

    def examples(split: str) -> tuple[np.ndarray, list[str]]:
        drawn = [item for item in plan("motion", split) if item.scene]
        clips = np.stack([item.scene.draw(GLYPHS, 16, 5, FPS)[::4].mean(1) / 255 for item in drawn if item.scene])
        return clips, [item.labels["motion"] for item in drawn]

    (clips, labels), (clips_val, labels_val) = examples("train"), examples("val")
    one = RidgeClassifier().fit(clips[:, 0].reshape(1600, -1), labels)
    chance, deviation = 1 / 8, np.sqrt(1 / 8 * 7 / 8 / 400)
    assert abs(one.score(clips_val[:, 0].reshape(400, -1), labels_val) - chance) < 4 * deviation
    two = RidgeClassifier().fit(correlation(clips), labels)
    assert two.score(correlation(clips_val), labels_val) > 0.95


def correlation(clips: np.ndarray) -> np.ndarray:
    """The second frame of (N, 2, H, W) correlated with the first, around the torus."""
    spectra = np.fft.rfft2(clips)
    return np.fft.irfft2(spectra[:, 1] * spectra[:, 0].conj()).reshape(len(clips), -1)


def test_motion_is_balanced_and_independent_of_the_digit() -> None:
    train = plan("motion", "train")
    assert set(Counter(item.labels["motion"] for item in train).values()) == {200}
    pairs = Counter((item.labels["motion"], item.labels["talking"]) for item in train)
    assert len(pairs) == 80
    assert max(pairs.values()) < 45


def test_written_digits_can_be_read_and_fill_the_picture(folder: Path) -> None:
    def examples(split: str) -> tuple[np.ndarray, list[str]]:
        records = [record for record in read_manifest(folder / "digit.csv").records if record.split == split]
        pixels = [np.asarray(Image.open(folder / record.path).resize((8, 8))).ravel() / 255 for record in records]
        return np.stack(pixels), [label(record) for record in records]

    train, val = examples("train"), examples("val")
    assert KNeighborsClassifier(3).fit(*train).score(*val) > 0.9
    rows = val[0].reshape(-1, 8, 8).max(2)
    assert (rows[:, :2].max(1) > 0.3).mean() > 0.95
    assert (rows[:, -2:].max(1) > 0.3).mean() > 0.95


# What is heard


def test_writers_and_voices_of_validation_never_train() -> None:
    assert not set(VOICES["train"]) & set(VOICES["val"])
    assert not {v.split("+")[1] for v in VOICES["train"]} & {v.split("+")[1] for v in VOICES["val"]}
    used = {split: [item for item in everything(Parameters()) if item.split == split] for split in ("train", "val")}
    voices = {split: {item.utterance.voice for item in used[split] if item.utterance} for split in used}
    glyphs = {split: {item.scene.glyph for item in used[split] if item.scene} for split in used}
    assert voices["val"] <= set(VOICES["val"])
    assert voices["train"] <= set(VOICES["train"])
    assert max(glyphs["train"]) < min(glyphs["val"])


def test_every_video_says_its_digit_somewhere_within(folder: Path) -> None:
    for record in read_manifest(folder / "talking.csv").records:
        with open_video(folder / record.path) as video:
            samples = np.asarray(video.audio(0.0, 2.0, RATE))
        loud = np.flatnonzero(np.abs(samples) > 0.2 * np.abs(samples).max())
        assert 0.05 < (loud[-1] - loud[0]) / RATE < 1.2
        assert label(record) in record.text.split()


def test_sound_files_are_sixteen_bit_and_neither_silent_nor_clipped(folder: Path) -> None:
    for record in read_manifest(folder / "spoken.csv").records:
        with wave.open(str(folder / record.path)) as file:
            assert (file.getframerate(), file.getnchannels()) == (RATE, 1)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        assert 0.25 < np.abs(samples).max() < 0.95
        assert 0.3 < len(samples) / RATE < 1.5


def test_in_a_duet_the_spoken_digit_says_nothing_about_the_seen_one() -> None:
    train = plan("duet", "train")
    pairs = Counter(
        (item.labels["duet"].split("/")[0], WORDS[GLYPHS.digit[item.scene.glyph]]) for item in train if item.scene
    )
    expected = len(train) / 100
    chi_squared = sum((pairs[a, b] - expected) ** 2 / expected for a in WORDS for b in WORDS)
    assert chi_squared < 81 + 4 * np.sqrt(2 * 81)
    assert set(Counter(item.labels["duet"] for item in train).values()) == {20}
