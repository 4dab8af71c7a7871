"""Spectrograms of training and test from real files: the right seconds, read once, masked as told, silence named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor

from media_files import SOUND_RATE, encode, numbers, record_sound
from tubelet.data import cache as cache_module
from tubelet.data.augment import Augmentation
from tubelet.data.dataset import TrainSet, ViewSet
from tubelet.data.manifest import Record
from tubelet.data.sound import evened, frequency_warped, spec_augment, spectrograms, train_spectrogram, train_waveform
from tubelet.data.views import Views
from tubelet.media.errors import MediaError
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec, WaveformSpec

SPEC = SpectrogramSpec(frames=100)
VIDEO = VideoSpec(frames=4, stride=3, size=(64, 96), short_side=64)
SECONDS = 6
NEAR = 0.09  # seconds: half a bin where the siren is highest


def siren(seconds: float, rate: int = 16_000) -> np.ndarray:
    """300 Hz, rising by 400 Hz a second: what is heard tells the time."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.4 * np.sin(2 * np.pi * (300 * time + 200 * time**2))


def heard(spectrogram: Tensor) -> np.ndarray:
    """The second of the siren in each frame."""
    centers = np.array(SPEC.corners[1:-1])[spectrogram.argmax(-1).numpy()]
    return (centers - 300) / 400


@pytest.fixture(scope="module")
def wave(media: Path) -> str:
    return str(record_sound(media / "siren.wav", siren(SECONDS)))


@pytest.fixture(scope="module")
def video(media: Path) -> str:
    both = np.stack([siren(SECONDS, SOUND_RATE)] * 2)
    return str(encode(media / "siren.mp4", SECONDS * 30, sound=both))


def train_set(path: str, augment: Augmentation = Augmentation.none(), specs=None, **record) -> TrainSet:
    return TrainSet([Record(path, **record)], None, specs or {"audio": SPEC}, augment, seed=3)


@pytest.mark.parametrize("kind", ["wave", "video"])
def test_spans_lie_anywhere_in_the_file(kind, request):
    data = train_set(request.getfixturevalue(kind))
    starts = []
    for pass_ in range(25):
        spectrogram = data.example(0, pass_).inputs["audio"]
        assert spectrogram.shape == (100, 128)
        assert spectrogram.dtype == torch.float32
        times = data.times(0, pass_, "audio")
        assert len(times) == 100
        assert np.abs(heard(spectrogram) - np.array(times) - SPEC.window / 2).max() < NEAR
        starts.append(times[0])
    assert min(starts) < 0.7
    assert SECONDS - 1.7 < max(starts) <= SECONDS - 1


def test_a_part_of_a_file(wave):
    data = train_set(wave, start=2.0, end=4.0)
    for pass_ in range(10):
        times = heard(data.example(0, pass_).inputs["audio"])
        assert times.min() > 2 - NEAR
        assert times.max() < 4 + NEAR


def test_short_sounds_are_repeated(wave):
    times = heard(train_set(wave, start=1.0, end=1.4).example(0, 0).inputs["audio"])
    for repeat in range(2):
        here = times[repeat * 40 : repeat * 40 + 37]  # windows that end before the seam
        assert np.abs(here - np.linspace(1.0, 1.36, 37) - SPEC.window / 2).max() < NEAR


def test_pictures_and_sound_have_the_same_share_of_their_room(video):
    data = train_set(video, specs={"video": VIDEO, "audio": SPEC})
    for pass_ in range(10):
        inputs = data.example(0, pass_).inputs
        shown = numbers(inputs["video"])[0] / 30 / (SECONDS - 9 / 30)
        said = (heard(inputs["audio"])[0] - SPEC.window / 2) / (SECONDS - SPEC.samples / SPEC.rate)
        assert shown == pytest.approx(said, abs=0.02)


