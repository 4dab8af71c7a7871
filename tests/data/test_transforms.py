"""Where clips are cut, and that all frames of one share every draw."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tubelet.data import transforms
from tubelet.data.augment import Augmentation
from tubelet.data.dataset import ViewSet
from tubelet.data.geometry import Box, crop_size, cut, pixels_needed, place
from tubelet.data.manifest import Record
from tubelet.data.transforms import train_clip, view_boxes, view_crops
from tubelet.data.views import Views
from tubelet.inference.kinds import fitting_views
from tubelet.specs import ImageSpec, VideoSpec

SIDES = st.integers(8, 700)


def picture(frames: int = 2, height: int = 48, width: int = 72) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    small = torch.randint(0, 256, (1, 3, height // 6, width // 6), generator=generator).float()
    return F.interpolate(small, (height, width), mode="bilinear").byte().expand(frames, -1, -1, -1)


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(color=1, grayscale=0),
        Augmentation(color=0, grayscale=1, scale_jitter=0),
        Augmentation(color=0, grayscale=0, rotate=30, shift=0.2, zoom=0.3, shear=20, erase=1),
        *(Augmentation(randaugment_layers=2, randaugment_magnitude=m, color=0, grayscale=0) for m in (5, 15, 20)),
    ],
    ids=str,
)
def test_identical_frames_stay_identical(augmentation):
    spec = VideoSpec(frames=3, size=(20, 24), short_side=28)
    for seed in range(25):
        clip = train_clip(picture(3), spec, augmentation, Random(seed))
        assert clip.shape == (3, 3, 20, 24)
        assert torch.equal(clip[1:], clip[:1].expand(2, -1, -1, -1))


def test_nothing_on_is_the_center_crop_of_the_test():
    frames, spec = picture(3, 50, 75), VideoSpec(frames=3, size=(20, 20), short_side=25)
    clip = train_clip(frames, spec, Augmentation.none(), Random(0))
    assert torch.equal(clip, view_crops(frames, spec, 1)[0])


def test_draws_depend_on_the_random_numbers_alone():
    spec = VideoSpec(frames=2, size=(20, 20), short_side=25)
    once, again, other = (train_clip(picture(), spec, Augmentation(), Random(seed)) for seed in (3, 3, 4))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_flip_and_grayscale_come_as_often_as_said():
    spec = VideoSpec(frames=1, size=(12, 12), short_side=12)
    frames = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    frames[:, 0, :, :6] = 200
    wish = Augmentation(scale_jitter=0, crop=0, flip=0.5, color=0, grayscale=0.25)
    clips = [train_clip(frames, spec, wish, Random(seed)) for seed in range(400)]
    assert sum(bool(clip[0, 0, 0, 0] == 0) for clip in clips) == pytest.approx(200, abs=45)
    assert sum(bool(clip[0, 2].any()) for clip in clips) == pytest.approx(100, abs=40)


def test_jittered_crops_cover_the_whole_picture_and_both_scales():
    """Of a picture whose pixels say where they are."""
    ramp = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    ramp[:, 0], ramp[:, 1] = torch.arange(64).view(-1, 1), torch.arange(96)
    spec = VideoSpec(frames=1, size=(40, 40), short_side=64)
    wish = Augmentation(flip=0, color=0, grayscale=0)
    clips = [train_clip(ramp, spec, wish, Random(seed))[0] for seed in range(300)]
    tops, lefts = [int(clip[0, 0, 0]) for clip in clips], [int(clip[1, 0, 0]) for clip in clips]
    heights = [int(clip[0, -1, 0]) - int(clip[0, 0, 0]) for clip in clips]
    assert min(tops) <= 1
    assert max(int(clip[0, -1, 0]) for clip in clips) >= 62
    assert min(lefts) <= 1
    assert max(int(clip[1, 0, -1]) for clip in clips) >= 94
    assert min(heights) == pytest.approx(40 / 1.33, abs=2)
    assert max(heights) == pytest.approx(40 / 0.9, abs=2)


def test_ten_crops_cover_the_longer_side_evenly():
    """TubeViT's Table 7f: 10x10 views."""
    spec = VideoSpec(frames=1, size=(40, 40), short_side=40)
    assert [box.left for box in view_boxes((40, 130), spec, 10)] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert {box.top for box in view_boxes((130, 40), spec, 3)} == {0, 45, 90}
    assert (str(Views.parse("10x10")), len(Views.parse("10x10"))) == ("10x10", 100)


