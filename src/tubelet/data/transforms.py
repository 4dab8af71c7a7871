"""From decoded frames to what a model's spec wants: one random training clip, or the crops of the test."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from random import Random

import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from tubelet.data import color
from tubelet.data.augment import Augmentation, random_factor
from tubelet.data.geometry import Box, crop_size, cut, place
from tubelet.data.randaugment import randaugment
from tubelet.specs import RasterSpec

# tf.image's color jitter as the released code calls it
_BRIGHTNESS = 32.0  # levels, up or down
_SATURATION = _CONTRAST = 0.4  # of the factor 1, up or down
_HUE = 0.2  # turns, either way

_ATTEMPTS = 100  # at a crop of the wanted area and shape that lies within the picture

_ERASED = 0.02, 0.2  # share of the picture
_ERASED_SHAPE = 1.0  # height to width: from 1 / 2 to 2


def train_clip(
    frames: UInt8[Tensor, "T 3 H W"] | Iterable[UInt8[Tensor, "t 3 H W"]],
    spec: RasterSpec,
    augmentation: Augmentation,
    random: Random,
) -> UInt8[Tensor, "T C h w"]:
    """One crop of ``spec.size``, augmented; every frame in the same way. Optical flow is only cropped and mirrored.

    ``frames``: of the clip, or parts of it, of which one at a time is held at full size.
    """
    box, crops = None, list[Tensor]()
    for part in [frames] if isinstance(frames, Tensor) else frames:
        box = box or _train_box((part.shape[-2], part.shape[-1]), spec, augmentation, random)
        crops.append(cut(part, box, spec.size, spec.resample))
    clip = (torch.cat(crops) if len(crops) > 1 else crops[0]).contiguous()
    if random.random() < augmentation.flip:
        clip = mirrored(clip, spec)
    if spec.values == "flow":
        return clip[:, : spec.channels]
    if augmentation.rotate or augmentation.shift or augmentation.zoom or augmentation.shear:
        clip = _warp(clip, augmentation, random)
    clip = randaugment(
        clip,
        augmentation.randaugment_layers,
        augmentation.randaugment_magnitude,
        random,
        augmentation.randaugment_geometric,
    )
    if random.random() < augmentation.color:
        brightness, saturation, contrast, hue = (
            augmentation.color_strength * most for most in (_BRIGHTNESS, _SATURATION, _CONTRAST, _HUE)
        )
        clip = color.jitter(
            clip,
            brightness=random.uniform(-brightness, brightness),
            saturation=random.uniform(1 - saturation, 1 + saturation),
            contrast=random.uniform(1 - contrast, 1 + contrast),
            hue=random.uniform(-hue, hue),
        )
    if random.random() < augmentation.grayscale:
        clip = color.grayscale(clip)
    return _erased(clip, spec, random) if augmentation.erase and random.random() < augmentation.erase else clip


def mirrored(clip: UInt8[Tensor, "T 3 h w"], spec: RasterSpec) -> UInt8[Tensor, "T 3 h w"]:
    """Left and right exchanged, so that in optical flow what moved right moves left."""
    clip = clip.flip(-1)
    if spec.values == "flow":
        clip[:, 0] = 255 - clip[:, 0]
    return clip


def _warp(clip: UInt8[Tensor, "T 3 h w"], augmentation: Augmentation, random: Random) -> UInt8[Tensor, "T 3 h w"]:
    """Rotation, shift, zoom and shear at once; the border is repeated outwards."""
    frames, _, height, width = clip.shape
    angle = math.radians(random.uniform(-augmentation.rotate, augmentation.rotate))
    slant = math.tan(math.radians(random.uniform(-augmentation.shear, augmentation.shear)))
    scale = random_factor(augmentation.zoom, random)
    y, x = (2 * random.uniform(-augmentation.shift, augmentation.shift) for _ in range(2))
    cos, sin, aspect = math.cos(angle) / scale, math.sin(angle) / scale, width / height
    taken_from = torch.tensor(
        [[cos, sin * aspect], [(cos * slant - sin) / aspect, sin * slant + cos], [x, y]], dtype=torch.float32
    )
    grid = (_places(height, width) @ taken_from).view(1, height, width, 2).expand(frames, -1, -1, -1)
    warped = F.grid_sample(clip.float(), grid, padding_mode="border", align_corners=False)
    return warped.add_(0.5).to(torch.uint8)


@lru_cache(maxsize=8)
def _places(height: int, width: int) -> Float32[Tensor, "hw 3"]:
    """(x, y, 1) of every pixel, row by row, -1 to 1 from edge to edge. F.affine_grid takes longer than the warp."""
    y, x = ((torch.arange(size) * 2 + 1) / size - 1 for size in (height, width))
    return torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones(height * width)], 1)


def _erased(clip: UInt8[Tensor, "T 3 h w"], spec: RasterSpec, random: Random) -> UInt8[Tensor, "T 3 h w"]:
    """A rectangle of the spec's mean, which the model sees as 0, at the same place in every frame."""
    height, width = clip.shape[-2:]
    area, shape = random.uniform(*_ERASED) * height * width, random_factor(_ERASED_SHAPE, random)
    h, w = min(height, round(math.sqrt(area * shape))), min(width, round(math.sqrt(area / shape)))
    top, left = random.randint(0, height - h), random.randint(0, width - w)
    clip = clip.clone()
    clip[..., top : top + h, left : left + w] = torch.tensor([round(255 * m) for m in spec.mean])[:, None, None]
    return clip