def test_test_spans_are_spread(wave):
    views = ViewSet([Record(wave, key="k")], None, {"audio": SPEC}, Views(3, 1)).example(0)
    assert views.inputs["audio"].shape == (3, 100, 128)
    room = SECONDS - SPEC.samples / SPEC.rate
    for clip, start in zip(views.inputs["audio"], (0, room / 2, room), strict=True):
        assert heard(clip)[0] == pytest.approx(start + SPEC.window / 2, abs=NEAR)
    assert views.key == "k"
    assert views.silent == ()
    (middle,) = ViewSet([Record(wave)], None, {"audio": SPEC}).example(0).inputs["audio"]
    assert heard(middle)[0] == pytest.approx(room / 2 + SPEC.window / 2, abs=NEAR)


def test_spans_that_overlap_are_the_same_as_those_read_alone(wave):
    record = Record(wave, start=1.0, end=3.0)
    clips = ViewSet([record], None, {"audio": SPEC}, Views(4, 1)).example(0).inputs["audio"]
    room = 2 - SPEC.samples / SPEC.rate
    for i, clip in enumerate(clips):
        alone = ViewSet(
            [Record(wave, start=1 + room * i / 3, end=1 + room * i / 3 + SPEC.samples / SPEC.rate + 1e-4)],
            None,
            {"audio": SPEC},
        )
        assert np.abs(heard(clip) - heard(alone.example(0).inputs["audio"][0])).max() < NEAR


def test_sound_goes_with_every_crop_of_its_clip(video):
    square = VideoSpec(frames=2, stride=3, size=(64, 64), short_side=64)
    inputs = ViewSet([Record(video)], None, {"video": square, "audio": SPEC}, Views(2, 3)).example(0).inputs
    assert inputs["video"].shape[0] == inputs["audio"].shape[0] == 6
    assert [round(float(heard(view)[0])) for view in inputs["audio"]] == [0, 0, 0, 5, 5, 5]


def test_the_sound_is_read_once(video, monkeypatch):
    reads: list[tuple] = []
    read_audio = cache_module.read_audio
    monkeypatch.setattr(cache_module, "read_audio", lambda *span: reads.append(span) or read_audio(*span))
    two = {"audio": SPEC, "coarse": SpectrogramSpec(frames=100, bins=32)}
    train_set(video, specs=two).example(0, 0)
    assert len(reads) == 1
    assert reads[0][2] - reads[0][1] == pytest.approx(SPEC.samples / SPEC.rate)  # no more of it than is needed
    ViewSet([Record(video)], None, two, Views(8, 1)).example(0)
    assert len(reads) == 2
    ViewSet([Record(video)], None, two, Views(2, 1)).example(0)
    assert len(reads) == 4


def test_a_short_file_is_read_once_for_all_passes_and_sounds_the_same(media, monkeypatch):
    short = str(record_sound(media / "short.wav", siren(2)))
    records, plain = [Record(short)], Augmentation.none()
    kept = TrainSet(records, None, {"audio": SPEC}, plain, cache_gib=0.01)
    read_anew = TrainSet(records, None, {"audio": SPEC}, plain)
    expected = [read_anew.example(0, pass_).inputs["audio"] for pass_ in range(5)]
    reads: list[tuple] = []
    read_audio = cache_module.read_audio
    monkeypatch.setattr(cache_module, "read_audio", lambda *span: reads.append(span) or read_audio(*span))
    found = [kept.example(0, pass_) for pass_ in range(5)]
    assert [torch.equal(example.inputs["audio"], same) for example, same in zip(found, expected, strict=True)] == [
        True
    ] * 5
    assert len(reads) == 1
    begins = [kept.times(0, pass_, "audio")[0] for pass_ in range(5)]
    assert len(set(begins)) == 5
    for example, begin in zip(found, begins, strict=True):
        assert abs(heard(example.inputs["audio"])[0] - begin) < NEAR


def test_loud_and_quiet_copies_are_heard_alike():
    spec = SpectrogramSpec(frames=50, loudness=-25)
    wave = torch.randn(1, spec.samples, generator=torch.Generator().manual_seed(0)) * 0.1
    same = spectrograms(wave, spec)
    for factor in (0.03, 0.5, 9.0):
        torch.testing.assert_close(spectrograms(wave * factor, spec), same, atol=1e-3, rtol=1e-3)
    level = evened(wave, spec).square().mean().log10() * 10
    assert level == pytest.approx(-25, abs=1e-3)
    silence = torch.zeros(1, spec.samples)
    assert torch.equal(evened(silence, spec), silence)
    torch.testing.assert_close(evened(wave * 1e-6, spec), wave * 1e-4)  # 40 dB at most
    assert evened(wave, SPEC) is wave


