"""What may happen to training examples, one draw per clip or spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a training clip, image or spectrogram; the defaults are ViViT's row for Kinetics (Table 7).

    A probability or an amount of 0 turns a step off; with all of them off (:meth:`none`) the clip is only resized and
    cut at the center. Steps run in the order of the fields. All frames of a clip share one draw.

    ``speed``: the time between a clip's frames is multiplied by a factor from [1 / (1 + speed), 1 + speed]; a clip that
    fits into its video still does.

    ``area``: the share of the picture that the crop covers, from the smallest to the largest, and ``aspect``, its width
    to its height (Inception's crop, which VATT's code trains with: 0.08 to 1 and 0.5 to 2). It takes the place of
    ``scale_jitter`` and ``crop``; (0, 0) is off.

    ``scale_jitter``: probability that height and width are scaled by two independent factors from
    [``min_scale``, ``max_scale``] before the crop. ``crop``: probability that the crop lies anywhere instead of at the
    center. ``flip``: probability of mirroring left and right; set it to 0 where the direction is the label.
    ``rotate``: at most so many degrees either way. ``shift``: up and down, and left and right, by at most this share
    of the size. ``zoom``: larger or smaller by a factor from [1 / (1 + zoom), 1 + zoom]. ``shear``: upright lines are
    slanted by at most so many degrees. These four are one warp; what it pulls into the picture repeats the border.
    ``randaugment_layers`` operations of RandAugment are applied at ``randaugment_magnitude`` (on the scale 0 to 10 of
    the TensorFlow models; the released code goes up to 20); ``randaugment_geometric``: rotation, shear and translation
    are among them, which the released code leaves out. ``color``: probability of changing brightness, saturation,
    contrast and hue, by ``color_strength`` times what the released code does (32 levels, 0.4, 0.4 and 0.2 turns at
    most); ``grayscale``: of then dropping color. The released code runs either RandAugment or the color steps; here
    both run if both are set. ``erase``: probability that a rectangle of 2 to 20 % of the picture gets the spec's mean.

    Of sound, first the waveform is changed. ``tempo``: it is played faster and higher, or slower and lower, by a factor
    from [1 / (1 + tempo), 1 + tempo]. ``time_shift``: a sound shorter than a span begins elsewhere, at most this share
    of the span earlier or later, and its repetition wraps around; where spectrograms are stretched, at most this share
    is cut off at each end instead. ``gain``: louder or quieter by at most so many decibels, after the spec's loudness.
    ``noise``: probability of white noise, 10 to 40 dB below the sound. ``peak_noise``: white noise whose standard
    deviation is this share of the loudest sample of the span; VATT's code pre-trains with 0.01.

    Then the spectrogram is: ``frequency_warp``: its frequency axis is stretched by a factor from [1 - frequency_warp,
    1 + frequency_warp], as if another person spoke. After normalization follows SpecAugment: ``frequency_masks`` bands
    of fewer than ``frequency_mask_bins`` bins and ``time_masks`` bands of fewer than ``time_mask_frames`` frames, and
    of at most ``time_mask_share`` of all frames, are set to 0, their widths uniform. The default is what the released
    MBT and PolyViT code really does: its configuration asks for 4 time masks of 48 frames as well, but with a share of
    0, at which its library leaves them out.
    """

    speed: float = 0.0
    area: tuple[float, float] = (0.0, 0.0)
    aspect: tuple[float, float] = (0.5, 2.0)
    scale_jitter: float = 1.0
    min_scale: float = 0.9
    max_scale: float = 1.33
    crop: float = 1.0
    flip: float = 0.5
    rotate: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    randaugment_layers: int = 0
    randaugment_magnitude: float = 0.0
    randaugment_geometric: bool = False
    color: float = 0.8
    color_strength: float = 1.0
    grayscale: float = 0.1
    erase: float = 0.0
    tempo: float = 0.0
    time_shift: float = 0.0
    gain: float = 0.0
    noise: float = 0.0
    peak_noise: float = 0.0
    frequency_warp: float = 0.0
    frequency_masks: int = 1
    frequency_mask_bins: int = 48
    time_masks: int = 0
    time_mask_frames: int = 48
    time_mask_share: float = 1.0

    def __post_init__(self) -> None:
        probabilities = "scale_jitter", "crop", "flip", "color", "grayscale", "erase", "noise", "peak_noise"
        for name in (*probabilities, "time_mask_share"):
            if not 0 <= (p := getattr(self, name)) <= 1:
                raise ValueError(f"{name}={p} must lie between 0 and 1")
        for name in ("speed", "zoom", "tempo", "gain"):
            if not 0 <= (amount := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}={amount} must be at least 0")
        most = {"rotate": 180, "shift": 1, "shear": 89, "color_strength": 2, "time_shift": 0.49, "frequency_warp": 0.99}
        for name, limit in most.items():
            if not 0 <= (amount := getattr(self, name)) <= limit:
                raise ValueError(f"{name}={amount} must lie between 0 and {limit}")
        for name in ("frequency_masks", "frequency_mask_bins", "time_masks", "time_mask_frames"):
            if (n := getattr(self, name)) < 0:
                raise ValueError(f"{name}={n} must be at least 0")
        if self.area != (0, 0) and not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"{self.area=} must be two shares in order, above 0 and at most 1, or (0, 0) for none")
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise ValueError(f"{self.aspect=} must be two positive numbers in order")
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(f"{self.min_scale=} must be above 0 and at most {self.max_scale=}")
        if self.randaugment_layers < 0 or not 0 <= self.randaugment_magnitude <= 30:
            raise ValueError(f"{self.randaugment_layers=} must be at least 0, {self.randaugment_magnitude=} in [0, 30]")

    @property
    def enlarges(self) -> float:
        """By how much a part of the picture may be enlarged: so much larger it should be decoded."""
        if self.area != (0, 0):
            return 1 / math.sqrt(self.area[0])
        return max(1.0, self.max_scale) if self.scale_jitter else 1.0

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation: the short side brought to the spec's, and a center crop; spectrograms as they are."""
        return cls(scale_jitter=0, crop=0, flip=0, color=0, grayscale=0, frequency_masks=0)


def random_factor(most: float, random: Random) -> float:
    """From [1 / (1 + most), 1 + most], larger as often as smaller; 1, and nothing drawn, where ``most`` is 0."""
    return math.exp(random.uniform(-1, 1) * math.log1p(most)) if most else 1.0
