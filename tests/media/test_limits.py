"""Large frames: what is too large is told, what is not takes bounded memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from media_files import encode, numbers
from tubelet.media import pyav_decoder, video
from tubelet.media.errors import MediaError
from tubelet.media.info import probe
from tubelet.media.video import in_batches, open_video


@pytest.fixture(scope="module")
def clip(media: Path) -> Path:
    return encode(media / "limits.mp4", 12, size=(192, 128))


@pytest.mark.parametrize("read", [probe, open_video])
def test_frames_above_the_limit_are_an_error_that_says_it(
    clip: Path, monkeypatch: pytest.MonkeyPatch, decoder: str, read
) -> None:
    monkeypatch.setenv("TUBELET_MAX_PIXELS", str(192 * 128))
    read(clip)
    monkeypatch.setenv("TUBELET_MAX_PIXELS", "20000")
    with pytest.raises(MediaError, match=r"too large: 192x128 pixels, more than 20,000.*TUBELET_MAX_PIXELS"):
        read(clip)


def test_a_header_that_hides_the_size_does_not_pass(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(media / "hidden.avi", 3, size=(192, 128), codec="mpeg4")
    data = path.read_bytes().replace((192).to_bytes(4, "little"), (16).to_bytes(4, "little"))
    path.write_bytes(data.replace((128).to_bytes(4, "little"), (16).to_bytes(4, "little")))
    monkeypatch.setenv("TUBELET_MAX_PIXELS", "10000")
    with pytest.raises(MediaError):
        open_video(path)


def test_a_limit_that_is_no_number_is_named(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_MAX_PIXELS", "8K")
    with pytest.raises(MediaError, match="TUBELET_MAX_PIXELS='8K'"):
        open_video(clip)


def test_very_large_frames_are_halved_as_they_are_decoded(
    clip: Path, monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    times = [0.0, 0.1, 0.3]
    with open_video(clip, decoder) as whole:
        truth = whole.frames_at(times).frames
    monkeypatch.setattr(pyav_decoder, "_LARGEST", 96 * 64)
    with open_video(clip, decoder) as halved:
        frames = halved.frames_at(times).frames
        assert halved.size == tuple(frames.shape[2:]) == (64, 96)
    assert numbers(frames) == [0, 3, 9]
    difference = (F.avg_pool2d(truth.float(), 2) - frames.float()).abs()
    assert difference.mean() < 2
    assert (probe(clip).width, probe(clip).height) == (192, 128)


def test_batches_are_bounded_by_bytes_and_change_nothing(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [i / 30 for i in range(12)]
    with open_video(clip) as whole:
        (truth,) = in_batches(whole, times)
        monkeypatch.setattr(video, "_BYTES_AT_ONCE", 5 * 192 * 128 * 3)
        parts = list(in_batches(whole, times))
    assert [len(part.frames) for part in parts] == [5, 5, 2]
    assert torch.equal(torch.cat([part.frames for part in parts]), truth.frames)