STRETCHED = SpectrogramSpec(frames=40, stretch=2.0)


def test_a_word_fills_all_frames_however_long_it_is(media):
    course = np.linspace(300, 700, 40)
    for seconds in (0.3, 1.0, 2.0):
        time = np.arange(round(seconds * 16_000)) / 16_000
        sweep = 0.4 * np.sin(2 * np.pi * (300 * time + 200 * time**2 / seconds))
        word = str(record_sound(media / f"word{seconds}.wav", sweep))
        (test,) = ViewSet([Record(word)], None, {"audio": STRETCHED}).example(0).inputs["audio"]
        data = train_set(word, specs={"audio": STRETCHED})
        assert torch.equal(test, data.example(0, 0).inputs["audio"])
        assert test.shape == (40, 128)
        assert np.abs(heard(test) * 400 + 300 - course).max() < 60
        assert data.times(0, 0, "audio")[-1] == pytest.approx(seconds * 39 / 40)


def test_of_longer_sounds_spans_are_stretched(wave):
    assert (STRETCHED.seconds, STRETCHED.samples, STRETCHED.step) == (2.0, 32_000, 0.05)
    views = ViewSet([Record(wave)], None, {"audio": STRETCHED}, Views(3, 1)).example(0).inputs["audio"]
    for clip, start in zip(views, (0.0, 2.0, 4.0), strict=True):
        assert np.abs(heard(clip) - start - (np.arange(40) + 0.5) * 0.05).max() < 0.12
    data = train_set(wave, specs={"audio": STRETCHED})
    for pass_ in range(5):
        times = np.array(data.times(0, pass_, "audio"))
        assert np.abs(heard(data.example(0, pass_).inputs["audio"]) - times - 0.025).max() < 0.12


def test_less_sound_than_a_window_is_filled_up_with_silence(media):
    click = str(record_sound(media / "click.wav", siren(0.01)))
    (heard_,) = ViewSet([Record(click)], None, {"audio": STRETCHED}).example(0).inputs["audio"]
    assert heard_.shape == (40, 128)
    torch.testing.assert_close(heard_, heard_[:1].expand(40, -1))


def test_silence_is_named(media, video):
    noise = record_sound(media / "half.wav", np.concatenate([np.zeros(32_000), siren(2)]))
    views = [
        ViewSet([Record(str(noise), **part)], None, {"audio": SPEC}, Views(2, 1)).example(0).silent
        for part in ({"end": 2.0}, {"start": 2.0}, {})
    ]
    assert views == [("audio",), (), ()]
    both = ViewSet([Record(video)], None, {"video": VIDEO, "audio": SPEC}).example(0)
    assert both.silent == ()


def test_without_a_track_there_is_no_example(media, tmp_path):
    mute = str(encode(media / "mute_for_sound.mp4", 30))
    (tmp_path / "broken.wav").write_bytes(b"no sound at all")
    for path, words in ((mute, "no audio track"), (str(tmp_path / "broken.wav"), "not a media file")):
        for found in (train_set(path).example(0, 0), ViewSet([Record(path)], None, {"audio": SPEC}).example(0)):
            assert isinstance(found, MediaError)
            assert words in found.reason
    past = train_set(mute, start=9.0).example(0, 0)
    assert isinstance(past, MediaError)
    assert "the file ends at 1.000 s; mend start" in past.reason


def test_cached_durations_spare_probing(wave, monkeypatch):
    monkeypatch.setattr("tubelet.data.timeline.probe", None)
    times = train_set(wave, duration=3.0).times(0, 0, "audio")
    assert times[-1] < 3.0


