"""From decoded frames to what a model's spec wants: one random training clip, or the crops of the test."""

from __future__ import annotations

from random import Random

import torch
from jaxtyping import UInt8
from torch import Tensor

from tubelet.data import colour
from tubelet.data.augment import Augmentation
from tubelet.data.geometry import Box, crop_size, cut, place
from tubelet.data.randaugment import randaugment
from tubelet.specs import RasterSpec

# tf.image's colour jitter as the released code calls it
_BRIGHTNESS = 32.0  # levels, up or down
_SATURATION = _CONTRAST = (0.6, 1.4)
_HUE = 0.2  # turns, either way


def train_clip(
    frames: UInt8[Tensor, "T 3 H W"], spec: RasterSpec, augmentation: Augmentation, random: Random
) -> UInt8[Tensor, "T 3 h w"]:
    """One crop of ``spec.size``, augmented; every frame in the same way."""
    box = _train_box((frames.shape[-2], frames.shape[-1]), spec, augmentation, random)
    clip = cut(frames, box, spec.size).contiguous()
    if random.random() < augmentation.flip:
        clip = clip.flip(-1)
    clip = randaugment(clip, augmentation.randaugment_layers, augmentation.randaugment_magnitude, random)
    if random.random() < augmentation.colour:
        clip = colour.jitter(
            clip,
            brightness=random.uniform(-_BRIGHTNESS, _BRIGHTNESS),
            saturation=random.uniform(*_SATURATION),
            contrast=random.uniform(*_CONTRAST),
            hue=random.uniform(-_HUE, _HUE),
        )
    return colour.greyscale(clip) if random.random() < augmentation.greyscale else clip


def _train_box(picture: tuple[int, int], spec: RasterSpec, augmentation: Augmentation, random: Random) -> Box:
    jitter = (1.0, 1.0)
    if random.random() < augmentation.scale_jitter:
        low, high = augmentation.min_scale, augmentation.max_scale
        jitter = random.uniform(low, high), random.uniform(low, high)
    height, width = crop = crop_size(picture, spec, jitter)
    if random.random() >= augmentation.crop:
        return place(picture, crop, 0.5, 0.5)
    return Box(random.randint(0, picture[0] - height), random.randint(0, picture[1] - width), height, width)


def view_boxes(picture: tuple[int, int], spec: RasterSpec, crops: int) -> list[Box]:
    """Where the test's crops lie: the centre, or three along the longer side, from its start to its end.

    Of a picture that is stretched, each is the whole picture.
    """
    crop = crop_size(picture, spec)
    places = [0.0, 0.5, 1.0] if crops == 3 else [0.5]
    tall = picture[0] > picture[1]
    return [place(picture, crop, f, 0.5) if tall else place(picture, crop, 0.5, f) for f in places]


def view_crops(frames: UInt8[Tensor, "T 3 H W"], spec: RasterSpec, crops: int) -> UInt8[Tensor, "crops T 3 h w"]:
    """Every frame in each of the test's crops."""
    boxes = view_boxes((frames.shape[-2], frames.shape[-1]), spec, crops)
    return torch.stack([cut(frames, box, spec.size) for box in boxes])
