"""Features made by hand, for simple classifiers: pixels, gradients, colors, motion, log-mel energies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tubelet.data.manifest import Record
from tubelet.media.audio import read_audio
from tubelet.media.errors import MediaError
from tubelet.media.images import read_image
from tubelet.media.info import probe
from tubelet.media.spectrogram import log_mel
from tubelet.media.video import in_batches, open_video
from tubelet.specs import SpectrogramSpec

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Reading: a file becomes a small array, from which every feature is taken.


def _thumbnail(picture: NDArray[np.uint8]) -> Bytes:
    """(48, 48, 3) of (H, W, 3): the whole picture, stretched."""
    small = Image.fromarray(np.ascontiguousarray(picture)).resize((48, 48), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small)


def read_picture(record: Record) -> Bytes:
    return _thumbnail(read_image(record.path, short_side=48).permute(1, 2, 0).numpy())


_PAIRS = 8  # per video
_PAIR_GAP = 0.1  # seconds: about what an action needs to be seen to move


def read_frames(record: Record) -> Bytes:
    """(8, 2, 48, 48, 3): at 8 evenly spaced times a frame, and the one a tenth of a second later (in short clips, half
    of the way to the next time)."""
    start, end = _span(record)
    step = (end - start) / _PAIRS
    gap = min(_PAIR_GAP, step / 2)
    times = [start + (i + 0.5) * step + shift for i in range(_PAIRS) for shift in (-gap / 2, gap / 2)]
    with open_video(record.path) as video:
        small = [
            _thumbnail(frame)
            for batch in in_batches(video, times)
            for frame in batch.frames.permute(0, 2, 3, 1).numpy()
        ]
    return np.stack(small).reshape(_PAIRS, 2, 48, 48, 3)


_SOUND = SpectrogramSpec(bins=64)
_LONGEST = 10.0  # seconds of a sound, from its middle


@dataclass(frozen=True)
class Sound:
    """Log-mel energies (T, 64) of a sound as it is, and of the sound at one loudness."""

    plain: Floats
    evened: Floats


def read_sound(record: Record) -> Sound:
    start, end = _span(record)
    if end - start > _LONGEST:
        start = (start + end - _LONGEST) / 2
        end = start + _LONGEST
    samples = read_audio(record.path, start, end, _SOUND.rate)
    shortest = _SOUND.window_samples + 2 * _SOUND.hop_samples  # three frames: statistics of differences need some
    samples = torch.nn.functional.pad(samples, (0, max(0, shortest - len(samples))))
    loudness = samples.square().mean().sqrt().clamp(min=1e-5)
    return Sound(log_mel(samples, _SOUND).numpy(), log_mel(samples * (0.1 / loudness), _SOUND).numpy())


def _span(record: Record) -> tuple[float, float]:
    """The seconds at which an example starts and ends. Raises MediaError where it lies behind the file's end."""
    duration = record.duration or probe(record.path).duration
    end = duration if record.end is None else min(record.end, duration)
    if end <= record.start:
        raise MediaError(record.path, record.start, f"the file ends at {duration:.3f} s")
    return record.start, end


# Features of pictures, from thumbnails (48, 48, 3).


def _pooled(picture: NDArray[Any], side: int) -> Floats:
    """(..., side, side, C) of (..., 48, 48, C), by means of equal squares, from 0 to 1."""
    *lead, height, width, channels = picture.shape
    squares = picture.reshape(*lead, side, height // side, side, width // side, channels)
    return squares.mean(axis=(-4, -2), dtype=np.float32) / 255


def _gray(picture: NDArray[Any]) -> Floats:
    """(..., H, W), from 0 to 255."""
    return picture @ np.array([0.299, 0.587, 0.114], np.float32)


def gray_pixels(picture: Bytes) -> Floats:
    """256: gray values of 16 x 16 pixels."""
    return _pooled(_gray(picture)[..., None], 16).ravel()


def color_pixels(picture: Bytes) -> Floats:
    """1728: colors of 24 x 24 pixels."""
    return _pooled(picture, 24).ravel()


def color_histogram(pictures: Bytes) -> Floats:
    """64: the square roots of the shares of 4 x 4 x 4 colors, for pictures of any number (..., 3)."""
    cells = (pictures.reshape(-1, 3) >> 6).astype(np.int64) @ np.array([16, 4, 1])
    return np.sqrt(np.bincount(cells, minlength=64) / len(cells)).astype(np.float32)


def oriented_gradients(picture: Bytes) -> Floats:
    """1764: 9 directions in 8 x 8 cells of 6 x 6 pixels, evened in blocks of 2 x 2 cells (Dalal and Triggs 2005)."""
    y, x = np.gradient(np.sqrt(_gray(picture)))
    strength = np.hypot(x, y)
    direction = np.arctan2(y, x) / np.pi % 1 * 9
    low = np.floor(direction)
    share = direction - low
    low = low.astype(np.int64) % 9
    cell = np.arange(48) // 6
    cells = (cell[:, None] * 8 + cell) * 9
    index = np.concatenate([(cells + low).ravel(), (cells + (low + 1) % 9).ravel()])
    weight = np.concatenate([(strength * (1 - share)).ravel(), (strength * share).ravel()])
    grid = np.bincount(index, weight, minlength=8 * 8 * 9).reshape(8, 8, 9)
    blocks = np.concatenate([grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]], axis=-1)
    blocks = np.minimum(blocks / (np.linalg.norm(blocks, axis=-1, keepdims=True) + 1.0), 0.2)
    return (blocks / (np.linalg.norm(blocks, axis=-1, keepdims=True) + 0.1)).astype(np.float32).ravel()


