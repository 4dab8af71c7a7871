"""The papers' training augmentations, one draw per clip or spectrogram."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a training clip, image or spectrogram; the defaults are ViViT's row for Kinetics (Table 7).

    A probability of 0 turns a step off; with all of them off (:meth:`none`) the clip is only resized and cut at the
    centre. Steps run in the order of the fields. All frames of a clip share one draw.

    ``scale_jitter``: probability that height and width are scaled by two independent factors from
    [``min_scale``, ``max_scale``] before the crop. ``crop``: probability that the crop lies anywhere instead of at the
    centre. ``flip``: probability of mirroring left and right; set it to 0 where the direction is the label.
    ``randaugment_layers`` operations of RandAugment are applied at ``randaugment_magnitude`` (on the scale 0 to 10 of
    the TensorFlow models; the released code goes up to 20). ``colour``: probability of changing brightness, saturation,
    contrast and hue; ``greyscale``: of then dropping colour. The released code runs either RandAugment or the colour
    steps; here both run if both are set.

    Spectrograms know SpecAugment alone: after normalisation, ``frequency_masks`` bands of fewer than
    ``frequency_mask_bins`` bins and ``time_masks`` bands of fewer than ``time_mask_frames`` frames, and of at most
    ``time_mask_share`` of all frames, are set to 0, their widths uniform. The default is what the released MBT and
    PolyViT code really does: its configuration asks for 4 time masks of 48 frames as well, but with a share of 0, at
    which its library leaves them out.
    """

    scale_jitter: float = 1.0
    min_scale: float = 0.9
    max_scale: float = 1.33
    crop: float = 1.0
    flip: float = 0.5
    randaugment_layers: int = 0
    randaugment_magnitude: float = 0.0
    colour: float = 0.8
    greyscale: float = 0.1
    frequency_masks: int = 1
    frequency_mask_bins: int = 48
    time_masks: int = 0
    time_mask_frames: int = 48
    time_mask_share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("scale_jitter", "crop", "flip", "colour", "greyscale", "time_mask_share"):
            if not 0 <= (p := getattr(self, name)) <= 1:
                raise ValueError(f"{name}={p} must lie between 0 and 1")
        for name in ("frequency_masks", "frequency_mask_bins", "time_masks", "time_mask_frames"):
            if (n := getattr(self, name)) < 0:
                raise ValueError(f"{name}={n} must be at least 0")
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(f"{self.min_scale=} must be above 0 and at most {self.max_scale=}")
        if self.randaugment_layers < 0 or not 0 <= self.randaugment_magnitude <= 30:
            raise ValueError(f"{self.randaugment_layers=} must be at least 0, {self.randaugment_magnitude=} in [0, 30]")

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation: the short side brought to the spec's, and a centre crop; spectrograms as they are."""
        return cls(scale_jitter=0, crop=0, flip=0, colour=0, greyscale=0, frequency_masks=0)