def test_kinds_of_files_and_views_that_do_not_fit(wave, video, tmp_path):
    with pytest.raises(ValueError, match=r"'audio' is sound \(of a sound file, or of a video\), which .*a\.png is not"):
        train_set(str(tmp_path / "a.png"))
    for spec, need in ((VIDEO, "a video"), (ImageSpec(), "an image")):
        with pytest.raises(ValueError, match=rf"'x' is {need}, which .*siren\.wav is not"):
            train_set(wave, specs={"x": spec})
    with pytest.raises(ValueError, match="2x3 views have 3 crops, but sound is not cropped; give 2x1 views"):
        ViewSet([Record(video)], None, {"audio": SPEC}, Views(2, 3))


def test_default_masks_are_those_of_the_released_code(wave):
    plain, masked = train_set(wave), train_set(wave, Augmentation())
    widths = []
    for pass_ in range(40):
        a, b = plain.example(0, pass_).inputs["audio"], masked.example(0, pass_).inputs["audio"]
        bins = (a != b).any(0).nonzero()[:, 0].tolist()
        assert bins == list(range(bins[0], bins[0] + len(bins))) if bins else True
        assert not b[:, bins].any()
        assert torch.equal(
            a[:, [i for i in range(128) if i not in bins]], b[:, [i for i in range(128) if i not in bins]]
        )
        widths.append(len(bins))
    assert max(widths) in range(38, 48)
    assert min(widths) < 8


def test_masks_of_time():
    ones = torch.ones(100, 16)
    augmentation = Augmentation(frequency_masks=0, time_masks=2, time_mask_frames=30)
    random = Random(0)
    counts = [int((spec_augment(ones, augmentation, random)[:, 0] == 0).sum()) for _ in range(100)]
    assert max(counts) in range(45, 59)
    assert bool(ones.all())
    few = Augmentation(frequency_masks=0, time_masks=1, time_mask_frames=30, time_mask_share=0.1)
    assert max(int((spec_augment(ones, few, random)[:, 0] == 0).sum()) for _ in range(100)) == 9
    none = Augmentation(frequency_masks=0, time_masks=4, time_mask_share=0.0)
    assert torch.equal(spec_augment(ones, none, random), ones)


def changed(path: str, spec: SpectrogramSpec = SPEC, passes: int = 30, **amounts) -> list[Tensor]:
    data = train_set(path, replace(Augmentation.none(), **amounts), {"audio": spec})
    return [data.example(0, pass_).inputs["audio"] for pass_ in range(passes)]


def test_sound_is_changed_alike_every_time(wave):
    everything = {"tempo": 0.2, "time_shift": 0.2, "gain": 6, "noise": 0.9, "frequency_warp": 0.1, "time_masks": 1}
    for spec in (SPEC, STRETCHED):
        once, again = changed(wave, spec, 3, **everything), changed(wave, spec, 3, **everything)
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
        assert not torch.equal(once[0], once[1])


def test_gain_comes_after_loudness(media):
    spec = SpectrogramSpec(frames=100, loudness=-25)
    steady = str(record_sound(media / "steady.wav", np.random.default_rng(0).standard_normal(spec.samples) * 0.02))
    (plain,) = changed(steady, spec, 1)
    louder = [
        (x - plain)[:, 40:].mean().item() * spec.std * 10 / np.log(10) for x in changed(steady, spec, 100, gain=6)
    ]
    assert min(louder) == pytest.approx(-6, abs=0.5)
    assert max(louder) == pytest.approx(6, abs=0.5)


def test_noise_lies_10_to_40_decibels_below_the_sound():
    wave = 0.2 * torch.sin(torch.arange(SPEC.samples) * 0.3)
    noisy = replace(Augmentation.none(), noise=0.5)
    quiet, found = train_spectrogram(wave, SPEC, Augmentation.none(), Random(0)), []
    for seed in range(200):
        spectrogram = train_spectrogram(wave, SPEC, noisy, Random(seed))
        if not torch.equal(spectrogram, quiet):
            found.append((spectrogram[:, 110:].exp().mean().log() * SPEC.std).item())
    assert len(found) == pytest.approx(100, abs=30)
    assert max(found) - min(found) == pytest.approx(30 * np.log(10) / 10, abs=1)
    silence = torch.zeros(SPEC.samples)
    assert torch.equal(
        train_spectrogram(silence, SPEC, replace(noisy, noise=1), Random(0)), spectrograms(silence[None], SPEC)[0]
    )


