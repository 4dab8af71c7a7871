"""Clip times as properties of numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.media.clips import clip_times, random_start, spread_starts

seconds = st.floats(0.05, 1000)
counts = st.integers(1, 64)


@given(start=st.floats(0, 2000), frames=counts, step=st.floats(0, 5), duration=seconds)
def test_times_lie_in_the_video_and_step_evenly(start: float, frames: int, step: float, duration: float) -> None:
    times = clip_times(start, frames, step, duration)
    assert len(times) == frames
    assert all(0 <= time < duration for time in times)
    for earlier, later in pairwise(times):
        turns = (earlier + step - later) / duration
        assert turns == pytest.approx(round(turns), abs=1e-5 + 2e-6 / duration)


@given(fps=st.sampled_from([10, 24, 25, 29.97, 30000 / 1001, 50, 59.94]), frames=st.integers(2, 60), repeats=counts)
def test_a_short_video_is_repeated_from_its_first_frame(fps: float, frames: int, repeats: int) -> None:
    times = clip_times(0.0, frames * repeats, 1 / fps, frames / fps)
    assert [round(time * fps) for time in times] == list(range(frames)) * repeats


@given(duration=seconds, span=seconds, u=st.floats(0, 1, exclude_max=True))
def test_a_random_clip_fits(duration: float, span: float, u: float) -> None:
    start = random_start(duration, span, u)
    assert start >= 0
    assert start + span <= max(duration, span) * (1 + 1e-9)


def test_a_random_clip_reaches_both_ends() -> None:
    assert random_start(10, 4, 0.0) == 0
    assert random_start(10, 4, 0.5) == 3
    assert random_start(10, 4, 1 - 1e-12) == pytest.approx(6)


@given(duration=seconds, span=seconds, clips=st.integers(2, 20))
def test_test_clips_span_the_video(duration: float, span: float, clips: int) -> None:
    starts = spread_starts(duration, span, clips)
    assert len(starts) == clips
    assert starts[0] == 0
    assert starts[-1] == pytest.approx(max(0.0, duration - span))
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert max(gaps) - min(gaps) < 1e-9 * duration


def test_four_clips_and_one() -> None:
    assert spread_starts(10, 4, 4) == pytest.approx((0, 2, 4, 6))
    assert spread_starts(10, 4, 1) == (3,)
    assert spread_starts(3, 4, 1) == (0,)


@pytest.mark.parametrize(
    ("start", "frames", "step", "duration"),
    [(-1, 2, 0.1, 1), (0, 0, 0.1, 1), (0, 2, -0.1, 1), (0, 2, 0.1, 0), (float("nan"), 2, 0.1, 1)],
)
def test_clips_that_make_no_sense(start: float, frames: int, step: float, duration: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        clip_times(start, frames, step, duration)


def test_no_clips_make_no_sense() -> None:
    with pytest.raises(ValueError, match="clips=0"):
        spread_starts(10, 4, 0)
