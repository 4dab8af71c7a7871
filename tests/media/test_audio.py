"""Sound by time: on the clock of the pictures, at any rate, with silence where there is none."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from media_files import SOUND_RATE, encode, record_sound
from tubelet.media.audio import SoundTrack, read_audio
from tubelet.media.errors import MediaError
from tubelet.media.video import open_video


def _tone(seconds: float, hertz: float = 440.0) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE)
    return np.stack([wave, wave])


def _beeps(seconds: int) -> np.ndarray:
    """50 ms of tone at every full second."""
    wave = np.zeros((2, seconds * SOUND_RATE))
    for second in range(seconds):
        wave[:, second * SOUND_RATE :][:, : SOUND_RATE // 20] = _tone(0.05, 1000)
    return wave


def _onset(samples: torch.Tensor, rate: int) -> float:
    return float((samples.abs() > 0.1).nonzero()[0]) / rate


@pytest.fixture(scope="module")
def beeping(media: Path) -> Path:
    return encode(media / "beeps.mp4", 90, sound=_beeps(3))


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_level_and_phase(media: Path, decoder: str, rate: int) -> None:
    path = encode(media / f"tone_{rate}.mp4", 60, sound=_tone(2))
    with open_video(path, decoder) as video:
        samples = video.audio(0.5, 1.5, rate)
    assert samples.shape == (rate,)
    assert samples.dtype == torch.float32
    truth = 0.5 * torch.sin(2 * torch.pi * 440 * (torch.arange(rate) / rate + 0.5))
    assert (samples - truth).abs().max() < 0.05


@pytest.mark.parametrize(
    ("codec", "step"),
    [("pcm_u8", 2**-7), ("pcm_s16le", 2**-15), ("pcm_s24le", 2**-23), ("pcm_s32le", 2**-24), ("pcm_f64le", 2**-24)],
)
def test_samples_of_every_width_are_between_minus_one_and_one(media: Path, codec: str, step: float) -> None:
    wave = np.linspace(-1, 1 - 2**-7, 4000)
    path = record_sound(media / f"{codec}.wav", wave, codec=codec)
    samples = read_audio(path, 0.0, 0.25, 16_000).numpy()
    assert np.abs(samples - wave).max() <= step


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_sound_stands_where_it_was_recorded(beeping: Path, rate: int) -> None:
    with open_video(beeping) as video:
        for start in (0.4, 0.9, 1.7):
            samples = video.audio(start, start + 0.7, rate)
            assert start + _onset(samples, rate) == pytest.approx(np.ceil(start), abs=0.003)


def test_neighboring_spans_join(beeping: Path) -> None:
    whole = read_audio(beeping, 0.0, 2.0, 16_000)
    parts = [read_audio(beeping, start, start + 0.5, 16_000) for start in (0.0, 0.5, 1.0, 1.5)]
    assert (torch.cat(parts) - whole).abs().max() < 1e-3


def test_silence_before_and_after_the_track(media: Path) -> None:
    path = encode(media / "late_sound.mp4", 90, sound=_tone(1), sound_start=0.5)
    samples = read_audio(path, 0.0, 3.0, 16_000)
    assert samples.shape == (48_000,)
    assert samples[:7500].abs().max() < 0.02
    assert samples[8500:23_000].abs().max() > 0.4
    assert samples[26_000:].abs().max() == 0


def test_time_zero_is_the_first_picture(media: Path) -> None:
    path = encode(media / "late_pictures.mkv", 60, pts=range(30, 90), sound=_beeps(3))
    with open_video(path) as video:
        samples = video.audio(0.5, 1.5, 16_000)  # 1.5 to 2.5 s of the recording
    assert _onset(samples, 16_000) == pytest.approx(0.5, abs=0.005)


def test_without_a_track_the_error_says_so(media: Path, decoder: str) -> None:
    with (
        open_video(encode(media / "no_sound.mp4", 10), decoder) as video,
        pytest.raises(MediaError, match="no audio track"),
    ):
        video.audio(0.0, 0.3, 16_000)


def test_a_span_past_the_track_is_an_error(beeping: Path) -> None:
    with pytest.raises(MediaError, match="sound ends at 3") as caught:
        read_audio(beeping, 4.0, 5.0, 16_000)
    assert caught.value.time == 4.0


@pytest.mark.parametrize(("start", "end", "rate"), [(-1, 1, 8000), (1, 1, 8000), (0, float("inf"), 8000), (0, 1, 0)])
def test_spans_that_make_no_sense(beeping: Path, start: float, end: float, rate: int) -> None:
    with pytest.raises(ValueError, match="start"):
        read_audio(beeping, start, end, rate)


_CODECS = [
    ("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("opus", "libopus"), ("m4a", "aac"), ("ts", "aac"),
    ("mpg", "mp2"),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "codec"), _CODECS)
def test_late_spans_without_reading_what_comes_before(media: Path, suffix: str, codec: str) -> None:
    rate = 48_000
    time = np.arange(20 * rate) / rate
    path = record_sound(media / f"siren.{suffix}", 0.4 * np.sin(2 * np.pi * (300 * time + 50 * time**2)), rate, codec)
    whole = read_audio(path, 0.0, 20.0, 16_000)
    for start in (3.0, 11.123, 17.7):
        part, same = read_audio(path, start, start + 2, 16_000), whole[round(start * 16_000) :][:32_000]
        assert (part - same).abs().max() < 2e-3


@pytest.mark.parametrize(("suffix", "codec"), [("wav", "pcm_s16le"), ("m4a", "aac"), ("ogg", "libopus")])
def test_spans_of_an_open_track_are_those_of_a_fresh_one(media: Path, suffix: str, codec: str) -> None:
    path = record_sound(media / f"open.{suffix}", 0.4 * np.sin(np.arange(20 * 48_000) ** 1.05 / 40), 48_000, codec)
    with SoundTrack(path) as track:
        for start, end in ((0.0, 1.0), (1.0, 2.0), (1.5, 4.0), (18.0, 19.5), (18.0, 19.0), (0.2, 0.9), (4.0, 5.0)):
            here, fresh = track.span(start, end, 16_000), read_audio(path, start, end, 16_000)
            assert (here - fresh).abs().max() < 2e-3
        for _ in range(2):
            with pytest.raises(MediaError, match="the sound ends"):
                track.span(30.0, 31.0, 16_000)
        assert track.span(0.2, 0.9, 16_000).any()


def test_a_track_that_turns_from_mono_to_stereo(media: Path) -> None:
    one = record_sound(media / "one.ts", _tone(1)[0], SOUND_RATE, "aac")
    two = encode(media / "two.ts", 30, sound=_tone(1))
    with av.open(str(two)) as source, av.open(str(media / "track.ts"), "w") as target:
        copy = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.pts = packet.dts = packet.pts + 90_000
                packet.stream = copy
                target.mux(packet)
    (media / "both.ts").write_bytes(one.read_bytes() + (media / "track.ts").read_bytes())
    samples = read_audio(media / "both.ts", 0.0, 1.9, 16_000)
    for second in (0.2, 1.3):
        part = samples[round(second * 16_000) :][:8000]
        assert part.abs().max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("value", "codec", "said"),
    [
        (np.nan, "pcm_f32le", "not finite"),
        (np.inf, "pcm_f32le", "not finite"),
        (-np.inf, "pcm_f64le", "not finite"),
        (1e30, "pcm_f32le", "as large as 1e.30"),
        (-1e30, "pcm_f64le", "as large as 1e.30"),
        (32767.0, "pcm_f32le", "as large as"),
    ],
)
def test_samples_that_are_no_sound_are_an_error_at_their_time(media: Path, value: float, codec: str, said: str) -> None:
    wave = np.full(3 * 16_000, 0.1)
    wave[2 * 16_000 + 100] = value
    path = record_sound(media / f"odd_{value}_{codec}.wav", wave, codec=codec)
    assert read_audio(path, 0.0, 1.0, 16_000).isfinite().all()
    with pytest.raises(MediaError, match=said) as caught:
        read_audio(path, 1.5, 3.0, 16_000)
    assert caught.value.path == str(path)
    assert caught.value.time == pytest.approx(2.0, abs=0.2)


def test_a_little_beyond_full_scale_is_sound(media: Path) -> None:
    path = record_sound(media / "over.wav", np.full(16_000, 3.0), codec="pcm_f32le")
    assert read_audio(path, 0.0, 0.5, 16_000).max() == 3.0


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le", "flac"])
def test_channels_that_cancel_out_leave_one(media: Path, codec: str) -> None:
    left = _tone(1)[0]
    path = record_sound(media / f"opposite_{codec}.mka", np.stack([left, -left]), SOUND_RATE, codec)
    assert np.abs(read_audio(path, 0.0, 1.0, SOUND_RATE).numpy() - left).max() < 2**-14


def test_other_channels_are_averaged(media: Path) -> None:
    left = _tone(1)[0]
    path = record_sound(media / "right_is_silent.wav", np.stack([left, 0 * left]), SOUND_RATE)
    assert np.abs(read_audio(path, 0.0, 1.0, SOUND_RATE).numpy() - left / 2).max() < 2**-14


@pytest.mark.parametrize("layout", ["7.1", "hexadecagonal"])
def test_many_channels_that_lie_apart(media: Path, layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    with av.open(str(media / "many.nut"), "w") as container:
        track = container.add_stream("pcm_f32le" if channels > 8 else "aac", rate=16_000, layout=layout)
        samples = np.repeat(_tone(0.5).astype(np.float32), channels)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    heard = read_audio(media / "many.nut", 0.1, 0.4, 16_000)
    assert heard.square().mean().sqrt() == pytest.approx(
        0.5**0.5 * np.abs(_tone(0.5)).max(), rel=0.2
    )  # AAC cuts one channel to its lows