def test_tempo_is_speed_and_pitch_together(media):
    path = str(record_sound(media / "steps.wav", np.sin(2 * np.pi * 1000 * np.arange(64_000) / 16_000)))
    pitches = [
        float(np.array(SPEC.corners[1:-1])[int(x.mean(0).argmax())]) for x in changed(path, passes=80, tempo=0.25)
    ]
    assert min(pitches) == pytest.approx(800, abs=40)
    assert max(pitches) == pytest.approx(1250, abs=50)
    assert {x.shape for x in changed(path, passes=80, tempo=0.25)} == {(100, 128)}


def test_times_tell_of_tempo_and_shifts(wave):
    for spec, part in ((SPEC, {}), (SPEC, {"start": 1.0, "end": 1.8}), (STRETCHED, {}), (STRETCHED, {"end": 1.5})):
        data = train_set(wave, replace(Augmentation.none(), tempo=0.25, time_shift=0.2), {"audio": spec}, **part)
        for pass_ in range(8):
            times = np.array(data.times(0, pass_, "audio"))
            hertz = np.array(spec.corners[1:-1])[data.example(0, pass_).inputs["audio"].argmax(-1).numpy()]
            tempo = np.median(hertz / (300 + 400 * times))
            assert 0.78 < tempo < 1.3
            off = np.abs(hertz / tempo - 300 - 400 * times) < 60
            assert off.mean() > 0.93  # all but the windows on the seam of a repeated sound


def test_a_short_word_begins_elsewhere(media):
    word = str(record_sound(media / "shifted.wav", siren(0.8)))
    begins = [heard(x)[0] for x in changed(word, passes=100, time_shift=0.1)]
    assert max(begin for begin in begins if begin < 0.4) == pytest.approx(0.1, abs=0.05)
    assert min(begin for begin in begins if begin > 0.4) == pytest.approx(0.7, abs=0.05)
    cut = changed(word, STRETCHED, 100, time_shift=0.1)
    assert max(heard(x)[0] for x in cut) == pytest.approx(0.08, abs=0.05)
    assert min(heard(x)[-1] for x in cut) == pytest.approx(0.72, abs=0.05)


def test_frequencies_are_warped_about_zero():
    ramp = torch.arange(64.0).expand(3, -1)
    torch.testing.assert_close(frequency_warped(ramp, 0.9), ramp * 0.9)
    torch.testing.assert_close(frequency_warped(ramp, 1.1), (ramp * 1.1).clamp(max=63))
    torch.testing.assert_close(frequency_warped(ramp, 1.0), ramp)


def test_wider_masks_than_the_spectrogram():
    small = torch.ones(4, 8)
    wide = Augmentation(frequency_masks=3, time_masks=3)
    random = Random(1)
    for _ in range(50):
        assert spec_augment(small, wide, random).shape == (4, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frequency_masks": -1}, {"time_mask_frames": -2}, {"time_mask_share": 1.5}, {"gain": -1.0}, {"noise": 2.0},
        {"tempo": -0.1}, {"time_shift": 0.6}, {"frequency_warp": 1.0},
    ],
)  # fmt: skip
def test_masks_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_noise_may_be_relative_to_the_loudest_sample():
    spec = WaveformSpec(samples=20_000, rate=16_000)
    wave = 0.01 * torch.sin(torch.arange(20_000) * 0.3)
    wave[777] = -0.8
    noise = train_waveform(wave, spec, replace(Augmentation.none(), peak_noise=0.01), Random(0)) - wave
    assert noise.std().item() == pytest.approx(0.008, rel=0.05)
    assert abs(noise.mean().item()) < 3e-4
    silence = torch.zeros(20_000)
    assert torch.equal(train_waveform(silence, spec, replace(Augmentation.none(), peak_noise=0.01), Random(0)), silence)
