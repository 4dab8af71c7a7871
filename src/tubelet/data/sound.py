"""Spans of a file's sound, and the spectrograms or waveforms that a model hears of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from tubelet.data.augment import Augmentation, random_factor
from tubelet.data.manifest import Record
from tubelet.data.timeline import Timeline, Timelines
from tubelet.media.clips import clip_times, random_start, spread_starts
from tubelet.media.spectrogram import log_mel, stretched
from tubelet.specs import SoundSpec, SpectrogramSpec, WaveformSpec

_LARGEST_GAIN = 100.0  # 40 dB: what is quieter still is mostly noise
_WHOLE = 4.0  # spans: a sound file no longer than that is read whole, so that it can be kept


_SNR = 10.0, 40.0  # decibels between sound and noise


class Draw(NamedTuple):
    """A training span: where it begins (seconds of the example), its speed, and the shares cut off at its ends."""

    start: float
    tempo: float = 1.0
    cut: tuple[float, float] = (0.0, 0.0)


class Waveforms:
    """The sound of one example, of which no span is read twice, whichever inputs want it.

    Its methods raise :class:`MediaError`. An example shorter than a span is repeated, or taken whole where the spec
    says that it is not: then it has fewer samples than ``spec.samples``. ``read`` gives the samples of the example's
    file from one time to another, at a rate.
    """

    def __init__(
        self, record: Record, timelines: Timelines, read: Callable[[float, float, int], Float32[Tensor, " S"]]
    ) -> None:
        self._record, self._timelines, self._reader = record, timelines, read
        self._read: dict[tuple[float, float, int], Float32[Tensor, " S"]] = {}

    @cached_property
    def line(self) -> Timeline:
        return self._timelines.of_sound(self._record)

    def draw(self, spec: SoundSpec, augmentation: Augmentation, random: Random) -> Draw:
        """A random span."""
        u, tempo, most = random.random(), random_factor(augmentation.tempo, random), augmentation.time_shift
        span = sound_span(spec, tempo)
        start = random_start(self.line.length, span, u)
        if most and spec.stretch:
            return Draw(start, tempo, (random.uniform(0, most), random.uniform(0, most)))
        if most and spec.repeats and self.line.length < span:
            start = random.uniform(-most, most) * span % self.line.length
        return Draw(start, tempo)

    def times(self, draw: Draw, spec: SoundSpec) -> tuple[float, ...]:
        """When the windows of a training span begin, in seconds of the file."""
        start, step = draw.start, spec.step * draw.tempo
        if spec.stretch:
            seconds = min(sound_span(spec, draw.tempo), self.line.length)
            start, step = start + draw.cut[0] * seconds, (1 - sum(draw.cut)) * seconds / spec.frames
        return tuple(self.line.start + t for t in clip_times(start, spec.frames, step, self.line.length))

    def drawn(self, draw: Draw, spec: SoundSpec) -> Float32[Tensor, " S"]:
        """The sound of a training span."""
        (wave,) = self._spans((draw.start,), spec, sound_span(spec, draw.tempo))
        if draw.tempo != 1:
            whole = spec.stretch or len(wave) < round(sound_span(spec, draw.tempo) * spec.rate)
            count = round(len(wave) / draw.tempo) if whole else spec.samples
            wave = F.interpolate(wave[None, None], size=max(1, count), mode="linear")[0, 0]
        first, last = (int(share * len(wave)) for share in draw.cut)
        return wave[first : len(wave) - last]

    def spread(self, spec: SoundSpec, clips: int) -> Float32[Tensor, "V S"]:
        """The test's spans, spread as those of videos."""
        return self.at(spread_starts(self.line.length, sound_span(spec), clips), spec)

    def at(self, starts: Sequence[float], spec: SoundSpec) -> Float32[Tensor, "V S"]:
        """``spec.samples`` samples from each of the starts: sorted, evenly spaced, in seconds of the example.

        Spans that overlap are read as one.
        """
        span = sound_span(spec)
        return self._spans(starts if span <= self.line.length else [0.0] * len(starts), spec, span)

    def _spans(self, starts: Sequence[float], spec: SoundSpec, span: float) -> Float32[Tensor, "V S"]:
        count = round(span * spec.rate)
        if self.line.length < span:
            sound = self._samples(0.0, max(self.line.length, 1 / spec.rate), spec.rate)
            if not spec.repeats:
                return sound.expand(len(starts), -1)
            first = round(starts[0] * spec.rate)
            return sound.repeat(-(-(first + count) // len(sound)))[first : first + count].expand(len(starts), -1)
        whole = starts[-1] - starts[0] + span
        if whole > len(starts) * span:
            return torch.stack([self._samples(start, start + span, spec.rate) for start in starts])
        sound = self._samples(starts[0], starts[0] + whole, spec.rate)
        firsts = [min(round((start - starts[0]) * spec.rate), len(sound) - count) for start in starts]
        return torch.stack([sound[first : first + count] for first in firsts])

    def _samples(self, start: float, end: float, rate: int) -> Float32[Tensor, " S"]:
        count = round((end - start) * rate)
        if self.line.fps or self.line.length * rate > _WHOLE * count:
            return self._span(start, end, rate)
        whole = self._span(0.0, self.line.length, rate)
        first = max(0, min(round(start * rate), len(whole) - count))
        return whole[first : first + count]

    def _span(self, start: float, end: float, rate: int) -> Float32[Tensor, " S"]:
        key = self.line.start + start, self.line.start + end, rate
        if key not in self._read:
            self._read[key] = self._reader(*key)
        return self._read[key]


def sound_span(spec: SoundSpec, tempo: float = 1.0) -> float:
    """Seconds that a clip covers: what is stretched, or ``spec.seconds`` and how far the last window reaches."""
    return round(spec.samples * tempo) / spec.rate


def spectrograms(waves: Float32[Tensor, "V S"], spec: SpectrogramSpec) -> Float32[Tensor, "V T M"]:
    """What a model hears: sound of one loudness, its log-mel energies, stretched in time, normalized.

    Each as the spec says.
    """
    return normalized(energies(evened(waves, spec), spec), spec)


def waveforms(waves: Float32[Tensor, "V S"], spec: WaveformSpec) -> Float32[Tensor, "V S"]:
    """What a model hears: sound of one loudness, within -1 and 1."""
    return evened(waves, spec).clamp(-1, 1)


def evened(waves: Float32[Tensor, "V S"], spec: SoundSpec) -> Float32[Tensor, "V S"]:
    """Each span at the level of ``spec.loudness``; digital silence as it is, and nothing more than 40 dB louder."""
    if not spec.loudness:
        return waves
    wanted = 10 ** (spec.loudness / 20)
    level = torch.linalg.vector_norm(waves, dim=-1, keepdim=True) / math.sqrt(waves.shape[-1])
    return waves * (wanted / level.clamp_(min=wanted / _LARGEST_GAIN))


def energies(waves: Float32[Tensor, "V S"], spec: SpectrogramSpec) -> Float32[Tensor, "V T M"]:
    """Log-mel energies, not yet normalized.

    Those of a sound that is not repeated are stretched to ``spec.frames`` frames, or blank ones follow them; less sound
    than a window is filled up with silence.
    """
    if spec.repeats:
        return log_mel(waves, spec)
    missing = spec.window_samples - waves.shape[-1]
    found = log_mel(F.pad(waves, (0, missing)) if missing > 0 else waves, spec)
    if spec.stretch:
        return stretched(found, spec.frames)
    return F.pad(found, (0, 0, 0, spec.frames - found.shape[-2]))


def normalized(energies: Float32[Tensor, "*V T M"], spec: SpectrogramSpec) -> Float32[Tensor, "*V T M"]:
    """Log-mel energies as the spec's ``levels`` say."""
    if spec.levels == "fixed":
        return (energies - spec.mean) / spec.std
    least, most = energies.amin((-2, -1), keepdim=True), energies.amax((-2, -1), keepdim=True)
    return (energies - least) / (most - least).clamp_(min=torch.finfo(energies.dtype).tiny)


def train_spectrogram(
    wave: Float32[Tensor, " S"], spec: SpectrogramSpec, augmentation: Augmentation, random: Random
) -> Float32[Tensor, "T M"]:
    """What a model hears in training: :func:`spectrograms` with the augmentations between its steps."""
    (energy,) = energies(_augmented(wave[None], spec, augmentation, random), spec)
    if most := augmentation.frequency_warp:
        energy = frequency_warped(energy, random.uniform(1 - most, 1 + most))
    return spec_augment(normalized(energy, spec), augmentation, random)


def train_waveform(
    wave: Float32[Tensor, " S"], spec: WaveformSpec, augmentation: Augmentation, random: Random
) -> Float32[Tensor, " S"]:
    """What a model hears in training: :func:`waveforms` with the augmentations of sound before the limits."""
    return _augmented(wave[None], spec, augmentation, random)[0].clamp(-1, 1)


def _augmented(
    waves: Float32[Tensor, "1 S"], spec: SoundSpec, augmentation: Augmentation, random: Random
) -> Float32[Tensor, "1 S"]:
    """Sound of one loudness, then another loudness, and noise of both kinds."""
    waves = evened(waves, spec)
    if augmentation.gain:
        waves = waves * 10 ** (random.uniform(-augmentation.gain, augmentation.gain) / 20)
    if augmentation.noise and random.random() < augmentation.noise:
        waves = _noisy(waves, waves.square().mean().sqrt().item() * 10 ** (-random.uniform(*_SNR) / 20), random)
    if augmentation.peak_noise:
        waves = _noisy(waves, waves.abs().max().item() * augmentation.peak_noise, random)
    return waves


def _noisy(waves: Float32[Tensor, "1 S"], level: float, random: Random) -> Float32[Tensor, "1 S"]:
    generator = torch.Generator().manual_seed(random.getrandbits(63))
    return waves + torch.randn(waves.shape, generator=generator) * level


def frequency_warped(energies: Float32[Tensor, "T M"], factor: float) -> Float32[Tensor, "T M"]:
    """Bin i gets what lies at i * ``factor``, by linear interpolation; the last bin goes on upwards."""
    bins = energies.shape[-1]
    place = (torch.arange(bins) * factor).clamp_(max=bins - 1)
    below = place.long()
    above = (below + 1).clamp_(max=bins - 1)
    return torch.lerp(energies[:, below], energies[:, above], place - below)


def spec_augment(
    spectrogram: Float32[Tensor, "T M"], augmentation: Augmentation, random: Random
) -> Float32[Tensor, "T M"]:
    """SpecAugment's masks (Park et al. 2019) on a normalized spectrogram: bands of bins and of frames become 0."""
    frames, bins = spectrogram.shape
    masked = spectrogram.clone()
    for _ in range(augmentation.frequency_masks):
        masked[:, _band(bins, augmentation.frequency_mask_bins, random)] = 0
    longest = min(augmentation.time_mask_frames, int(augmentation.time_mask_share * frames))
    for _ in range(augmentation.time_masks):
        masked[_band(frames, longest, random)] = 0
    return masked


def _band(size: int, widest: int, random: Random) -> slice:
    """Width below ``widest``, then place, both uniform: as the released code draws them."""
    width = int(random.random() * min(widest, size))
    first = int(random.random() * (size - width + 1))
    return slice(first, first + width)