PLAIN = Augmentation.none()


def warps(frames: torch.Tensor, count: int = 40, **amounts) -> list[torch.Tensor]:
    spec = VideoSpec(frames=len(frames), size=tuple(frames.shape[-2:]), short_side=min(frames.shape[-2:]))
    return [train_clip(frames, spec, replace(PLAIN, **amounts), Random(seed)) for seed in range(count)]


def blob(height: int, width: int, y: float, x: float) -> torch.Tensor:
    """A bright spot, whose place and spread are measured."""
    rows, columns = torch.arange(height)[:, None] - y, torch.arange(width) - x
    return (255 * torch.exp(-(rows**2 + columns**2) / 8)).byte().expand(1, 3, -1, -1)


def center(clip: torch.Tensor) -> tuple[float, float]:
    weights = clip[0, 0].double()
    rows, columns = torch.arange(weights.shape[0])[:, None], torch.arange(weights.shape[1])
    return float((weights * rows).sum() / weights.sum()), float((weights * columns).sum() / weights.sum())


def test_a_warp_of_nothing_changes_nothing():
    frames = picture(2, 48, 72)
    for clip in warps(frames, rotate=1e-9):
        assert torch.equal(clip, frames)


def test_shifts_reach_their_share_of_either_side():
    found = [center(clip) for clip in warps(blob(40, 60, 19.5, 29.5), 200, shift=0.1)]
    for side, values in ((40, [y for y, _ in found]), (60, [x for _, x in found])):
        assert min(values) == pytest.approx(side / 2 - 0.5 - side / 10, abs=0.5)
        assert max(values) == pytest.approx(side / 2 - 0.5 + side / 10, abs=0.5)


def test_rotation_keeps_distances_in_pictures_that_are_not_square():
    found = [center(clip) for clip in warps(blob(60, 80, 29.5, 54.5), 200, rotate=30)]
    for y, x in found:
        assert math.hypot(y - 29.5, x - 39.5) == pytest.approx(15, abs=0.3)
    angles = [math.degrees(math.atan2(y - 29.5, x - 39.5)) for y, x in found]
    assert min(angles) == pytest.approx(-30, abs=2)
    assert max(angles) == pytest.approx(30, abs=2)


def test_zoom_is_larger_as_often_as_smaller():
    spreads = [(center(clip)[1] - 29.5) / 15 for clip in warps(blob(60, 60, 29.5, 44.5), 200, zoom=0.5)]
    assert min(spreads) == pytest.approx(1 / 1.5, abs=0.03)
    assert max(spreads) == pytest.approx(1.5, abs=0.06)
    assert sum(spread > 1 for spread in spreads) == pytest.approx(100, abs=25)


def test_shear_moves_the_top_against_the_bottom():
    shifts = [center(clip)[1] - 29.5 for clip in warps(blob(60, 60, 9.5, 29.5), 200, shear=20)]
    assert max(shifts) == pytest.approx(20 * math.tan(math.radians(20)), abs=0.7)
    assert min(shifts) == pytest.approx(-max(shifts), abs=0.7)


def test_what_a_warp_pulls_in_repeats_the_border():
    gray = torch.full((1, 3, 20, 20), 77, dtype=torch.uint8)
    for clip in warps(gray, rotate=180, shift=0.5, zoom=1.0, shear=45):
        assert torch.equal(clip, gray)


def test_a_rectangle_is_erased_to_the_mean():
    white = torch.full((2, 3, 30, 50), 255, dtype=torch.uint8)
    for clip in warps(white, 100, erase=1):
        rows, columns = (clip[0, 0] != 255).nonzero(as_tuple=True)
        assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert 0.015 < len(rows) / 1500 < 0.22
        assert set(clip.unique().tolist()) == {128, 255}
    assert white.min() == 255
    assert sum(clip.min() < 255 for clip in warps(white, 200, erase=0.25)) == pytest.approx(50, abs=20)


