"""Training clips and test views from real files: the right frames, the same whatever is cached, errors as values."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from media_files import encode, numbers
from tubelet.data import cache, readers
from tubelet.data.augment import Augmentation
from tubelet.data.cache import VideoReader
from tubelet.data.dataset import TrainSet, ViewSet
from tubelet.data.labels import ClassLabels
from tubelet.data.manifest import Record
from tubelet.data.views import Views
from tubelet.media.errors import MediaError
from tubelet.media.images import read_image
from tubelet.media.video import open_video
from tubelet.specs import ImageSpec, VideoSpec

FPS, FRAMES = 30, 90
WHOLE = (64, 96)  # height and width of the files: crops of this size show the frame's number
SPEC = VideoSpec(frames=8, stride=3, size=WHOLE, short_side=64)
LABELS = ClassLabels(("a", "b"))


@pytest.fixture(scope="module")
def video(media: Path) -> str:
    return str(encode(media / "numbered.mp4", FRAMES, fps=FPS))


def train_set(video: str, spec: VideoSpec = SPEC, augment: Augmentation = Augmentation.none(), **record) -> TrainSet:
    return TrainSet([Record(video, {"label": ("a",)}, **record)], LABELS, {"video": spec}, augment, seed=5)


def seen(data: TrainSet, passes: int) -> list[list[int]]:
    """The frame numbers of an example in its first passes."""
    return [numbers(data.example(0, pass_).inputs["video"]) for pass_ in range(passes)]


def test_clips_have_the_stride_and_start_anywhere(video):
    clips = seen(train_set(video), 40)
    for clip in clips:
        assert [b - a for a, b in itertools.pairwise(clip)] == [3] * 7
    starts = {clip[0] for clip in clips}
    assert min(starts) <= 6
    assert max(starts) in range(60, FRAMES - 21)
    assert len(starts) > 20


def test_clips_at_a_rate_of_their_own(video):
    clips = seen(train_set(video, VideoSpec(frames=6, stride=1, fps=6.0, size=WHOLE, short_side=64)), 10)
    for clip in clips:
        assert all(b - a in (4, 5, 6) for a, b in itertools.pairwise(clip))


def test_a_segment_keeps_to_its_part(video):
    clips = seen(train_set(video, start=1.0, end=2.0), 30)
    assert all(30 <= frame < 60 for clip in clips for frame in clip)
    assert len({clip[0] for clip in clips}) > 3


def test_a_short_part_is_repeated(video):
    for clip in seen(train_set(video, start=1.0, end=1.4), 10):
        assert clip[:4] == [30, 33, 36, 39]
        assert clip[4:] == clip[:4]


def test_another_speed_and_still_inside_the_video(video, monkeypatch):
    plain, faster = train_set(video), train_set(video, augment=replace(Augmentation.none(), speed=0.5))
    steps = set[float]()
    for pass_ in range(60):
        times = faster.times(0, pass_, "video")
        steps.add(round((times[-1] - times[0]) / 7 * FPS, 2))
        assert list(times) == sorted(times)
    assert min(steps) == pytest.approx(2, abs=0.2)
    assert max(steps) == pytest.approx(4.5, abs=0.3)
    assert min(len(seen(data, 1)[0]) for data in (plain, faster)) == 8
    asked: list[str] = []
    monkeypatch.setattr(cache, "open_video", lambda path: asked.append(path) or open_video(path))
    kept = TrainSet(faster.records, LABELS, faster.specs, faster.augment, seed=5, cache_gib=1.0)
    assert seen(kept, 30) == seen(faster, 30)
    assert len(asked) == 1 + 30
    tight = train_set(video, augment=replace(Augmentation.none(), speed=0.5), end=0.85)
    for pass_ in range(30):
        times = tight.times(0, pass_, "video")
        assert list(times) == sorted(times)


def test_kept_pictures_are_the_same_pictures(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    records = [Record(str(tmp_path / f"{i}.png")) for i in range(4)]
    for i, record in enumerate(records):
        Image.fromarray(pixels // (i + 1)).save(record.path)
    specs, everything = {"image": ImageSpec(size=(60, 80), short_side=60)}, {"erase": 1.0, "rotate": 5.0}
    reads: list[str] = []
    monkeypatch.setattr(cache, "read_image", lambda path, side: reads.append(path) or read_image(path, side))
    for augment in (Augmentation.none(), replace(Augmentation.none(), **everything), Augmentation()):
        anew, kept, half = (
            TrainSet(records, None, specs, augment, cache_gib=gib) for gib in (0.0, 1.0, 2.5 * pixels.nbytes / 2**30)
        )
        for pass_, i in itertools.product(range(3), range(4)):
            first = anew.example(i, pass_).inputs["image"]
            assert torch.equal(first, kept.example(i, pass_).inputs["image"])
            assert torch.equal(first, half.example(i, pass_).inputs["image"])
    assert len(reads) == 3 * (12 + 4 + 2 + 3 * 2)


def test_an_example_depends_on_seed_task_and_pass(video):
    def clip(pass_: int = 0, **options) -> torch.Tensor:
        data = TrainSet([Record(video)], None, {"video": SPEC}, Augmentation(), **{"seed": 1, "task": "t"} | options)
        return data.example(0, pass_).inputs["video"]

    assert torch.equal(clip(), clip())
    for other in (clip(1), clip(seed=2), clip(task="u")):
        assert not torch.equal(clip(), other)


def test_times_are_those_of_the_example(video):
    data = train_set(video)
    for pass_ in range(5):
        assert [int(time * FPS + 1e-6) for time in data.times(0, pass_, "video")] == seen(data, 5)[pass_]


@pytest.mark.parametrize("gib", [1.0, 64 * 96 * 3 * 40 / 2**30], ids=["all fits", "not all fits"])
def test_the_cache_changes_nothing_and_spares_decoding(video, gib, monkeypatch):
    records = [Record(video), Record(video, start=0.3, end=1.1)]

    def examples(cache_gib: float) -> list[torch.Tensor]:
        data = TrainSet(records, None, {"video": SPEC}, Augmentation(), cache_gib=cache_gib)
        return [data.example(i % 2, i).inputs["video"] for i in range(30)]

    plain = examples(0.0)
    decoded: list[str] = []
    open_video = cache.open_video
    monkeypatch.setattr(cache, "open_video", lambda path: decoded.append(path) or open_video(path))
    assert all(torch.equal(a, b) for a, b in zip(plain, examples(gib), strict=True))
    assert len(decoded) < 12 if gib == 1.0 else len(decoded) == 30


def test_a_full_cache_takes_no_more_than_its_room(video):
    reader = VideoReader(64 * 96 * 3 * 200 / 2**30)
    for path in (video, video.replace("numbered", "./numbered"), video.replace("numbered", ".//numbered")):
        list(reader.batches(path, [0.5], FRAMES / FPS, FPS))
    assert reader.room >= 0
    assert len(reader._videos) == 2


def test_a_video_that_ends_early_is_read_whole_once_and_its_wanted_frames_are_kept(video, monkeypatch):
    opened: list[str] = []
    open_video = cache.open_video
    monkeypatch.setattr(cache, "open_video", lambda path: opened.append(path) or open_video(path))
    reader = VideoReader(1.0)
    first, again = (torch.cat([*reader.batches(video, [0.5, 1.0], FRAMES / FPS + 2, FPS)]) for _ in range(2))
    assert torch.equal(first, again)
    assert len(opened) == 1


def test_views_are_spread_and_decoded_once(video, monkeypatch):
    opened: list[str] = []
    open_video = readers.open_video
    monkeypatch.setattr(readers, "open_video", lambda path: opened.append(path) or open_video(path))
    views = ViewSet([Record(video, key="k")], None, {"video": SPEC}, Views(4, 1)).example(0)
    assert len(opened) == 1
    assert views.inputs["video"].shape == (4, 8, 3, *WHOLE)
    starts = [numbers(clip)[0] for clip in views.inputs["video"]]
    assert starts == [0, 22, 44, 66]  # linspace(0, 90 - 8 * 3, 4), as the released code
    assert views.key == "k"
    one = ViewSet([Record(video)], None, {"video": SPEC}).example(0)
    assert numbers(one.inputs["video"][0])[0] == 33


def test_views_of_a_segment_and_of_crops(video):
    spec = VideoSpec(frames=2, stride=3, size=(64, 64), short_side=64)
    views = ViewSet([Record(video, start=1.0, end=2.0)], None, {"video": spec}, Views(2, 3)).example(0).inputs["video"]
    assert views.shape == (6, 2, 3, 64, 64)
    left, center, right = views[0], views[1], views[2]
    assert not torch.equal(left, center)
    assert torch.equal(left[..., 16:], center[..., :48])  # 96 pixels wide: crops at 0, 16 and 32
    assert torch.equal(right[..., :48], center[..., 16:])


def test_identical_times_of_overlapping_views(video):
    """A video shorter than a clip: all clips are the same, and complete."""
    views = ViewSet([Record(video, end=0.4)], None, {"video": SPEC}, Views(3, 1)).example(0).inputs["video"]
    assert [numbers(clip) for clip in views] == [[0, 3, 6, 9] * 2] * 3


def test_unreadable_files_come_as_values(video, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    records = [Record(str(tmp_path / "broken.mp4")), Record(video, start=50.0), Record(video, duration=9.0, fps=30.0)]
    train, test = TrainSet(records, None, {"video": SPEC}), ViewSet(records, None, {"video": SPEC}, Views(4, 1))
    for index in range(3):
        assert isinstance(test.example(index), MediaError)
    assert isinstance(train.example(0, 0), MediaError)
    assert "mend start" in train.example(1, 0).reason


def test_what_an_index_found_broken_is_left_out_of_training_alone(video):
    records = [Record(video), Record(video, error="broken", key="b")]
    assert len(TrainSet(records, None, {"video": SPEC})) == 1
    assert len(ViewSet(records, None, {"video": SPEC})) == 2


@pytest.fixture
def image(tmp_path: Path) -> str:
    picture = Image.new("RGB", (60, 40), (10, 200, 30))
    picture.paste((200, 0, 0), (0, 0, 30, 40))
    picture.save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def test_images(image):
    spec = ImageSpec(size=(20, 20), short_side=20)
    example = TrainSet([Record(image, {"label": ("b",)})], LABELS, {"image": spec}, Augmentation()).example(0, 0)
    assert example.inputs["image"].shape == (3, 20, 20)
    assert int(example.target) == 1
    views = ViewSet([Record(image)], None, {"image": spec}, Views(1, 3)).example(0).inputs["image"]
    assert views.shape == (3, 3, 20, 20)
    assert views[0, 0].float().mean() > views[2, 0].float().mean() + 80


def test_other_kinds_of_files_are_refused(video, image):
    image_spec = ImageSpec(size=(20, 20), short_side=20)
    with pytest.raises(ValueError, match=r"'image' is an image, which .*numbered\.mp4 is not"):
        TrainSet([Record(video)], None, {"image": image_spec})
    with pytest.raises(ValueError, match="'video' is a video"):
        ViewSet([Record(image)], None, {"video": SPEC})
    with pytest.raises(ValueError, match="4x3 views have 4 clips"):
        ViewSet([Record(image)], None, {"image": image_spec}, Views(4, 3))
    with pytest.raises(ValueError, match="no examples"):
        TrainSet([Record(video, error="broken")], None, {"video": SPEC})


def test_targets(video):
    def target(labels, classes, several=False):
        return ViewSet([Record(video, labels)], ClassLabels(classes, several), {"video": SPEC}).example(0).target

    assert target({"label": ("b",)}, ("a", "b")).tolist() == 1
    assert ViewSet([Record(video)], None, {"video": SPEC}).example(0).target is None
    assert target({"label": ("c", "a")}, ("a", "b", "c"), several=True).tolist() == [1, 0, 1]
    both = target({"verb": ("cut",), "noun": ("pan",)}, {"verb": ("cut", "wash"), "noun": ("leek", "pan")})
    assert {name: int(value) for name, value in both.items()} == {"verb": 0, "noun": 1}
    assert target({"verb": ("wash",)}, {"verb": ("cut", "wash")}).tolist() == 1
    with pytest.raises(ValueError, match="'x' is none of the 2 classes"):
        target({"label": ("x",)}, ("a", "b"))
    with pytest.raises(ValueError, match="2 labels of 'label' where one is needed"):
        target({"label": ("a", "b")}, ("a", "b"))