def _train_box(picture: tuple[int, int], spec: RasterSpec, augmentation: Augmentation, random: Random) -> Box:
    if augmentation.area != (0, 0):
        return _inception_box(picture, augmentation, random)
    jitter = (1.0, 1.0)
    if random.random() < augmentation.scale_jitter:
        low, high = augmentation.min_scale, augmentation.max_scale
        jitter = random.uniform(low, high), random.uniform(low, high)
    height, width = crop = crop_size(picture, spec, jitter)
    if random.random() >= augmentation.crop:
        return place(picture, crop, 0.5, 0.5)
    return Box(random.randint(0, picture[0] - height), random.randint(0, picture[1] - width), height, width)


def _inception_box(picture: tuple[int, int], augmentation: Augmentation, random: Random) -> Box:
    """A crop of random area, shape and place; the whole picture where none of so many attempts fits.

    As tf.image draws it: the shape first, then the height, uniform over those that give an area within the limits. The
    released code asks for 8 % of the picture, but its library takes no crop of less than 10 %; here the limit counts.
    """
    (smallest, largest), (low, high) = augmentation.area, augmentation.aspect
    pixels = picture[0] * picture[1]
    for _ in range(_ATTEMPTS):
        aspect = random.uniform(low, high)
        least, most = (math.sqrt(share * pixels / aspect) for share in (smallest, largest))
        most = min(most, picture[0], picture[1] / aspect)
        if least > most:
            continue
        rows = random.uniform(least, most)
        height, width = max(1, round(rows)), max(1, round(rows * aspect))
        if height <= picture[0] and width <= picture[1]:
            return Box(random.randint(0, picture[0] - height), random.randint(0, picture[1] - width), height, width)
    return Box(0, 0, *picture)


def view_boxes(picture: tuple[int, int], spec: RasterSpec, crops: int) -> list[Box]:
    """Where the test's crops lie: the center, or several along the longer side, evenly from its start to its end.

    Of a picture that is stretched, each is the whole picture.
    """
    crop = crop_size(picture, spec)
    places = [i / (crops - 1) for i in range(crops)] if crops > 1 else [0.5]
    tall = picture[0] > picture[1]
    return [place(picture, crop, f, 0.5) if tall else place(picture, crop, 0.5, f) for f in places]


def view_crops(frames: UInt8[Tensor, "T 3 H W"], spec: RasterSpec, crops: int) -> UInt8[Tensor, "crops T C h w"]:
    """Every frame in each of the test's crops."""
    boxes = view_boxes((frames.shape[-2], frames.shape[-1]), spec, crops)
    return torch.stack([cut(frames[:, : spec.channels], box, spec.size, spec.resample) for box in boxes])