def test_gentler_colors():
    frames = (
        torch.zeros(1, 3, 16, 16, dtype=torch.uint8) + torch.tensor([200, 100, 60], dtype=torch.uint8)[:, None, None]
    )

    def farthest(strength: float) -> int:
        clips = warps(frames, 60, color=1, color_strength=strength)
        return max(int((clip.int() - frames.int()).abs().max()) for clip in clips)

    assert farthest(0) <= 2
    assert 10 < farthest(0.25) < 60 < farthest(1)


@given(SIDES, SIDES, st.integers(4, 300), st.integers(4, 300), st.floats(0.5, 2), st.floats(0.5, 2))
def test_a_crop_always_lies_in_the_picture(height, width, h, w, jitter_h, jitter_w):
    spec = ImageSpec(size=(h, w), short_side=min(h, w) + 7)
    crop = crop_size((height, width), spec, (jitter_h, jitter_w))
    assert 1 <= crop[0] <= height
    assert 1 <= crop[1] <= width
    for f in (0.0, 0.5, 1.0):
        box = place((height, width), crop, f, 1 - f)
        assert 0 <= box.top <= height - crop[0]
        assert 0 <= box.left <= width - crop[1]


@given(st.integers(40, 300), st.integers(40, 300))
def test_the_crop_is_what_the_released_order_of_steps_sees(height, width):
    """The short side brought to 32, then 24 x 24 cut from the center: the same part of the picture, to a pixel."""
    scale = 32 / min(height, width)
    crop = crop_size((height, width), ImageSpec(size=(24, 24), short_side=32))
    assert crop[0] == pytest.approx(24 / scale, abs=1)
    assert crop[1] == pytest.approx(24 / scale, abs=1)


def test_three_crops_reach_the_ends_of_the_longer_side():
    spec = VideoSpec(size=(224, 224), short_side=256)
    assert view_boxes((256, 455), spec, 3) == [Box(16, 0, 224, 224), Box(16, 116, 224, 224), Box(16, 231, 224, 224)]
    assert view_boxes((455, 256), spec, 3) == [Box(0, 16, 224, 224), Box(116, 16, 224, 224), Box(231, 16, 224, 224)]
    assert view_boxes((256, 455), spec, 1) == [Box(16, 116, 224, 224)]


def test_a_stretched_picture_is_seen_whole_in_training_and_test():
    ramp = torch.zeros(1, 3, 40, 400, dtype=torch.uint8)
    ramp[:, 0], ramp[:, 1] = torch.arange(40).view(-1, 1) * 6, torch.arange(400) // 2
    spec = VideoSpec(frames=1, size=(20, 20), fit="stretch")
    for clip in (train_clip(ramp, spec, Augmentation.none(), Random(0)), *view_crops(ramp, spec, 3)):
        assert clip[0, 0, :, 0].tolist() == pytest.approx([12 * i + 3 for i in range(20)], abs=4)
        assert clip[0, 1, 0].tolist() == pytest.approx([10 * i + 4 for i in range(20)], abs=4)
    parts = [train_clip(ramp, spec, Augmentation(flip=0, color=0, grayscale=0), Random(seed)) for seed in range(20)]
    assert min(int(part[0, 1, 0, -1]) - int(part[0, 1, 0, 0]) for part in parts) < 170


def test_what_is_stretched_and_then_cropped_is_the_middle():
    spec = ImageSpec(size=(20, 20), short_side=25, fit="stretch_crop")
    assert crop_size((100, 50), spec) == (80, 40)
    assert view_boxes((100, 50), spec, 1) == [Box(10, 5, 80, 40)]
    with pytest.raises(ValueError, match="must be at least the larger side"):
        ImageSpec(size=(20, 30), short_side=25, fit="stretch_crop")


def test_stretched_pictures_need_no_short_side_and_have_no_crops():
    assert pixels_needed(ImageSpec(size=(300, 500), fit="stretch")) == 500
    assert pixels_needed(ImageSpec(size=(100, 200), short_side=150)) == 200
    specs = {"image": ImageSpec(fit="stretch")}
    with pytest.raises(ValueError, match=r"1x3 views have 3 crops, but the model sees pictures whole .* give 1x1"):
        ViewSet([Record("a.png")], None, specs, Views(1, 3))
    assert fitting_views("4x3", specs) == Views()
    assert fitting_views("4x3", {"video": VideoSpec(fit="stretch")}) == Views(4)
    assert fitting_views("4x3", {"video": VideoSpec()}) == Views(4, 3)


