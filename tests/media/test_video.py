"""Both decoders on every kind of file that people bring."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from av.video.reformatter import VideoReformatter

from media_files import cut_short, damage, encode, numbers, picture, remux
from tubelet.media import torchcodec_decoder
from tubelet.media.errors import MediaError
from tubelet.media.info import probe
from tubelet.media.pyav_decoder import PyAVDecoder
from tubelet.media.torchcodec_decoder import TorchcodecDecoder, torchcodec_problem
from tubelet.media.video import Decoder, open_video

FPS = 30
OPEN_GOP = {"x264-params": "open-gop=1:keyint=15:min-keyint=15:bframes=3:scenecut=0"}
VFR_PTS = [*range(40), *range(40, 100, 3)]  # 30 frames a second, then 10


def _late(folder: Path) -> Path:
    return remux(encode(folder / "early.mp4", 40), folder / "late.mkv", shift=45)


def _cut(folder: Path) -> Path:
    """Frames 20 to 59: the keyframe 12 and what follows it are in the file, hidden by the edit list."""
    return remux(encode(folder / "uncut.mp4", 60), folder / "cut.mp4", skip_packets=12, shift=-20)


def _decoding_times(folder: Path) -> Path:
    return remux(encode(folder / "times.mp4", 40, gop=40), folder / "decoding_times.mp4", decoding_times=True)


def _transport_tail(folder: Path) -> Path:
    """A recording that starts in the middle: nothing before the keyframe 12 can be shown."""
    return remux(encode(folder / "whole.ts", 60), folder / "tail.ts", skip_packets=5)


# name -> (maker, the number of every presented frame, seconds at which each comes on screen)
Case = tuple[Callable[[Path], Path], list[int], list[float]]
REGULAR = [i / FPS for i in range(60)]
CASES: dict[str, Case] = {
    "mp4": (lambda d: encode(d / "plain.mp4", 60), list(range(60)), REGULAR),
    "one frame": (lambda d: encode(d / "one.mp4", 1), [0], [0.0]),
    "variable rate": (lambda d: encode(d / "vfr.mp4", 60, pts=VFR_PTS), list(range(60)), [i / FPS for i in VFR_PTS]),
    "edit list": (_cut, list(range(20, 60)), REGULAR[:40]),
    "late start": (_late, list(range(40)), REGULAR[:40]),
    "odd size": (lambda d: encode(d / "odd.mp4", 9, size=(97, 65), pixel_format="yuv444p"), [*range(9)], REGULAR[:9]),
    "10 bit": (lambda d: encode(d / "ten.mp4", 20, pixel_format="yuv420p10le"), list(range(20)), REGULAR[:20]),
    "bt709": (lambda d: encode(d / "bt709.mp4", 20, bt709=True), list(range(20)), REGULAR[:20]),
    "open gop": (lambda d: encode(d / "open.mp4", 60, options=OPEN_GOP), list(range(60)), REGULAR),
    "millisecond ticks": (lambda d: encode(d / "ticks.mkv", 60), list(range(60)), REGULAR),
    "webm": (lambda d: encode(d / "vp8.webm", 30, codec="libvpx"), list(range(30)), REGULAR[:30]),
    "avi": (lambda d: encode(d / "mpeg4.avi", 40, codec="mpeg4"), list(range(40)), REGULAR[:40]),
    "falling pts": (_decoding_times, list(range(40)), REGULAR[:40]),
    "transport stream": (lambda d: encode(d / "stream.ts", 60), list(range(60)), REGULAR),
    "transport stream from the middle": (_transport_tail, list(range(12, 60)), REGULAR[:48]),
    "program stream": (lambda d: encode(d / "ps.mpg", 60, codec="mpeg2video"), list(range(60)), REGULAR),
    "gif": (lambda d: encode(d / "x.gif", 9, fps=10, codec="gif", pixel_format="rgb8"), [*range(9)], REGULAR[:27:3]),
}  # fmt: skip


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest, media: Path) -> tuple[Path, list[int], list[float]]:
    make, shown, times = CASES[request.param]
    return make(media), shown, times


@pytest.fixture(scope="module")
def plain(media: Path) -> Path:
    return encode(media / "plain_60.mp4", 60)


def test_each_time_gives_the_frame_on_screen(case: tuple[Path, list[int], list[float]], decoder: str) -> None:
    path, shown, times = case
    with open_video(path, decoder) as video:
        batch = video.frames_at(times)
        assert numbers(batch.frames) == shown
        assert batch.pts.tolist() == pytest.approx(times, abs=2e-3)
        assert numbers(video.frames_at([time + 0.012 for time in times]).frames) == shown
        assert numbers(video.frames_at([time - 0.004 for time in times[1:]] or [0.0]).frames) == (shown[:-1] or shown)


def test_a_single_time_needs_no_history(case: tuple[Path, list[int], list[float]], decoder: str) -> None:
    path, shown, times = case
    with open_video(path, decoder) as walked:
        walked.frames_at(times)
        for index in random.Random(0).sample(range(len(times)), min(6, len(times))):
            with open_video(path, decoder) as fresh:
                assert numbers(fresh.frames_at([times[index] + 0.012]).frames) == [shown[index]]
            assert numbers(walked.frames_at([times[index] + 0.012]).frames) == [shown[index]]


def test_the_probed_duration_is_the_end(case: tuple[Path, list[int], list[float]], decoder: str) -> None:
    path, shown, times = case
    info = probe(path)
    assert info.frames >= len(shown)  # a stream from the middle also holds packets that nothing can show
    assert info.duration > times[-1]
    with open_video(path, decoder) as video:
        assert video.probe() == info
        assert numbers(video.frames_at([info.duration - 2e-3]).frames) == [shown[-1]]
        for past in (info.duration + 2e-3, info.duration + 100):
            with pytest.raises(MediaError) as caught:
                video.frames_at([0.0, past])
            assert caught.value.time == past
            assert caught.value.path == str(path)


@pytest.mark.parametrize("before", [1e-3, 2e-5, 1e-6])
def test_the_last_frame_is_on_screen_until_the_very_end(
    case: tuple[Path, list[int], list[float]], decoder: str, before: float
) -> None:
    """A clip that is drawn at random may end there."""
    path, shown, _ = case
    with open_video(path, decoder=decoder) as video:
        batch = video.frames_at([probe(path).duration - before])
    assert numbers(batch.frames) == shown[-1:]


def test_decoders_agree_to_the_bit(case: tuple[Path, list[int], list[float]]) -> None:
    if torchcodec_problem():
        pytest.skip("torchcodec does not load")
    path, _, times = case
    with open_video(path, "pyav") as one, open_video(path, "torchcodec") as other:
        a, b = one.frames_at(times), other.frames_at(times)
    difference = (a.frames.int() - b.frames.int()).abs()
    if probe(path).pixel_format.endswith("10le"):  # versions of FFmpeg spread the color of 10 bit pictures differently
        assert difference.float().mean() < 1
    else:
        assert difference.max() <= 1
    assert torch.allclose(a.pts, b.pts, atol=1e-6)


def test_torchcodec_itself_decodes_ordinary_files(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torchcodec_problem():
        pytest.skip("torchcodec does not load")
    monkeypatch.delattr(PyAVDecoder, "frames_at")
    with open_video(plain, "torchcodec") as video:
        assert numbers(video.frames_at([1.0, 0.5]).frames) == [30, 15]


def test_any_order_and_repeats(plain: Path, decoder: str) -> None:
    wanted = [1.9, 0.1, 0.1, 1.0, 0.0, 1.9]
    with open_video(plain, decoder) as video:
        assert numbers(video.frames_at(wanted).frames) == [57, 3, 3, 30, 0, 57]


@pytest.mark.parametrize(("stored", "clockwise"), [(90, 270), (180, 180), (-90, 90)])
def test_rotation_is_applied(media: Path, decoder: str, stored: int, clockwise: int) -> None:
    path = encode(media / f"turned_{stored}.mp4", 3, rotation=stored)
    with open_video(path, decoder) as video:
        frames = video.frames_at([0.0, 0.05]).frames
        info = video.probe()
    upright = torch.from_numpy(picture(1)).permute(2, 0, 1)
    expected = torch.rot90(upright, -clockwise // 90, (1, 2))
    assert frames.shape[1:] == expected.shape == (3, info.height, info.width)
    assert info.rotation == clockwise
    assert (frames[1].float() - expected.float()).abs().mean() < 12


@pytest.mark.parametrize("time", [-0.1, float("nan"), float("inf")])
def test_times_that_no_video_has(plain: Path, decoder: str, time: float) -> None:
    with open_video(plain, decoder) as video, pytest.raises(MediaError):
        video.frames_at([0.0, time])


def test_cut_short_with_the_index_at_the_end(plain: Path, media: Path, decoder: str) -> None:
    path = cut_short(plain, media / "no_index.mp4", 0.6)
    with pytest.raises(MediaError, match=r"index.*cut short.*again"):
        open_video(path, decoder)


def test_cut_short_with_the_index_at_the_front(media: Path, decoder: str) -> None:
    whole = encode(media / "faststart.mp4", 60, mux={"movflags": "faststart"})
    path = cut_short(whole, media / "faststart_cut.mp4", 0.6)
    duration = probe(path).duration
    readable = round(duration * FPS)
    assert 15 < readable < 45
    with open_video(whole) as complete, open_video(path, decoder) as video:
        times = [i / FPS for i in range(readable - 3)]
        assert torch.equal(video.frames_at(times).frames, complete.frames_at(times).frames)
        for time in (duration + 0.2, 1.9):
            with pytest.raises(MediaError) as caught:
                video.frames_at([time])
            assert caught.value.time == time
            assert ".cpp" not in str(caught.value)


def test_damage_spoils_its_own_group_of_pictures_only(plain: Path, media: Path, decoder: str) -> None:
    path = damage(plain, media / "damaged.mp4", 26)  # decoded after the keyframe 24
    with open_video(plain) as complete, open_video(path, decoder) as video:
        for time in (0.0, 0.5, 23 / FPS, 36 / FPS, 1.9):
            assert torch.equal(video.frames_at([time]).frames, complete.frames_at([time]).frames)


def test_no_frame_is_silently_wrong(plain: Path, media: Path) -> None:
    """FFmpeg conceals damage: either the frame is the true one, or it is an error with its time."""
    with open_video(plain) as complete:
        truth = complete.frames_at([i / FPS for i in range(60)]).frames
    for index in range(0, 60, 7):
        failed = 0
        with open_video(damage(plain, media / f"damaged_{index}.mp4", index)) as video:
            for i in range(60):
                frame = _frame_or_error(video, i / FPS)
                if isinstance(frame, MediaError):
                    failed += frame.time == i / FPS
                else:
                    assert torch.equal(frame, truth[i])
        assert 1 <= failed <= 12  # at most its group of pictures


def test_files_that_are_no_videos(plain: Path, media: Path, decoder: str) -> None:
    from PIL import Image

    empty, text, still, fifo = media / "empty.mp4", media / "text.mp4", media / "still.png", media / "pipe.mp4"
    for path in (empty, text, still, fifo):
        path.unlink(missing_ok=True)
    empty.touch()
    text.write_text("no video\n" * 1000)
    Image.new("RGB", (32, 32)).save(still)
    os.mkfifo(fifo)
    reasons = {
        empty: "empty",
        text: "not a media file",
        still: "still image.*read_image",
        fifo: "not a file",
        media: "not a file",
        media / "missing.mp4": "no such file",
    }
    for path, reason in reasons.items():
        with pytest.raises(MediaError, match=reason) as caught:
            open_video(path, decoder)
        assert caught.value.path == str(path)
        assert caught.value.time is None


def test_sorted_times_convert_each_frame_once(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = []
    monkeypatch.setattr("tubelet.media.pyav_decoder.VideoReformatter", lambda: _Counting(converted))
    with open_video(plain) as video:
        video.frames_at([0.0, 0.001, 0.5, 0.5, 0.51, 1.5])
    assert len(converted) == 3


def test_a_distant_time_is_reached_by_a_seek(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(media / "long.mp4", 300, gop=10)
    decoded = []
    place = PyAVDecoder._placed
    monkeypatch.setattr(PyAVDecoder, "_placed", lambda *a: decoded.append(1) or place(*a))
    with open_video(path) as video:
        assert numbers(video.frames_at([0.1, 5.0, 9.9]).frames) == [3, 150, 297]
    assert len(decoded) < 60


def test_threads_give_the_same_frames(plain: Path, decoder: str) -> None:
    times = [0.0, 0.7, 1.9]
    with open_video(plain, decoder, threads=2) as two, open_video(plain, decoder) as one:
        assert torch.equal(two.frames_at(times).frames, one.frames_at(times).frames)


def test_a_torchcodec_that_does_not_load_is_explained(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("Could not load libtorchcodec.\nA long story")

    monkeypatch.setattr(torchcodec_decoder, "_torchcodec", fail)
    torchcodec_problem.cache_clear()
    try:
        assert "Could not load libtorchcodec." in str(torchcodec_problem())
        with pytest.raises(MediaError, match=r"FFmpeg.*decoder=\"pyav\""):
            TorchcodecDecoder(plain)
        with open_video(plain) as video:
            assert numbers(video.frames_at([0.5]).frames) == [15]
    finally:
        torchcodec_problem.cache_clear()


def test_memory_stays_level(media: Path, decoder: str) -> None:
    path = encode(media / "soak.mp4", 20, size=(320, 240), sound=torch.zeros(2, 30_000).numpy())

    def decode(clips: int) -> int:
        for _ in range(clips):
            with open_video(path, decoder) as video:
                video.frames_at([0.0, 0.3, 0.6])
                video.audio(0.0, 0.5, 16_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = decode(30)
    assert decode(150) - before < 20_000  # KiB; the decoded clips are 100 MiB


def _frame_or_error(video: Decoder, time: float) -> torch.Tensor | MediaError:
    try:
        return video.frames_at([time]).frames[0]
    except MediaError as error:
        return error


class _Counting:
    def __init__(self, calls: list[int]) -> None:
        self.calls, self.reformatter = calls, VideoReformatter()

    def reformat(self, *args: object, **options: object) -> object:
        self.calls.append(1)
        return self.reformatter.reformat(*args, **options)  # type: ignore[arg-type]
