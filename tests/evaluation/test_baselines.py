"""The panel of classical classifiers, on toy files that it must solve."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from folders import pictures, sounds
from tubelet.data.manifest import Record, read_manifest
from tubelet.evaluation import baselines, handmade
from tubelet.evaluation.baselines import Baseline, fit_baselines
from tubelet.evaluation.panel import CLASSIFIERS, Kind


def _records(folder: Path | str) -> tuple[Record, ...]:
    return read_manifest(folder).records


def _numbers(path: Path, classes: dict[str, int], write: Callable[[Path, str, int], None]) -> list[Record]:
    """So many files of each class."""
    records: list[Record] = []
    for label, count in classes.items():
        (path / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            write(path / label / f"{i}.png", label, i)
            records.append(Record(str(path / label / f"{i}.png"), {"label": (label,)}, key=f"{label}/{i}.png"))
    return records


def _gray(path: Path, label: str, i: int) -> None:
    """Brightness tells dark from bright, and every picture is a little different."""
    pixels = np.random.default_rng(i).integers(0, 40, (24, 24, 3)) + (200 if label == "bright" else 10)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def _bar(path: Path, direction: int) -> None:
    """A video of a bright bar that moves by 4 pixels a frame to the right (1) or to the left (-1)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "12"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        begin = sum(map(ord, path.stem)) * 7
        for i in range(16):
            frame = np.full((64, 64, 3), 30, np.uint8)
            frame[:, (np.arange(8) + begin + direction * 4 * i) % 64] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def test_pictures_of_two_brightnesses_are_told_apart(tmp_path: Path) -> None:
    records = _records(pictures(tmp_path))
    result = fit_baselines("image", records, (), records)
    assert result.metrics == {"top1": 1.0, "mean_class_accuracy": 1.0}
    assert result.validation == 1.0
    assert (result.scored, result.expected, result.train) == (10, 10, 10)
    assert result.name == "logistic regression on a color histogram"  # of equals, the simplest
    assert len(result.tried) >= 2
    assert set(result.tried.values()) <= {i / 10 for i in range(11)}


def test_sounds_of_two_pitches_are_told_apart(tmp_path: Path) -> None:
    records = _records(sounds(tmp_path, (0.02, 0.2, 0.3, 1.0, 12.0)))
    result = fit_baselines("audio", records, (), records)
    assert result.metrics["top1"] == 1.0
    assert result.scored == 10


def test_videos_of_two_directions_are_told_apart(tmp_path: Path) -> None:
    records: list[Record] = []
    for label, direction in (("left", -1), ("right", 1)):
        (tmp_path / label).mkdir()
        for i in range(12):
            _bar(tmp_path / label / f"{i}.mp4", direction)
            records.append(Record(str(tmp_path / label / f"{i}.mp4"), {"label": (label,)}))
    train, test = records[:8] + records[12:20], records[8:12] + records[20:]
    result = fit_baselines("video", train, (), test)
    assert result.metrics["top1"] == 1.0
    assert result.tried["logistic regression on frame correlation"] == 1.0
    part = fit_baselines("video", [replace(record, start=0.2, end=0.7) for record in train], (), test)
    assert part.scored == 8


def test_files_that_cannot_be_read_are_left_out_of_training_and_not_scored(tmp_path: Path) -> None:
    records = _numbers(tmp_path, {"dark": 6, "bright": 6}, _gray)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    broken = Record(str(tmp_path / "broken.png"), {"label": ("dark",)})
    missing = replace(broken, path=str(tmp_path / "missing.png"))
    known = replace(records[0], error="the index could not read it")
    result = fit_baselines("image", [*records, broken], [missing], [*records, broken, missing, known])
    assert (result.scored, result.expected, result.train) == (12, 15, 12)
    assert result.metrics["top1"] == 1.0


def test_the_choice_is_by_validation_and_does_not_see_the_test(tmp_path: Path) -> None:
    """Color is of use in training and validation alone; on the test set only the gradients are right."""

    def write(path: Path, label: str, i: int) -> None:
        honest = path.parent.parent.name != "test"
        low, high = (20, 200) if (label == "bright") == honest else (10, 100)
        stripes = np.arange(48) // 4 % 2 * (high - low) + low
        picture = np.tile(stripes, (48, 1)) if label == "bright" else np.tile(stripes[:, None], (1, 48))
        noise = np.random.default_rng(i).integers(0, 9, (48, 48))
        Image.fromarray((picture + noise).astype(np.uint8)).convert("RGB").save(path)

    parts = {name: _numbers(tmp_path / name, {"dark": 16, "bright": 16}, write) for name in ("train", "val", "test")}
    result = fit_baselines("image", parts["train"], parts["val"], parts["test"])
    assert result.name == "logistic regression on a color histogram"
    assert result.validation == 1.0
    assert result.metrics["top1"] == 0.0
    assert result.train == 64
    assert result.tried["logistic regression on oriented gradients"] == 1.0


def test_the_same_call_gives_the_same_result(tmp_path: Path) -> None:
    records = _numbers(tmp_path, {"dark": 20, "bright": 20, "other": 32}, _gray)  # dark and other are the same
    first, second = (fit_baselines("image", records[::2], records[1::2], records, seconds=600) for _ in range(2))
    assert replace(first, seconds=0) == replace(second, seconds=0)
    assert 0.5 < first.validation < 1.0
    assert first.validation == max(first.tried.values())
    assert Baseline.from_json(json.loads(json.dumps(first.as_json()))) == first


