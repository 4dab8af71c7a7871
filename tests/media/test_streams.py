"""What a file is, whatever its name: which stream is the film, which the sound, what is only a cover."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition

from media_files import encode, numbers, picture, record_sound
from tubelet.media.audio import read_audio
from tubelet.media.errors import MediaError, NoTrackError
from tubelet.media.info import probe
from tubelet.media.video import open_video

RATE = 16_000
SECONDS = 3.0
PIXELS = {"mjpeg": "yuvj420p", "png": "rgb24", "gif": "rgb8"}
FILM = ("libx264", 20, (96, 64))
THUMBNAILS = ("mjpeg", 4, (48, 32))


def cover(codec: str, **options: Any) -> tuple[Any, ...]:
    return codec, 1, (96, 64), options


def mux(path: Path, streams: Sequence[Any], form: str | None = None) -> Path:
    """Streams in this order: a name is a codec of 3 s of sound, else codec, number of frames, size and disposition."""
    with av.open(str(path), "w", format=form) as container:
        made = [_added(container, stream) for stream in streams]
        for stream, wanted in zip(made, streams, strict=True):
            if isinstance(wanted, str):
                wave = np.sin(np.arange(round(SECONDS * RATE)) / 5).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
                container.mux(stream.encode(frame))
            else:
                for number in range(wanted[1]):
                    drawn = av.VideoFrame.from_ndarray(picture(number, wanted[2]), format="rgb24")
                    frame = drawn.reformat(format=stream.pix_fmt)
                    frame.pts, frame.time_base = number, Fraction(1, 10)
                    container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def _added(container: Any, wanted: Any) -> Any:
    if isinstance(wanted, str):
        return container.add_stream(wanted, rate=RATE, layout="mono")
    codec, _, (width, height), *options = wanted
    stream = container.add_stream(codec, rate=10)
    stream.width, stream.height, stream.pix_fmt = width, height, PIXELS.get(codec, "yuv420p")
    for name, value in (options[0] if options else {}).items():
        setattr(stream, name, value)
    return stream


SONGS: dict[str, tuple[list[Any], str | None]] = {
    "after.m4a": (["aac", cover("mjpeg")], "mp4"),
    "before.m4a": ([cover("mjpeg"), "aac"], "mp4"),
    "png.mov": (["aac", cover("png")], None),
    "plain.mka": (["aac", cover("mjpeg")], "matroska"),
    "plain.avi": ([cover("mjpeg"), "pcm_s16le"], None),
    "marked.mp3": (["libmp3lame", cover("mjpeg", disposition=Disposition.attached_pic)], None),
    "marked.flac": (["flac", cover("png", disposition=Disposition.attached_pic)], None),
    "still.mp4": ([cover("libx264"), "aac"], None),
}


@pytest.mark.parametrize("name", SONGS)
def test_a_cover_makes_no_film_of_a_song(tmp_path: Path, name: str) -> None:
    path = mux(tmp_path / name, *SONGS[name])
    info = probe(path)
    assert (info.kind, info.duration) == ("audio", pytest.approx(SECONDS, abs=0.2))
    assert read_audio(path, 0.0, SECONDS, RATE)[-RATE // 2 :].abs().max() > 0.5
    with pytest.raises(NoTrackError, match="no video track"):
        open_video(path)


FILMS: dict[str, list[Any]] = {
    "mjpeg.avi": [("mjpeg", 20, (96, 64)), "pcm_s16le"],
    "mjpeg.mov": ["aac", ("mjpeg", 20, (96, 64))],
    "mjpeg.mkv": [("mjpeg", 20, (96, 64)), "aac"],
    "png.mov": [("png", 20, (96, 64))],
    "cover_first.mp4": [cover("mjpeg"), FILM, "aac"],
    "thumbnails_first.mp4": [THUMBNAILS, FILM],
    "fragments.mp4": [FILM, "aac"],
}


@pytest.mark.parametrize("name", FILMS)
def test_the_film_is_what_moves(tmp_path: Path, name: str) -> None:
    path = mux(tmp_path / name, FILMS[name])
    info = probe(path)
    assert (info.kind, info.frames, info.width, info.height) == ("video", 20, 96, 64)
    with open_video(path) as video:
        assert numbers(video.frames_at([0.0, 0.5, 1.9]).frames) == [0, 5, 19]


def test_one_frame_without_sound_is_a_short_film(tmp_path: Path) -> None:
    assert probe(mux(tmp_path / "one.mov", [cover("mjpeg")])).kind == "video"


def test_sound_that_outlasts_the_pictures_makes_no_song_of_a_film(tmp_path: Path) -> None:
    info = probe(mux(tmp_path / "short.mp4", [("libx264", 5, (96, 64)), "aac"]))
    assert (info.kind, info.duration, info.audio_rate) == ("video", pytest.approx(0.5), RATE)


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [
        ("x.mpg", "mpeg2video", "mpeg2video"),
        ("x.m2v", "mpeg2video", "mpeg2video"),
        ("x.h264", "libx264", "h264"),
        ("x.mjpeg", "mjpeg", "mjpeg"),
    ],
)
def test_a_stream_without_a_container_is_a_film(tmp_path: Path, name: str, codec: str, form: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, PIXELS.get(codec, "yuv420p")
        for number in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    info = probe(path)
    assert (info.kind, info.frames, info.duration) == ("video", 25, pytest.approx(1.0, abs=0.05))
    with open_video(path) as video:
        assert numbers(video.frames_at([0.0, 0.5]).frames) == [0, 12]


@pytest.mark.parametrize(
    "name",
    [
        "12:30.mp4", "frame%03d.mp4", "pipe:0", "concat:a|b.mp4", "http:x.mp4", "-vf.mp4", "two\nlines.mp4",
        " a b .mp4", os.fsdecode(b"latin\xe9.mp4"), "film.jpg",
    ],
)  # fmt: skip
def test_a_name_is_only_a_name(tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shutil.copy(encode(media / "named.mp4", 5), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert probe(name).frames == 5
    with open_video(name) as video:
        assert numbers(video.frames_at([0.1]).frames) == [3]


@pytest.mark.parametrize("list_", ["ffconcat version 1.0\nfile other.mp4\n", "#EXTM3U\n#EXTINF:1,\nother.ts\n"])
def test_no_file_opens_another(tmp_path: Path, list_: str) -> None:
    encode(tmp_path / "other.mp4", 3)
    encode(tmp_path / "other.ts", 3)
    for name in ("list.mp4", "list.ffconcat", "list.m3u8"):
        (tmp_path / name).write_text(list_)
        for read in (probe, open_video, lambda path: read_audio(path, 0.0, 1.0, RATE)):
            with pytest.raises(MediaError, match="not a media file"):
                read(tmp_path / name)


def test_sound_in_an_unknown_codec_costs_a_film_its_sound_and_no_more(tmp_path: Path) -> None:
    path = mux(tmp_path / "odd.mov", [FILM, "pcm_s16le"])
    path.write_bytes(path.read_bytes().replace(b"sowt", b"zzzz"))
    info = probe(path)
    assert (info.kind, info.frames, info.audio_channels) == ("video", 20, 0)
    with pytest.raises(MediaError, match="no decoder"):
        read_audio(path, 0.0, 1.0, RATE)


@pytest.mark.parametrize(("field", "value", "why"), [(20, 0x7777, "no decoder"), (24, 2**31 - 1, "samples a second")])
def test_a_header_that_makes_no_sense_is_an_error_of_the_file(tmp_path: Path, field: int, value: int, why: str) -> None:
    path = record_sound(tmp_path / "odd.wav", np.zeros(RATE), codec="pcm_s16le")
    data, size = bytearray(path.read_bytes()), 2 if field == 20 else 4
    at = data.index(b"fmt ") + field - 12
    data[at : at + size] = value.to_bytes(size, "little")
    path.write_bytes(data)
    for read in (probe, lambda path: read_audio(path, 0.0, 0.5, RATE)):
        with pytest.raises(MediaError, match=why) as caught:
            read(path)
        assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("aspect", "width"), [((16, 9), 171), ((8, 9), 85), ((1, 2), 48), ((1281, 1280), 96), ((1, 200), 96)]
)
def test_frames_have_the_shape_in_which_they_are_shown(
    tmp_path: Path, decoder: str, aspect: tuple[int, int], width: int
) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    info = probe(path)
    assert (info.width, info.height) == (width, 64)
    with open_video(path, decoder) as video:
        frames = video.frames_at([0.0, 0.2]).frames
        assert video.size == tuple(frames.shape[2:]) == (64, width)
    assert numbers(frames) == [0, 2]
    assert frames.dtype == torch.uint8
