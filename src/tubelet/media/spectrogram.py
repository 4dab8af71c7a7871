"""From samples to log-mel energies."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from tubelet.specs import SpectrogramSpec


def log_mel(samples: Float32[Tensor, "*V S"], spec: SpectrogramSpec) -> Float32[Tensor, "*V T M"]:
    """The log-mel energies of samples at ``spec.rate``, not yet normalized: ``spec.frames`` of ``spec.samples``.

    Frame t is the window that begins at sample t * hop. Nothing is padded: as many windows are taken as lie wholly on
    the samples. The taper is the periodic one, in Kaldi's style the symmetric one; a window is filled with zeros up to
    ``spec.fft`` points.
    Raises ValueError for fewer samples than a window has.
    """
    if samples.shape[-1] < spec.window_samples:
        raise ValueError(f"{samples.shape[-1]} samples are fewer than the {spec.window_samples} of one window")
    windows = samples.unfold(-1, spec.window_samples, spec.hop_samples)
    if spec.style == "kaldi":
        windows = _emphasized(windows - windows.mean(-1, keepdim=True))
    spectrum = torch.fft.rfft(windows * _taper(spec), spec.fft)
    energies = spectrum.real.square() + spectrum.imag.square()  # a third of the time of abs()
    mel = energies ** (spec.power / 2) @ mel_filters(spec)
    return torch.log(mel.clamp(min=spec.offset) if spec.style == "kaldi" else mel + spec.offset)


def _emphasized(windows: Float32[Tensor, "*V T W"]) -> Float32[Tensor, "*V T W"]:
    """Each sample less 97 % of the one before; the first of a window follows one like itself."""
    return windows - 0.97 * torch.cat([windows[..., :1], windows[..., :-1]], dim=-1)


def stretched(energies: Float32[Tensor, "*V T M"], frames: int) -> Float32[Tensor, "*V frames M"]:
    """Energies resampled in time: ``frames`` equal parts of their time, each its middle, by linear interpolation."""
    flat = energies.reshape(1, -1, *energies.shape[-2:])
    resized = F.interpolate(flat, size=(frames, flat.shape[-1]), mode="bilinear")
    return resized.reshape(*energies.shape[:-2], *resized.shape[-2:])


@lru_cache(maxsize=8)
def mel_filters(spec: SpectrogramSpec) -> Float32[Tensor, "F M"]:
    """The weight of each of the transform's frequencies in each bin: triangles of height 1, straight in hertz, or in
    mels where the style is Kaldi's."""
    hertz = torch.arange(spec.fft // 2 + 1, dtype=torch.float64)[:, None] * (spec.rate / spec.fft)
    corners = torch.tensor(spec.corners, dtype=torch.float64)
    if spec.style == "kaldi":
        hertz, corners = (torch.log1p(x / 700) for x in (hertz, corners))
    left, center, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (hertz - left) / (center - left), (right - hertz) / (right - center)
    return torch.minimum(rising, falling).clamp(min=0).float()


@lru_cache(maxsize=8)
def _taper(spec: SpectrogramSpec) -> Float32[Tensor, " W"]:
    shape = torch.hamming_window if spec.taper == "hamming" else torch.hann_window
    return shape(spec.window_samples, periodic=spec.style == "plain", dtype=torch.float64).float()
