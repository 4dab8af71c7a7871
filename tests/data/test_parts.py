"""Files without labels as examples: parts of them, and which are held out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tubelet.data.manifest import ManifestError, Record, read_manifest, write_manifest
from tubelet.data.parts import read_parts
from tubelet.media.write import write_video
from tubelet.training.experiment import Source


def films(folder: Path, seconds: dict[str, float]) -> Path:
    for name, length in seconds.items():
        path = folder / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, torch.zeros(round(10 * length), 3, 16, 16, dtype=torch.uint8), 10)
    return folder


def test_the_end_of_a_few_long_files_is_the_test(tmp_path: Path) -> None:
    films(tmp_path / "films", {"a": 20.0, "deep/er/b": 5.6})
    (tmp_path / "films" / "broken.mp4").write_bytes(b"no video")
    manifest = read_parts(tmp_path / "films", 1.0, "val")
    parts = [(Path(r.path).name, r.start, r.end, r.split) for r in manifest.records]
    assert parts[:3] == [("a.mp4", float(i), float(i + 1), "train") for i in range(3)]
    assert [part[1:] for part in parts if part[0] == "a.mp4"][-2:] == [(18.0, 19.0, "val"), (19.0, 20.0, "val")]
    assert [part[1:] for part in parts if part[0] == "b.mp4"][-1] == (5.0, pytest.approx(5.6), "val")
    assert len(parts) == 26
    assert len({r.key for r in manifest.records}) == 26
    assert not any(r.labels for r in manifest.records)
    assert any("1 files cannot be read" in note and "broken.mp4" in note for note in manifest.notes)
    assert any("3 of 26 parts of 1 s, the end of each file" in note for note in manifest.notes)


def test_whole_files_are_held_out_of_many(tmp_path: Path) -> None:
    films(tmp_path, {f"{i}": 2.0 for i in range(20)})
    records = Source(path=str(tmp_path), parts=1.0).read().records
    splits = {r.path: {o.split for o in records if o.path == r.path} for r in records}
    assert all(len(found) == 1 for found in splits.values())
    assert sum(found == {"val"} for found in splits.values()) == 2


def test_parts_and_splits_of_a_manifest_stay(tmp_path: Path) -> None:
    films(tmp_path, {"a": 10.0})
    rows = [
        Record("a.mp4", start=0.0, end=4.0, split="train", text="one"),
        Record("a.mp4", start=4.0, split="val", text="two"),
    ]
    write_manifest(tmp_path / "all.csv", rows)
    records = read_parts(tmp_path / "all.csv", 2.0, "val").records
    assert [(r.start, r.end, r.split, r.text) for r in records] == [
        (0.0, 2.0, "train", "one"),
        (2.0, 4.0, "train", "one"),
        (4.0, 6.0, "val", "two"),
        (6.0, 8.0, "val", "two"),
        (8.0, 10.0, "val", "two"),
    ]
    assert read_manifest(tmp_path / "all.csv").records[0].end == 4.0


def test_too_little_is_said(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no media files"):
        read_parts(tmp_path, 1.0, "val")
    films(tmp_path / "one", {"a": 1.0})
    with pytest.raises(ManifestError, match="too few to hold any out"):
        read_parts(tmp_path / "one", 1.0, "val")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ManifestError, match=r"none of its 1 files can be read.*a\.mp4"):
        read_parts(tmp_path / "bad", 1.0, "val")
