"""Folders of class folders: their split, their index, and the check of what can be read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from media_files import SOUND_RATE, encode, record_sound
from tubelet.data.fingerprints import fingerprints
from tubelet.data.folder import read_folder
from tubelet.data.index import check_manifest, index_folder
from tubelet.data.kinds import kind_of
from tubelet.data.manifest import Manifest, ManifestError, Record, read_manifest
from tubelet.media.write import write_video


def fill(folder: Path, files: dict[str, str]) -> None:
    """Files by path with their content; nobody decodes them here."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def split_of(manifest: Manifest) -> dict[str, str]:
    return {record.key: record.split for record in manifest.records}


def test_split_folders_are_respected(tmp_path):
    files = ["train/cat/a.mp4", "train/dog/deep/b.MOV", "validation/cat/c.mp4", "test/dog/d.avi"]
    fill(tmp_path, dict.fromkeys([*files, "train/cat/notes.txt", "train/cat/.hidden.mp4", "old/x.mp4"], ""))
    manifest = read_manifest(tmp_path)
    splits = ["train", "train", "val", "test"]
    assert split_of(manifest) == dict(sorted(zip(files, splits, strict=True)))
    assert [record.labels["label"][0] for record in manifest.split("train")] == ["cat", "dog"]
    assert "old" in manifest.notes[0]


def test_a_fifth_of_each_class_is_the_test_set(tmp_path):
    fill(tmp_path, {f"{c}/{i}.mp4": f"{c}{i}" for c, n in {"a": 50, "b": 10, "c": 2, "d": 1}.items() for i in range(n)})
    manifest = read_folder(tmp_path)
    held_out = [record.labels["label"][0] for record in manifest.split("val")]
    assert {c: held_out.count(c) for c in "abcd"} == {"a": 10, "b": 2, "c": 1, "d": 0}
    assert "13 of its 63 files" in manifest.notes[0]


