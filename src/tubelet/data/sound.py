"""Spans of a file's sound, and the spectrograms that a model sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from random import Random

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from tubelet.data.augment import Augmentation
from tubelet.data.cache import SoundReader
from tubelet.data.manifest import Record
from tubelet.data.timeline import Timeline, Timelines
from tubelet.media.clips import random_start, spread_starts
from tubelet.media.spectrogram import log_mel, stretched
from tubelet.specs import SpectrogramSpec

_LOUDEST_GAIN = 100.0  # 40 dB: what is quieter still is mostly noise
_WHOLE = 4.0  # spans: a sound file no longer than that is read whole, so that it can be kept


class Waveforms:
    """The sound of one example, of which no span is read twice, whichever inputs want it.

    Methods raise :class:`MediaError`. An example shorter than a span is repeated, or taken whole where the spec
    stretches spectrograms: then it has fewer samples than ``spec.samples``.
    """

    def __init__(self, record: Record, timelines: Timelines, reader: SoundReader) -> None:
        self._record, self._timelines, self._reader = record, timelines, reader
        self._read: dict[tuple[float, float, int], Float32[Tensor, " S"]] = {}

    @cached_property
    def line(self) -> Timeline:
        return self._timelines.of_sound(self._record)

    def start(self, spec: SpectrogramSpec, u: float) -> float:
        """Where a random span begins, in seconds of the example; ``u`` is drawn from [0, 1)."""
        return random_start(self.line.length, sound_span(spec), u)

    def spread(self, spec: SpectrogramSpec, clips: int) -> Float32[Tensor, "V S"]:
        """The test's spans, spread as those of videos."""
        return self.at(spread_starts(self.line.length, sound_span(spec), clips), spec)

    def at(self, starts: Sequence[float], spec: SpectrogramSpec) -> Float32[Tensor, "V S"]:
        """``spec.samples`` samples from each of the starts: sorted, evenly spaced, in seconds of the example.

        Spans that overlap are read as one.
        """
        span = sound_span(spec)
        if self.line.length < span:
            sound = self._samples(0.0, max(self.line.length, 1 / spec.rate), spec.rate)
            if spec.stretch:
                return sound.expand(len(starts), -1)
            return sound.repeat(-(-spec.samples // len(sound)))[: spec.samples].expand(len(starts), -1)
        whole = starts[-1] - starts[0] + span
        if whole > len(starts) * span:
            return torch.stack([self._samples(start, start + span, spec.rate) for start in starts])
        sound = self._samples(starts[0], starts[0] + whole, spec.rate)
        firsts = [min(round((start - starts[0]) * spec.rate), len(sound) - spec.samples) for start in starts]
        return torch.stack([sound[first : first + spec.samples] for first in firsts])

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
            self._read[key] = self._reader.samples(self._record.path, *key)
        return self._read[key]


def sound_span(spec: SpectrogramSpec) -> float:
    """Seconds that a spectrogram covers: what is stretched, or ``spec.seconds`` and how far the last window reaches."""
    return spec.samples / spec.rate


def spectrograms(waves: Float32[Tensor, "V S"], spec: SpectrogramSpec) -> Float32[Tensor, "V T M"]:
    """What a model hears: sound of one loudness, its log-mel energies, stretched in time, normalised.

    Each as the spec says.
    """
    return normalised(energies(evened(waves, spec), spec), spec)


def evened(waves: Float32[Tensor, "V S"], spec: SpectrogramSpec) -> Float32[Tensor, "V S"]:
    """Each span at the level of ``spec.loudness``; digital silence as it is, and nothing more than 40 dB louder."""
    if not spec.loudness:
        return waves
    level = waves.square().mean(-1, keepdim=True).sqrt()
    gain = 10 ** (spec.loudness / 20) / level.clamp_min(torch.finfo(level.dtype).tiny)
    return waves * gain.clamp(max=_LOUDEST_GAIN)


def energies(waves: Float32[Tensor, "V S"], spec: SpectrogramSpec) -> Float32[Tensor, "V T M"]:
    """Log-mel energies, not yet normalised; those of a stretched spectrogram at its number of frames.

    Less sound than a window is then filled up with silence.
    """
    if not spec.stretch:
        return log_mel(waves, spec)
    missing = spec.window_samples - waves.shape[-1]
    return stretched(log_mel(F.pad(waves, (0, missing)) if missing > 0 else waves, spec), spec.frames)


def normalised(energies: Float32[Tensor, "*V T M"], spec: SpectrogramSpec) -> Float32[Tensor, "*V T M"]:
    return (energies - spec.mean) / spec.std


def spec_augment(
    spectrogram: Float32[Tensor, "T M"], augmentation: Augmentation, random: Random
) -> Float32[Tensor, "T M"]:
    """SpecAugment's masks (Park et al. 2019) on a normalised spectrogram: bands of bins and of frames become 0."""
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
