"""Color jitter and RandAugment against kornia and Pillow, operation by operation."""

from __future__ import annotations

import math
from random import Random

import kornia
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from tubelet.data import color, randaugment


def noise(frames: int = 2, height: int = 36, width: int = 44) -> Tensor:
    """Every kind of color, grays and extremes among them."""
    clip = torch.randint(0, 256, (frames, 3, height, width), generator=torch.Generator().manual_seed(1)).byte()
    clip[..., :4, :] = clip[:, :1, :4, :]
    clip[..., 4, :] = 0
    clip[..., 5, :] = 255
    clip[:, 1:, 6, :] = 0
    return clip


def worst(result: Tensor, oracle: Tensor) -> float:
    assert result.dtype == torch.uint8
    assert result.shape == oracle.shape
    return float((result.float() - oracle.float()).abs().max())


def test_brightness():
    for levels in (-32, -0.4, 0, 7, 32):
        oracle = kornia.enhance.adjust_brightness(noise() / 255, levels / 255) * 255
        assert worst(color.jitter(noise(), brightness=levels), oracle) < 0.51


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.2, 1.4, 2.0])
def test_saturation(factor):
    oracle = kornia.enhance.adjust_saturation(noise() / 255, factor) * 255
    assert worst(color.jitter(noise(), saturation=factor), oracle) < 2


@pytest.mark.parametrize("turn", [0.0, 0.04, -0.04, 1 / 12, 0.1, -0.1, 0.2, -0.2, 1 / 3, 0.5, -0.7])
def test_hue(turn):
    oracle = kornia.enhance.adjust_hue(noise() / 255, turn * 2 * math.pi) * 255
    assert worst(color.jitter(noise(), hue=turn), oracle) < 2


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_contrast(factor):
    clip = noise().repeat_interleave(4, -1).repeat_interleave(4, -2)  # so that every fourth pixel is every color
    mean = clip.float().mean((0, 2, 3), keepdim=True)
    oracle = (mean + factor * (clip - mean)).clamp(0, 255)
    assert worst(color.jitter(clip, contrast=factor), oracle) < 2


def test_the_steps_come_in_order():
    clip = noise()
    together = color.jitter(clip, brightness=20, saturation=1.3, contrast=0.7, hue=0.15)
    for step in ({"brightness": 20}, {"saturation": 1.3}, {"contrast": 0.7}, {"hue": 0.15}):
        clip = color.jitter(clip, **step)
    assert torch.equal(together, clip)


def test_no_jitter_changes_nothing():
    assert torch.equal(color.jitter(noise()), noise())


def test_grayscale():
    assert (
        worst(color.grayscale(noise()), kornia.color.rgb_to_grayscale(noise() / 255).expand(-1, 3, -1, -1) * 255) < 0.6
    )


def pillow(clip: Tensor, operation) -> Tensor:
    """What Pillow makes of the one frame of ``clip``."""
    image = operation(Image.fromarray(clip[0].permute(1, 2, 0).numpy()))
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]


def uneven() -> Tensor:
    """One frame whose channels have different, narrow histograms."""
    scale, shift = torch.tensor([0.4, 0.7, 0.2]).view(3, 1, 1), torch.tensor([20, 50, 160]).view(3, 1, 1)
    return (noise(1) * scale + shift).byte()


@pytest.mark.parametrize("clip", [noise(1), uneven()], ids=["noise", "uneven"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (randaugment.auto_contrast, ImageOps.autocontrast),
        (randaugment.equalize, ImageOps.equalize),
        (randaugment.invert, ImageOps.invert),
        (lambda x: randaugment.posterize(x, 3), lambda x: ImageOps.posterize(x, 3)),
        (lambda x: randaugment.solarize(x, 100), lambda x: ImageOps.solarize(x, 100)),
        (lambda x: randaugment.color(x, 1.9), lambda x: ImageEnhance.Color(x).enhance(1.9)),
        (lambda x: randaugment.contrast(x, 1.9), lambda x: ImageEnhance.Contrast(x).enhance(1.9)),
        (lambda x: randaugment.contrast(x, 0.4), lambda x: ImageEnhance.Contrast(x).enhance(0.4)),
        (lambda x: randaugment.brightness(x, 1.9), lambda x: ImageEnhance.Brightness(x).enhance(1.9)),
        (lambda x: randaugment.sharpness(x, 1.9), lambda x: ImageEnhance.Sharpness(x).enhance(1.9)),
        (lambda x: randaugment.sharpness(x, 0.1), lambda x: ImageEnhance.Sharpness(x).enhance(0.1)),
    ],
)
def test_randaugment_operations_are_pillows(ours, theirs, clip):
    assert worst(ours(clip), pillow(clip, theirs)) <= 1