def test_training_files_are_capped_with_an_equal_share_of_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "_CAP", 20)
    monkeypatch.setattr(baselines, "_VALIDATION_CAP", 10)
    records = _numbers(tmp_path, {"dark": 40, "bright": 10}, _gray)
    assert fit_baselines("image", records, records, records[:1]).train == 20
    subset = baselines._Classes("label").subset(records, 20)
    assert [record.labels["label"][0] for record in subset].count("bright") == 10
    assert len({record.path for record in subset}) == 20
    assert subset == baselines._Classes("label").subset(records, 30)[:20]


def test_after_the_time_is_up_two_members_are_tried(tmp_path: Path) -> None:
    told: list[str] = []
    records = _records(pictures(tmp_path))
    result = fit_baselines("image", records, (), records, seconds=0, progress=told.append)
    assert len(result.tried) == 2
    assert told[0] == "Baselines: reading 10 files"
    assert any("color histogram: top1 100.0% on the validation files" in line for line in told)


@pytest.mark.parametrize("counts", [{"dark": 1, "bright": 1}, {"dark": 1, "bright": 2}, {"dark": 9, "bright": 1}])
def test_tiny_classes(tmp_path: Path, counts: dict[str, int]) -> None:
    records = _numbers(tmp_path, counts, _gray)
    result = fit_baselines("image", records, (), records)
    assert result.train == sum(counts.values())
    assert result.metrics["top1"] > 0


def test_a_class_of_the_test_set_that_training_lacks_is_wrong(tmp_path: Path) -> None:
    records = _numbers(tmp_path, {"dark": 5, "bright": 5, "unknown": 10}, _gray)
    result = fit_baselines("image", records[:10], (), records)
    assert result.metrics["top1"] == 0.5
    assert result.metrics["mean_class_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [((("a",), ("a",)), "all are labeled 'a'"), ((("a", "b"), ("a",)), "exactly one"), (((), ("a",)), "exactly one")],
)
def test_what_cannot_be_fitted_is_said(tmp_path: Path, labels: Sequence[tuple[str, ...]], reason: str) -> None:
    records = _numbers(tmp_path, {"dark": 2}, _gray)
    train = [replace(r, labels={"label": names}) for r, names in zip(records, labels, strict=True)]
    with pytest.raises(ValueError, match=reason):
        fit_baselines("image", train, (), records)


def test_nothing_readable_is_said(tmp_path: Path) -> None:
    records = _numbers(tmp_path, {"dark": 2, "bright": 2}, _gray)
    missing = [replace(record, path=f"{record.path}x") for record in records]
    with pytest.raises(ValueError, match="none can be read"):
        fit_baselines("image", missing, (), records)
    with pytest.raises(ValueError, match="not one of the 4 test files can be read"):
        fit_baselines("image", records, (), missing)


def test_no_warnings_and_no_threads_are_left(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    records = _numbers(tmp_path, {"dark": 8, "other": 8}, _gray)
    before = threading.active_count()
    fit_baselines("image", records, (), records)
    assert threading.active_count() == before
    assert not list(recwarn)


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_every_member_has_a_name_of_its_own(kind: Kind) -> None:
    names = [member.name for member in CLASSIFIERS[kind]]
    assert len(names) == len(set(names))


def test_folds_hold_every_file_of_a_larger_class_out_once_and_single_ones_never() -> None:
    y = np.array([*"aaaaaaa", *"bb", "c"])
    splits = baselines._Classes("label").folds(y)
    assert sorted(np.concatenate([held for _, held in splits])) == list(range(9))
    assert all(set(y[fitted]) == set("abc") for fitted, _ in splits)


def test_correlation_finds_the_shift() -> None:
    first = np.random.default_rng(0).standard_normal((3, 24, 24)).astype(np.float32)
    shifts = handmade._correlation(first, np.roll(first, (2, -3), (1, 2)))
    assert np.unravel_index(shifts.argmax(), shifts.shape) == (5 + 2, 5 - 3)
    assert shifts.max() == pytest.approx(1, abs=1e-3)


def test_oriented_gradients_tell_the_direction_and_not_the_contrast() -> None:
    stripes = np.repeat(np.tile(np.arange(48) // 4 % 2 * 100 + 50, (48, 1))[..., None], 3, 2).astype(np.uint8)
    across = handmade.oriented_gradients(stripes)
    along = handmade.oriented_gradients(np.ascontiguousarray(stripes.swapaxes(0, 1)))
    fainter = handmade.oriented_gradients((stripes // 2).astype(np.uint8))
    assert across.shape == (1764,)
    assert np.linalg.norm(across - fainter) < 0.2 * np.linalg.norm(across - along)


def test_stretching_keeps_means_whatever_the_length() -> None:
    for length in (3, 39, 40, 100, 997):
        ramp = np.linspace(0, 1, length, dtype=np.float32)[:, None].repeat(64, 1)
        flat = handmade._stretched(ramp).reshape(40, 32)
        assert flat.mean() == pytest.approx(0.5, abs=1e-3)
        assert (np.diff(flat[:, 0]) >= -1e-6).all()
