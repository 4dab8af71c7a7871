"""Log-mel energies against SciPy's windows and transform and transformers' filters, one test per constant."""

from __future__ import annotations

import warnings
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from scipy.signal import ShortTimeFFT, get_window
from transformers import ASTFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from media_files import record_sound
from tubelet.data.augment import Augmentation
from tubelet.data.dataset import TrainSet, ViewSet
from tubelet.data.manifest import Record
from tubelet.data.sound import spectrograms, train_spectrogram
from tubelet.media.spectrogram import log_mel, mel_filters, stretched
from tubelet.specs import SpectrogramSpec

DEFAULTS = {
    "frames": 800, "bins": 128, "rate": 16_000, "window": 0.025, "hop": 0.010, "taper": "hamming", "fft": 1024,
    "power": 2.0, "low": 20.0, "high": 8000.0, "offset": 1e-6, "mean": -5.3, "std": 4.7,
}  # fmt: skip


def reference(
    samples: np.ndarray, *, frames, bins, rate, window, hop, taper, fft, power, low, high, offset, mean, std
) -> np.ndarray:
    """(T, M) in double precision, by other people's code."""
    length, step = round(window * rate), round(hop * rate)
    transform = ShortTimeFFT(get_window(taper, length), step, rate, mfft=fft)
    first = -(-transform.m_num_mid // step)  # its windows are counted by their middles: let this one begin at 0
    early = np.zeros(first * step - transform.m_num_mid)
    spectrum = transform.stft(np.concatenate([early, samples]), p0=first, p1=first + frames)
    filters = mel_filter_bank(fft // 2 + 1, bins, low, high, rate, norm=None, mel_scale="htk")
    return (np.log(np.abs(spectrum).T ** power @ filters + offset) - mean) / std


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"frames": 50}, {"bins": 64}, {"rate": 22_050}, {"window": 0.032}, {"hop": 0.0125}, {"taper": "hann"},
        {"fft": 2048}, {"power": 1.0}, {"low": 200.0}, {"high": 4000.0}, {"offset": 1e-2}, {"mean": 1.5}, {"std": 2.0},
    ],
    ids=lambda changed: next(iter(changed), "defaults"),
)  # fmt: skip
def test_each_constant_from_file_to_input(tmp_path, changed):
    constants = DEFAULTS | changed
    spec = SpectrogramSpec(**changed)
    random = np.random.default_rng(0)
    samples = (random.standard_normal(spec.samples) * np.linspace(0, 0.3, spec.samples)).astype(np.float32)
    path = record_sound(tmp_path / "noise.wav", samples, spec.rate)
    seen = ViewSet([Record(str(path))], None, {"audio": spec}).example(0).inputs["audio"]
    assert seen.shape == (1, constants["frames"], constants["bins"])
    np.testing.assert_allclose(seen[0].numpy(), reference(samples, **constants), atol=1e-4)


def test_channels_are_the_models_matter(tmp_path):
    samples = np.random.default_rng(1).standard_normal(SpectrogramSpec().samples).astype(np.float32)
    path = record_sound(tmp_path / "noise.wav", samples)
    one, three = (
        ViewSet([Record(str(path))], None, {"audio": SpectrogramSpec(channels=channels)}).example(0).inputs["audio"]
        for channels in (1, 3)
    )
    assert torch.equal(one, three)