def affine(*matrix: float):
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=(128, 128, 128))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda x: randaugment.rotate(x, 30), lambda x: x.rotate(30, fillcolor=(128, 128, 128))),
        (lambda x: randaugment.rotate(x, -17), lambda x: x.rotate(-17, fillcolor=(128, 128, 128))),
        (lambda x: randaugment.shear_x(x, 0.3), affine(1, 0.3, 0, 0, 1, 0)),
        (lambda x: randaugment.shear_y(x, -0.3), affine(1, 0, 0, -0.3, 1, 0)),
        (lambda x: randaugment.translate_x(x, 12), affine(1, 0, 12, 0, 1, 0)),
        (lambda x: randaugment.translate_y(x, -7), affine(1, 0, 0, 0, 1, -7)),
    ],
)
def test_geometric_operations_are_pillows_on_every_frame(ours, theirs):
    clip = noise(2)
    assert torch.equal(ours(clip), torch.cat([pillow(frame[None], theirs) for frame in clip]))


def test_geometric_operations_go_either_way_and_only_where_they_are_wanted():
    clip = noise(1)
    right, left = (randaugment.GEOMETRIC[3](clip, 2.0, (draw, 0.0)) for draw in (0.9, 0.1))
    assert torch.equal(right[..., 20:], clip[..., :-20])
    assert torch.equal(left[..., :-20], clip[..., 20:])
    without, with_ = (
        {randaugment.randaugment(clip, 1, 2.0, Random(seed), wanted).numpy().tobytes() for seed in range(200)}
        for wanted in (False, True)
    )
    moved = {op(clip, 2.0, (draw, 0.0)).numpy().tobytes() for op in randaugment.GEOMETRIC for draw in (0.1, 0.9)}
    assert not moved & without
    assert moved <= with_


def test_auto_contrast_and_equalize_leave_one_color_alone():
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(randaugment.auto_contrast(flat), flat)
    assert torch.equal(randaugment.equalize(flat), flat)


def test_operations_without_an_oracle():
    clip = noise()
    raised = randaugment.solarize_add(clip, 50)
    assert torch.equal(raised, torch.where(clip < 128, clip.int() + 50, clip.int()).byte())
    cut = randaugment.cutout(clip, 5, (0.5, 0.0))
    changed = (cut != clip).any(0).any(0)
    assert changed[13:23, :5].float().mean() > 0.9
    assert not changed[:13].any()
    assert not changed[23:].any()
    assert not changed[:, 5:].any()
    assert (cut[..., 13:23, :5] == 128).all()


@pytest.mark.parametrize("operation", randaugment.OPERATIONS)
@pytest.mark.parametrize("magnitude", [0.0, 10.0, 20.0, 30.0])
def test_one_color_becomes_one_color_in_all_frames(operation, magnitude):
    """Statistics are those of the clip: were they a frame's, the bright and the dark frame would be treated apart."""
    dark, bright = noise(1) // 4, noise(1)
    dark[..., 20, 20] = bright[..., 20, 20] = torch.tensor([40, 60, 50], dtype=torch.uint8)
    if operation is not randaugment.OPERATIONS[8]:  # sharpness looks at neighbors
        both = operation(torch.cat([dark, bright]), magnitude, (0.1, 0.1))
        assert torch.equal(both[0, :, 20, 20], both[1, :, 20, 20])


def test_randaugment_draws_every_operation_and_none():
    clip = noise(1)
    results = [randaugment.randaugment(clip, 1, 9.0, Random(seed)) for seed in range(150)]
    unchanged = sum(torch.equal(result, clip) for result in results)
    assert 2 <= unchanged <= 40
    assert len({result.numpy().tobytes() for result in results}) >= 11
    assert torch.equal(randaugment.randaugment(clip, 0, 9.0, Random(0)), clip)