def gradients_and_colors(picture: Bytes) -> Floats:
    """1828: gradients and colors, weighted so that each has about half of the distance."""
    return np.concatenate([oriented_gradients(picture), 5 * color_histogram(picture)])


# Features of videos, from pairs of frames (8, 2, 48, 48, 3).


def mean_frame(frames: Bytes) -> Floats:
    """768: the colors of 16 x 16 pixels, the mean over time."""
    return _pooled(frames.mean(axis=(0, 1), dtype=np.float32), 16).ravel()


def middle_gradients(frames: Bytes) -> Floats:
    """1764: the oriented gradients of the middle frame."""
    return oriented_gradients(frames[_PAIRS // 2, 0])


def mean_gradients_and_colors(frames: Bytes) -> Floats:
    """1828: the oriented gradients, the mean over 4 times, and the color histogram of all frames."""
    gradients = np.mean([oriented_gradients(frame) for frame in frames[::2, 0]], axis=0)
    return np.concatenate([gradients, 5 * color_histogram(frames)]).astype(np.float32)


def small_frames(frames: Bytes) -> Floats:
    """1152: gray values of 12 x 12 pixels at each of the 8 times."""
    return _pooled(_gray(frames[:, 0])[..., None], 12).ravel()


def frame_differences(frames: Bytes) -> Floats:
    """2304: signed differences of 12 x 12 gray pixels, within the 8 pairs and from time to time (and round)."""
    small = _pooled(_gray(frames)[..., None], 12)
    return np.concatenate([(small[:, 1] - small[:, 0]).ravel(), (np.roll(small[:, 0], -1, 0) - small[:, 0]).ravel()])


_SHIFTS = 5  # of 24 pixels


def frame_correlation(frames: Bytes) -> Floats:
    """484: how well a frame of 24 x 24 gray pixels, shifted by up to 5 pixels up, down, left and right, agrees with the
    next one: the mean over the pairs and the mean from time to time, of the frames and of what moves in them."""
    small = _pooled(_gray(frames)[..., None], 24)[..., 0]
    kinds = (small - small.mean(axis=(-2, -1), keepdims=True), small - small.mean(axis=(0, 1)))
    return np.concatenate(
        [
            _correlation(first, second).ravel()
            for kind in kinds
            for first, second in ((kind[:, 0], kind[:, 1]), (kind[:-1, 0], kind[1:, 0]))
        ]
    )


def _correlation(first: Floats, second: Floats) -> Floats:
    """(11, 11) of (n, 24, 24) twice: the mean correlation at each shift."""
    spectrum = np.conj(np.fft.rfft2(first)) * np.fft.rfft2(second)
    products = np.fft.irfft2(spectrum, first.shape[-2:])
    norms = np.linalg.norm(first, axis=(-2, -1)) * np.linalg.norm(second, axis=(-2, -1)) + 1e-3
    mean = (products / norms[:, None, None]).mean(axis=0)
    return np.roll(mean, (_SHIFTS, _SHIFTS), (0, 1))[: 2 * _SHIFTS + 1, : 2 * _SHIFTS + 1].astype(np.float32)


# Features of sounds, from log-mel energies (T, 64).


def mel_statistics(sound: Sound) -> Floats:
    """320: of each of 64 bins the mean, deviation, 10th and 90th percentile and the mean step from frame to frame."""
    mel = sound.plain
    steps = np.abs(np.diff(mel, axis=0)).mean(axis=0)
    low, high = np.percentile(mel, (10, 90), axis=0)
    return np.concatenate([mel.mean(0), mel.std(0), low, high, steps]).astype(np.float32)


_COEFFICIENTS = 20
_COSINES = np.cos(np.pi / 64 * (np.arange(64)[:, None] + 0.5) * np.arange(_COEFFICIENTS)).astype(np.float32)


def cepstral_statistics(sound: Sound) -> Floats:
    """140: of 20 cepstral coefficients the mean, median, extremes and deviation, and the deviations of their steps and
    of the steps of these."""
    values = sound.plain @ _COSINES
    steps = np.gradient(values, axis=0)
    second = np.gradient(steps, axis=0)
    extremes = np.percentile(values, (0, 50, 100), axis=0)
    return np.concatenate([values.mean(0), *extremes, values.std(0), steps.std(0), second.std(0)]).astype(np.float32)


def flat_log_mel(sound: Sound) -> Floats:
    """1280: 40 frames of 32 bins, whatever the length of the sound."""
    return _stretched(sound.plain)


def flat_even_log_mel(sound: Sound) -> Floats:
    """1280: the same of the sound at one loudness."""
    return _stretched(sound.evened)


_FAINT = 6.0  # in log-mel energy, the mean of all bins


def flat_trimmed_log_mel(sound: Sound) -> Floats:
    """1280: the same of what lies between the first and last frame that are not much fainter than the loudest."""
    loudness = sound.evened.mean(axis=1)
    (loud,) = np.nonzero(loudness > loudness.max() - _FAINT)
    return _stretched(sound.evened[max(loud[0] - 3, 0) : loud[-1] + 4])


def _stretched(mel: Floats, frames: int = 40) -> Floats:
    """``frames`` frames of (T, 64): means of the frames that each covers, and pairs of bins."""
    sums = np.concatenate([np.zeros((1, mel.shape[1])), np.cumsum(mel, axis=0, dtype=np.float64)])
    edges = np.linspace(0, len(mel), frames + 1)
    low = np.minimum(edges.astype(np.int64), len(mel) - 1)
    at = sums[low] + (edges - low)[:, None] * (sums[low + 1] - sums[low])
    means = np.diff(at, axis=0) * (frames / len(mel))
    return means.reshape(frames, -1, 2).mean(axis=-1).astype(np.float32).ravel()