def test_levels_of_its_own_are_vatts_formula():
    """log(1 + 10,000 x) of mel magnitudes, brought to [0, 1]; each span by itself, and silence is 0."""
    spec = SpectrogramSpec(
        frames=20, bins=80, rate=48_000, window=2048 / 48_000, hop=1024 / 48_000, taper="hann", fft=2048, power=1.0,
        low=80.0, high=7600.0, offset=1e-4, levels="own",
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    waves = torch.randn(2, spec.samples, generator=draw) * torch.tensor([[0.3], [0.001]])
    windows = waves.unfold(-1, 2048, 1024) * torch.hann_window(2048)
    x = torch.log(1 + 10_000 * torch.fft.rfft(windows).abs() @ mel_filters(spec))
    least, most = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    torch.testing.assert_close(spectrograms(waves, spec), (x - least) / (most - least), rtol=1e-4, atol=1e-5)
    assert not spectrograms(torch.zeros(1, spec.samples), spec).any()
    training = train_spectrogram(waves[0], spec, Augmentation.none(), Random(0))
    torch.testing.assert_close(training, spectrograms(waves, spec)[0])


AST = SpectrogramSpec(
    frames=200, bins=128, taper="hann", fft=512, offset=1.192092955078125e-07, style="kaldi", short="blank", channels=1,
    mean=-4.2677393, std=2 * 4.5689974,
)  # fmt: skip


@pytest.mark.parametrize("seconds", [0.03, 0.7, 2.015, 2.02, 3.1])
@pytest.mark.parametrize("level", [0.3, 1e-4, 0.0])
def test_kaldis_style_is_what_ast_hears(tmp_path, seconds, level):
    """A rising tone and noise, shorter than the clip, as long, and longer: there the first frames of the clip."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter")
        extractor = ASTFeatureExtractor(max_length=AST.frames)
    t = np.arange(round(seconds * AST.rate)) / AST.rate
    noise = np.random.default_rng(0).standard_normal(len(t))
    samples = (level * (0.6 * np.sin(2 * np.pi * (200 + 900 * t) * t) + 0.1 * noise + 0.2)).astype(np.float32)
    wanted = extractor(samples, sampling_rate=AST.rate, return_tensors="pt")["input_values"]
    found = ViewSet([Record(str(record_sound(tmp_path / "s.wav", samples)))], None, {"audio": AST}).example(0)
    if len(samples) <= AST.samples:
        torch.testing.assert_close(found.inputs["audio"], wanted, rtol=0, atol=1e-4)
    else:
        assert found.inputs["audio"].shape == wanted.shape
    heard = spectrograms(torch.from_numpy(samples)[None, : AST.samples], AST)
    torch.testing.assert_close(heard, wanted, rtol=0, atol=1e-4)
    training = train_spectrogram(torch.from_numpy(samples)[: AST.samples], AST, Augmentation.none(), Random(0))
    torch.testing.assert_close(training, wanted[0], rtol=0, atol=1e-4)


def test_what_follows_a_sound_that_is_not_repeated_is_blank_at_any_speed(tmp_path):
    samples = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    record = Record(str(record_sound(tmp_path / "s.wav", samples)))
    blank = torch.tensor(0.0).sub(AST.mean).div(AST.std)
    for augment in (Augmentation.none(), replace(Augmentation.none(), tempo=0.2, time_shift=0.3)):
        energies = TrainSet([record], None, {"audio": AST}, augment).example(0, 0).inputs["audio"]
        sounding = (energies != blank).any(-1).sum()
        assert energies.shape == AST.shape
        assert 98 / 1.3 < sounding < 98 / 0.7
        assert (energies[sounding:] == blank).all()


def test_only_whole_windows_are_taken():
    spec = SpectrogramSpec(frames=10)
    assert spec.samples == 9 * 160 + 400
    for extra, frames in ((0, 10), (159, 10), (160, 11), (-1, 9)):
        assert log_mel(torch.zeros(spec.samples + extra), spec).shape == (frames, 128)
    with pytest.raises(ValueError, match="399 samples are fewer than the 400"):
        log_mel(torch.zeros(399), spec)


def test_silence_is_the_logarithm_of_the_offset():
    torch.testing.assert_close(log_mel(torch.zeros(400), SpectrogramSpec()), torch.full((1, 128), np.log(1e-6).item()))


def test_no_filter_is_empty():
    assert (mel_filters(SpectrogramSpec()).sum(0) > 0.2).all()
    assert (mel_filters(SpectrogramSpec(rate=8000, high=4000.0, fft=512, bins=64)).sum(0) > 0).all()


def test_a_stretched_spectrogram_has_the_same_course_at_any_number_of_frames():
    rising = torch.arange(30.0)[:, None].expand(-1, 4)
    for frames in (10, 30, 90):
        found = stretched(rising, frames)
        assert found.shape == (frames, 4)
        wanted = ((torch.arange(frames) + 0.5) * 30 / frames - 0.5).clamp(0, 29)
        torch.testing.assert_close(found, wanted[:, None].expand(-1, 4))
    assert torch.equal(stretched(torch.stack([rising, 2 * rising]), 7)[1], stretched(2 * rising, 7))
    assert torch.equal(stretched(rising[:1] + 5, 3), torch.full((3, 4), 5.0))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fft": 512}, "filter [0-9]+ of self.bins=128 .* larger fft"),
        ({"bins": 400}, "fewer bins"),
        ({"window": 0.1}, "at least the 1600 samples"),
        ({"high": 9000.0}, "self.high=9000.0"),
        ({"hop": 1e-5}, "must hold a sample"),
        ({"std": 0.0}, "std=0.0 must be positive"),
        ({"loudness": 3.0}, "loudness=3.0 dB must be below full scale"),
        ({"stretch": 0.01}, "stretch=0.01 must be 0 or at least one self.window=0.025"),
    ],
)
def test_specs_that_make_no_sense(wrong, words):
    with pytest.raises(ValueError, match=words):
        SpectrogramSpec(**wrong)