def test_cutting_resizes_only_what_it_needs_to():
    frames = picture(2, 48, 72)
    exact = cut(frames, Box(3, 5, 20, 24), (20, 24))
    assert torch.equal(exact, frames[..., 3:23, 5:29])
    whole = cut(frames, Box(0, 0, 48, 72), (24, 36))
    assert (whole.float() - F.avg_pool2d(frames.float(), 2)).abs().max() < 16
    chequered = (torch.arange(48).view(-1, 1) + torch.arange(48)).remainder(2).mul(255).byte().expand(1, 3, 48, 48)
    assert cut(chequered, Box(0, 0, 48, 48), (16, 16)).float().std() < 30, "shrinking must not alias"


def test_images_are_clips_of_one_frame():
    assert train_clip(picture(1), ImageSpec(size=(16, 16), short_side=20), Augmentation(), Random(0)).shape == (
        1,
        3,
        16,
        16,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"zoom": -1.0},
        {"shift": 2.0},
        {"rotate": -5.0},
        {"erase": 1.1},
        {"color_strength": 3.0},
        {"speed": -0.1},
        {"flip": 1.5},
        {"color": -0.1},
        {"min_scale": 0},
        {"min_scale": 2},
        {"randaugment_magnitude": 40},
    ],
    ids=str,
)
def test_impossible_augmentations_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_views():
    assert str(Views(4, 3)) == "4x3"
    assert len(Views(4, 3)) == 12
    with pytest.raises(ValueError, match="at least 1 crop"):
        Views(1, 0)
    with pytest.raises(ValueError, match="clip"):
        Views(0, 1)


def test_the_inception_crop_has_area_shape_and_place_within_limits(monkeypatch):
    augment = replace(Augmentation.none(), area=(0.1, 0.5), aspect=(0.5, 2.0))
    boxes: list[Box] = []
    monkeypatch.setattr(transforms, "cut", lambda frames, box, *how: boxes.append(box) or cut(frames, box, *how))
    spec, frames = VideoSpec(frames=2, size=(20, 24), short_side=28), picture(2, 240, 300)
    for seed in range(300):
        clip = train_clip(frames, spec, augment, Random(seed))
        assert clip.shape == (2, 3, 20, 24)
        assert torch.equal(clip[0], clip[1])
    shares = [box.height * box.width / (240 * 300) for box in boxes]
    shapes = [box.width / box.height for box in boxes]
    assert 0.09 < min(shares) < 0.13
    assert 0.45 < max(shares) < 0.52
    assert 0.48 < min(shapes) < 0.6
    assert 1.7 < max(shapes) < 2.05
    assert all(0 <= box.top <= 240 - box.height and 0 <= box.left <= 300 - box.width for box in boxes)
    assert len({box.top for box in boxes}) > 80
    assert len({box.left for box in boxes}) > 80


def test_an_inception_crop_that_fits_nowhere_is_the_whole_picture():
    spec, frames = VideoSpec(frames=1, size=(8, 40), short_side=8), picture(1, 12, 480)
    clip = train_clip(frames, spec, replace(Augmentation.none(), area=(0.9, 1.0), aspect=(0.5, 2.0)), Random(0))
    assert torch.equal(clip, cut(frames, Box(0, 0, 12, 480), (8, 40)))
    with pytest.raises(ValueError, match="must be two shares in order"):
        Augmentation(area=(0.5, 0.2))
    with pytest.raises(ValueError, match="must be two positive numbers in order"):
        Augmentation(area=(0.5, 1.0), aspect=(2.0, 1.0))


def test_pictures_are_decoded_as_large_as_the_smallest_crop_wants():
    assert Augmentation(area=(0.25, 1.0)).enlarges == 2
    assert Augmentation().enlarges == 1.33
    assert Augmentation.none().enlarges == 1