def test_the_split_depends_on_content_alone(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    fill(first, {f"a/{i}.mp4": f"content {i}" for i in range(40)})
    fill(second, {f"a/deeper/renamed {39 - i}.mp4": f"content {i}" for i in range(40)})
    sides = [{Path(r.path).read_text(): r.split for r in read_folder(f).records} for f in (first, second)]
    assert sides[0] == sides[1]
    fill(first, {"a/new.mp4": "new"})
    grown = {Path(r.path).read_text(): r.split for r in read_folder(first).records}
    assert sum(grown[content] != side for content, side in sides[0].items()) <= 1


def test_copies_stay_on_one_side_and_are_told(tmp_path):
    fill(tmp_path, {f"a/{i}.mp4": str(i // 2) for i in range(40)})
    manifest = read_folder(tmp_path)
    for i in range(0, 40, 2):
        assert split_of(manifest)[f"a/{i}.mp4"] == split_of(manifest)[f"a/{i + 1}.mp4"]
    assert "20 files are there more than once" in manifest.notes[1]


def test_a_folder_without_class_folders_is_told(tmp_path):
    fill(tmp_path, {"a.mp4": ""})
    with pytest.raises(ManifestError, match="FOLDER/CLASS/FILE"):
        read_folder(tmp_path)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    for place, name in enumerate(["a/one two.mp4", "a/zwei ü.mp4", "b/three.mp4", "b/four.mp4"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        encode(tmp_path / name, 12 + place, size=(32, 32))
    (tmp_path / "b/broken.mp4").write_bytes((tmp_path / "b/three.mp4").read_bytes()[:400])
    Image.new("RGB", (8, 6)).save(tmp_path / "a/still.png")
    return tmp_path


def test_an_index_keeps_every_file_and_says_which_are_broken(collection):
    seen: list[tuple[int, int]] = []
    index = index_folder(collection, workers=2, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(i, 6) for i in range(1, 7)]
    assert [Path(error.path).name for error in index.broken] == ["broken.mp4"]
    manifest = read_manifest(collection / "manifest.csv")
    assert [record.key for record in manifest.records] == sorted(record.key for record in index.manifest.records)
    by_name = {Path(record.path).name: record for record in manifest.records}
    assert by_name["broken.mp4"].error == index.broken[0].reason
    assert by_name["one two.mp4"].duration == pytest.approx(12 / 30, abs=1e-3)
    assert by_name["one two.mp4"].fps == pytest.approx(30, abs=1e-3)
    assert (by_name["still.png"].width, by_name["still.png"].height, by_name["still.png"].fps) == (8, 6, 0)
    assert all(Path(record.path).exists() for record in manifest.records)
    assert index_folder(collection, workers=1).manifest.records == index.manifest.records


def test_check_decodes_and_lists_what_cannot_be_read(collection):
    whole = (collection / "b/four.mp4").read_bytes()
    holed = whole[: len(whole) * 3 // 5] + bytes(len(whole) // 5) + whole[len(whole) * 4 // 5 :]
    (collection / "b/holed.mp4").write_bytes(holed)
    records = [
        *read_manifest(collection).records,
        Record(str(collection / "a/one two.mp4"), start=0.1, end=9.0),
        Record(str(collection / "missing.mp4")),
    ]
    errors = check_manifest(Manifest("m", tuple(records)), workers=2)
    assert [Path(error.path).name for error in errors] == ["broken.mp4", "holed.mp4", "one two.mp4", "missing.mp4"]
    assert "mend start or end" in errors[2].reason


def test_a_one_frame_video_passes_the_check(tmp_path):
    write_video(tmp_path / "one.mp4", torch.zeros(1, 3, 16, 16, dtype=torch.uint8), fps=10.0)
    assert check_manifest(Manifest("m", (Record(str(tmp_path / "one.mp4")),))) == []


def test_sounds_are_indexed_and_listened_to(tmp_path):
    for name, samples in {"a/loud.wav": np.full(24_000, 0.1), "b/mute.flac": np.zeros(24_000)}.items():
        (tmp_path / name).parent.mkdir()
        record_sound(tmp_path / name, samples, codec="flac" if name.endswith("flac") else "pcm_f32le")
    index_folder(tmp_path)
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert [(record.duration, record.fps) for record in manifest.records] == [(1.5, 0.0), (1.5, 0.0)]
    (silent,) = check_manifest(manifest)
    assert silent.path.endswith("mute.flac")
    assert "every sample of the sound is zero" in silent.reason
    late = Record(str(tmp_path / "a/loud.wav"), start=1.0, end=2.0)
    assert "mend start or end" in check_manifest(Manifest("m", (late,)))[0].reason


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_samples_that_are_no_sound_are_found_wherever_they_are(tmp_path, value):
    wave = np.full(25 * 16_000, 0.1)
    wave[15 * 16_000] = value
    path = record_sound(tmp_path / "a.wav", wave, codec="pcm_f32le")
    (error,) = check_manifest(Manifest("m", (Record(str(path)),)))
    assert "samples of the sound are" in error.reason


def test_pictures_of_which_the_first_is_taken_are_counted(tmp_path):
    first, second = (Image.new("RGB", (20, 12), color) for color in ("red", "blue"))
    for name in ("a/0.webp", "b/0.png", "b/0.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        first.save(tmp_path / name, save_all=True, append_images=[second])
    first.save(tmp_path / "a/still.png")
    said = []
    assert check_manifest(read_manifest(tmp_path), note=said.append) == []
    assert "2 of 4 pictures are animations, of which the first frame is taken" in said[0]
    assert "1 of 4 pictures have several pages" in said[1]
    assert {*said} <= {*index_folder(tmp_path).manifest.notes}


def test_tracks_of_videos_are_listened_to_when_asked(tmp_path):
    mute = encode(tmp_path / "mute.mp4", 15)
    silent = encode(tmp_path / "silent.mp4", 15, sound=np.zeros((2, SOUND_RATE // 2)))
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, SOUND_RATE // 2))
    heard = encode(tmp_path / "heard.mp4", 15, sound=noise)
    manifest = Manifest("m", tuple(Record(str(path)) for path in (mute, silent, heard)))
    assert check_manifest(manifest) == []
    missing, zero = check_manifest(manifest, sound=True)
    assert "no audio track" in missing.reason
    assert "silence" in zero.reason


def test_kinds_of_whole_data_sets():
    def kind(*paths: str) -> str:
        return kind_of([Record(path) for path in paths])

    assert kind("a/1.WAV", "b/2.flac", "b/unknown") == "audio"
    assert kind("a/1.mp4", "a/2.gif") == "video"
    assert kind("a/1.png") == "image"
    with pytest.raises(ValueError, match=r"several kinds: audio \(x\.wav\), video \(y\.mp4\); keep one kind"):
        kind("x.wav", "y.mp4", "z.wav")
    with pytest.raises(ValueError, match=r"no file whose suffix tells its kind, such as a\.xyz"):
        kind("a.xyz")


def test_hidden_folders_are_left_out_at_any_depth_and_links_are_followed(tmp_path):
    fill(tmp_path / "d", {"a/1.png": "1", "a/.thumbs/2.png": "2", "b/x/.git/y/3.png": "3", "b/4.png": "4"})
    fill(tmp_path / "elsewhere", {"5.png": "5"})
    (tmp_path / "d/b/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d/b/round").symlink_to(tmp_path / "d/b")
    assert set(split_of(read_folder(tmp_path / "d"))) == {"a/1.png", "b/4.png", "b/more/5.png"}


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path / "d", {f"{c}/{i}.png": f"{c}{i}" for c in ("bus", "car", "train") for i in range(5)})
    assert read_folder(tmp_path / "d").classes() == ("bus", "car", "train")
    fill(
        tmp_path / "e", {f"{s}/{c}/{i}.png": f"{s}{c}{i}" for s in ("Training", "Testing") for c in "ab" for i in "12"}
    )
    assert read_folder(tmp_path / "e").splits == ("test", "train")


def test_what_a_folder_loses_is_counted(tmp_path):
    fill(tmp_path, {"a/1.png": "1", "a/2.jfif": "2", "a/3": "3", "b/4.png": "4", "c/5.xyz": "5"})
    (tmp_path / "b/6.png").symlink_to(tmp_path / "nowhere.png")
    manifest = read_folder(tmp_path)
    said = "\n".join(manifest.notes)
    assert "left out: 1 class without a readable file: c" in said
    assert "left out: 2 files whose suffixes tell no kind: 1 without a suffix in a, 1 .xyz in c" in said
    assert "left out: 1 link that leads nowhere: b/6.png" in said
    assert [record.key for record in manifest.records if record.error] == ["b/6.png"]
    assert any(error.path.endswith("b/6.png") for error in check_manifest(manifest))


def test_a_file_of_two_classes_trains_and_is_told(tmp_path):
    fill(tmp_path, {f"{c}/{i}.png": f"{c}{i}" for c in "bc" for i in range(7)})
    for i in range(7):
        fill(tmp_path, {"a/same.png": f"b{i}"})
        manifest = read_folder(tmp_path)
        assert manifest.classes(split="train") == ("a", "b", "c")
        assert "1 files stand in several classes" in manifest.notes[-1]


def test_media_that_are_hidden_or_misplaced_are_counted(tmp_path):
    names = ["a/1.png", "b/2.png", "a/.checkpoints/1.png", "b/@eaDir/2.png/thumb.jpg", "b/._2.png", ".old/x/3.png"]
    fill(tmp_path, dict.fromkeys([*names, "4.png", ".DS_Store", "a/.git/config", "notes.txt"], ""))
    (tmp_path / "a/round").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "b/5.png")
    manifest = read_folder(tmp_path)
    assert set(split_of(manifest)) == {"a/1.png", "b/2.png"}
    said = "\n".join(manifest.notes)
    assert "left out: 4 hidden media files: a/.checkpoints/1.png, b/._2.png" in said
    assert "left out: 1 media file beside the class folders: 4.png" in said
    assert "left out: 1 link back to a folder that it is in: a/round" in said
    assert "left out: 1 pipe or device: b/5.png" in said


@pytest.mark.parametrize("name", ["1.ogv", "1.MTS", "1.rm", "1.swf", "1.avif", "1.heic", "1.m2ts", "1.amr", "1.jp2"])
def test_suffixes_of_media_are_known(tmp_path, name):
    fill(tmp_path, {f"a/{name}": "1"})
    assert [record.key for record in read_folder(tmp_path).records] == [f"a/{name}"]


def test_errors_say_what_was_left_out(tmp_path):
    fill(tmp_path, dict.fromkeys(["a/1.xyz", "a/.b/2.png", "3.png"], ""))
    with pytest.raises(ManifestError) as caught:
        read_folder(tmp_path)
    assert "1 .xyz in a" in str(caught.value)
    assert "a/.b/2.png" in str(caught.value)
    assert "left out: 1 media file beside the class folders: 3.png" in str(caught.value)
    fill(tmp_path, dict.fromkeys(["train/a/1.png", "held/2.png"], ""))
    with pytest.raises(ManifestError, match=r"no split 'test'; it has 'train'.*beside train: a, held"):
        read_folder(tmp_path).split("test")


def test_dangling_links_are_no_copies(tmp_path):
    fill(tmp_path, {f"{c}/{i}.png": f"{c}{i}" for c in "ab" for i in range(3)})
    for c in "ab":
        (tmp_path / c / "gone.png").symlink_to("/nowhere.png")
    assert not any("more than once" in note or "several classes" in note for note in read_folder(tmp_path).notes)


def test_contents_say_what_a_file_is(tmp_path):
    for i in range(3):
        record_sound(tmp_path / f"{i}.wav", np.full(16_000, 0.1))
        (tmp_path / f"{i}.wav").rename(tmp_path / f"{i}.mp4")
    sounds = [Record(str(tmp_path / f"{i}.mp4")) for i in range(3)]
    assert kind_of(sounds) == "audio"
    assert check_manifest(Manifest("m", sounds)) == []
    Image.new("RGB", (8, 8)).save(tmp_path / "still.png")
    (tmp_path / "still.png").rename(tmp_path / "3.mp4")
    encode(tmp_path / "film.mp4", 5)
    (tmp_path / "film.mp4").rename(tmp_path / "4.png")
    others = [Record(str(tmp_path / "3.mp4")), Record(str(tmp_path / "4.png"))]
    said = [error.reason for error in check_manifest(Manifest("m", [*sounds, *others]))]
    assert ["its name says" in reason for reason in said] == [True, True]


def test_fingerprints_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tubelet.data.fingerprints._WORTH_KEEPING", 1)
    path = tmp_path / "a.png"
    path.write_text("one")
    first = fingerprints(tmp_path, [(str(path), 3, 1)])
    path.write_text("two")
    assert fingerprints(tmp_path, [(str(path), 3, 1)]) == first
    assert fingerprints(tmp_path, [(str(path), 3, 2)]) != first


def test_check_compares_the_index_with_the_file(tmp_path):
    path = encode(tmp_path / "a.mp4", 15)
    wrong = [Record(str(path), duration=3.0), Record(str(path), fps=25.0), Record(str(path), duration=0.5, fps=30.0)]
    said = [error.reason for error in check_manifest(Manifest("m", wrong))]
    assert ["duration=3" in said[0], "fps=25" in said[1], len(said)] == [True, True, 2]


def test_subtitles_belong_to_the_media_beside_them_and_their_errors_are_told(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(2):
            encode(tmp_path / label / f"{i}.mp4", 4 + i)
    (tmp_path / "a" / "0.srt").write_text("00:00,1 --> 00:00,2\nfine\n")
    (tmp_path / "b" / "1.en.vtt").write_text("WEBVTT\n\n00:01.0 --> 00:00.5\nlost\n\n00:00.1 --> 00:00.2\nkept\n")
    manifest = read_manifest(tmp_path)
    assert len(manifest.records) == 4
    assert not any("left out" in note for note in manifest.notes)
    (error,) = check_manifest(manifest)
    assert error.path == str(tmp_path / "b" / "1.en.vtt")
    assert "line 3" in error.reason
    index = index_folder(tmp_path)
    assert len(read_manifest(index.manifest.path).records) == 4
    assert index.broken == ()


def test_what_a_manifest_says_of_files_is_used_only_where_it_is_so(tmp_path):
    path = encode(tmp_path / "a.mp4", 15)
    for said, kept in ((0.5, 0.5), (3.0, 0.0), (0.2, 0.0)):
        (tmp_path / "m.csv").write_text(f"path,label,duration,fps\n{path},x,{said},30\n")
        manifest = read_manifest(tmp_path / "m.csv")
        assert manifest.records[0].duration == kept
        assert [f"duration={said:g}" in note for note in manifest.notes] == [True] * (not kept)
        assert read_manifest(tmp_path / "m.csv", as_written=True).records[0].duration == said
    assert index_folder(tmp_path / "m.csv").manifest.path == str(tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv").records[0].duration == 0.5


def test_times_in_other_units_are_guessed(tmp_path):
    path = str(encode(tmp_path / "a.mp4", 60))
    records = [Record(path, start=500, end=1500), Record(path, start=15, end=45), Record(path, start=1e6)]
    said = [error.reason for error in check_manifest(Manifest("m", records))]
    assert ["milliseconds?" in said[0], "frame numbers?" in said[1], "are these" in said[2]] == [True, True, False]


def test_check_reads_every_file_of_an_example(tmp_path):
    path, short = encode(tmp_path / "a.mp4", 60), encode(tmp_path / "b.mp4", 12)
    (tmp_path / "c.mp4").write_text("nothing")
    records = [Record(str(path), paths={"flow": str(other)}) for other in (path, short, tmp_path / "c.mp4")]
    errors = check_manifest(Manifest("m", records))
    assert [Path(error.path).name for error in errors] == ["b.mp4", "c.mp4"]
    stale = Record(str(path), error="truncated")
    assert "index it again" in check_manifest(Manifest("m", [stale]))[0].reason
