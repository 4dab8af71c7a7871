"""Sliding windows over a long video: which frames they look at, and that each is decoded once, in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from media_files import record_sound
from tubelet.data.manifest import Record
from tubelet.data.readers import reader_of
from tubelet.data.windows import Plan, plan_windows, window_clips
from tubelet.media import audio
from tubelet.media.video import Decoder, FrameBatch
from tubelet.specs import InputSpec, SpectrogramSpec, VideoSpec, WaveformSpec

SPEC = VideoSpec(frames=4, stride=2, size=(4, 4), short_side=4)


def planned(spec: InputSpec, fps: float, duration: float, window: float = 0.0, stride: float = 0.0) -> Plan:
    return plan_windows(reader_of(spec).grid(fps), duration, window, stride)


class Film(Decoder):
    """A decoder whose frames carry their number, at 10 frames per second; it remembers what it was asked."""

    size = (4, 4)

    def __init__(self) -> None:
        self.asked: list[float] = []

    def frames_at(self, times):
        self.asked += times
        numbers = torch.tensor([round(t * 10) % 256 for t in times], dtype=torch.uint8)
        return FrameBatch(numbers[:, None, None, None].expand(-1, 3, 4, 4), torch.tensor(times, dtype=torch.float64))


def seen(plan, film) -> list[list[list[int]]]:
    return [clips[:, :, 0, 0, 0].tolist() for clips in window_clips(film, SPEC, plan)]


def test_windows_follow_each_other_and_cover_the_video():
    plan = planned(SPEC, fps=10.0, duration=3.0)
    assert [(w.start, w.end) for w in plan.windows] == [
        (0, 0.8),
        (0.8, 1.6),
        (1.6, pytest.approx(2.4)),
        (pytest.approx(2.4), 3),
    ]
    film = Film()
    assert seen(plan, film) == [[[0, 2, 4, 6]], [[8, 10, 12, 14]], [[16, 18, 20, 22]], [[22, 24, 26, 28]]]
    assert film.asked == sorted(set(film.asked))


def test_a_long_window_is_covered_by_several_clips_at_the_models_own_rate():
    plan = planned(SPEC, fps=10.0, duration=4.0, window=2.0)
    assert seen(plan, Film())[0] == [[0, 2, 4, 6], [6, 8, 10, 12], [12, 14, 16, 18]]


def test_a_short_window_lies_in_the_middle_of_its_clip():
    plan = planned(SPEC, fps=10.0, duration=4.0, window=0.4)
    assert [w.start for w in plan.windows][:2] == [0, 0.4]
    assert seen(plan, Film())[1] == [[2, 4, 6, 8]]


def test_a_clip_longer_than_the_video_sees_it_again():
    plan = planned(SPEC, fps=10.0, duration=0.6)
    assert len(plan.windows) == 1
    assert seen(plan, Film()) == [[[0, 2, 4, 0]]]


def test_windows_of_a_stretched_spectrogram_are_as_long_as_what_is_stretched(media):
    spec = SpectrogramSpec(frames=20, stretch=0.5)
    silence, noise = np.zeros(8000), np.random.default_rng(0).standard_normal(8000) * 0.1
    path = str(record_sound(media / "parts.wav", np.concatenate([silence, noise, silence, noise[:3200]])))
    plan = planned(spec, 0.0, 1.7)
    assert [(w.start, w.end) for w in plan.windows] == [(0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 1.7)]
    heard = list(reader_of(spec).windows(Record(path), plan))
    assert [clips.shape for clips, _ in heard] == [(1, 20, 128)] * 4
    assert [silent for _, silent in heard] == [True, False, True, False]
    assert (heard[3][0][0].mean(1) > -1).sum() == pytest.approx(8, abs=1)  # the last window is moved inside
    (word,) = planned(spec, 0.0, 0.2).windows
    assert (word.start, word.end, word.clips) == (0, 0.2, (0,))


def test_the_windows_of_a_sound_are_read_in_one_pass(media, monkeypatch):
    path = str(record_sound(media / "pass.wav", np.random.default_rng(0).uniform(-1, 1, 20 * 16_000)))
    spec, opened = WaveformSpec(samples=16_000, rate=16_000), list[str]()
    monkeypatch.setattr(audio, "open_input", lambda path, open=audio.open_input: opened.append(path) or open(path))
    plan = planned(spec, 0.0, 20.0, stride=0.5)
    heard = [clips for clips, _ in reader_of(spec).windows(Record(path, duration=20.0), plan)]
    assert len(opened) == 1
    assert len(heard) == len(plan.windows) == 40
    for clips, window in zip(heard[::7], plan.windows[::7], strict=True):
        start = window.clips[0] * plan.step
        assert torch.equal(clips[0], audio.read_audio(path, start, start + 1, 16_000).clamp(-1, 1))


@settings(deadline=None)
@given(
    duration=st.floats(0.05, 60),
    window=st.just(0.0) | st.floats(0.4, 8),
    stride=st.floats(0.4, 8),
    fps=st.floats(5, 60),
)
def test_each_frame_is_decoded_once_and_forward_whatever_the_windows(duration, window, stride, fps):
    plan = planned(SPEC, fps, duration, window, stride)
    film = Film()
    for clips, w in zip(window_clips(film, SPEC, plan), plan.windows, strict=True):
        assert clips.shape == (len(w.clips), 4, 3, 4, 4)
        assert w.start < w.end <= duration
    assert film.asked == sorted(set(film.asked))
    assert max(film.asked) < duration


@pytest.mark.parametrize("seconds", [{"window": -1.0}, {"stride": 0.1}])
def test_windows_shorter_than_the_time_between_frames_are_refused(seconds):
    with pytest.raises(ValueError, match=r"at least 0\.2 s"):
        planned(SPEC, 10.0, 3.0, **seconds)
