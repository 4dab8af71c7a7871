"""Written videos: what a browser plays, with the frames and the sound that went in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from media_files import numbers, picture
from tubelet.media.info import probe
from tubelet.media.video import open_video
from tubelet.media.write import write_video


def _frames(count: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture(i)).permute(2, 0, 1) for i in range(count)])


def test_frames_and_sound_come_back(tmp_path: Path) -> None:
    frames = _frames(30)
    sound = 0.4 * torch.sin(2 * torch.pi * 330 * torch.arange(16_000 * 1) / 16_000)
    write_video(tmp_path / "a.mp4", frames, 30, sound, 16_000)
    info = probe(tmp_path / "a.mp4")
    assert (info.codec, info.pixel_format, info.frames, info.fps) == ("h264", "yuv420p", 30, 30.0)
    assert (info.audio_rate, info.audio_channels) == (16_000, 1)
    with open_video(tmp_path / "a.mp4") as video:
        back = video.frames_at([i / 30 for i in range(30)]).frames
        assert numbers(back) == list(range(30))
        assert (back.float() - frames.float()).abs().mean() < 6
        heard = video.audio(0.2, 0.8, 16_000)
    assert (heard - sound[3200:12_800]).abs().max() < 0.06


def test_a_browser_can_start_before_the_end_is_there(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", _frames(5), 10)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, _frames(12), 29.97, torch.zeros(8000), 16_000)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    nothing = torch.empty(0, 3, 8, 8, dtype=torch.uint8)
    for frames, fps, reason in [(_frames(2)[..., :-1], 30, "even"), (_frames(2), 0, "positive"), (nothing, 30, "T, 3")]:
        with pytest.raises(ValueError, match=reason):
            write_video(tmp_path / "x.mp4", frames, fps)
    assert not (tmp_path / "x.mp4").exists()
