"""Files for a stress test: small ones of many formats, damaged ones made of them, and single large ones."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from random import Random

import av
import numpy as np
from PIL import Image

FPS, RATE = 10, 16_000
Size = tuple[int, int]


def small_files(folder: Path) -> list[Path]:
    """One small file of each format: a second of video and sound, a picture."""
    films = {
        "a.mp4": ("libx264", "aac"), "b.mov": ("mpeg4", "pcm_s16le"), "c.mkv": ("libx264", "libmp3lame"),
        "d.webm": ("libvpx", "libopus"), "e.avi": ("mjpeg", "pcm_s16le"), "f.ts": ("mpeg2video", "mp2"),
        "g.gif": ("gif", ""),
    }  # fmt: skip
    sounds = {
        "h.wav": "pcm_s16le", "i.ogg": "libopus", "j.flac": "flac", "k.m4a": "aac", "l.mp3": "libmp3lame",
    }  # fmt: skip
    for name, (codec, sound) in films.items():
        write_film(folder / name, moving((64, 48), 10), codec, sound)
    for name, codec in sounds.items():
        write_film(folder / name, iter(()), "", codec)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    for name in ("m.jpg", "n.png", "o.webp", "p.tiff"):
        picture.save(folder / name)
    return sorted(path for path in folder.iterdir() if path.is_file())


def moving(size: Size, frames: int) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) of colors that move over a ramp."""
    width, height = size
    ramp = np.add.outer(np.arange(height), np.arange(width))
    for i in range(frames):
        yield np.stack([ramp * 3 + 9 * i, ramp * 2, ramp + 40 * i], -1).astype(np.uint8)


def write_film(
    path: Path, frames: Iterator[np.ndarray], codec: str, sound: str = "", options: dict[str, str] | None = None
) -> None:
    """A file of ``frames``, and of a second of ``sound``; either codec may be empty."""
    formats = {"libx264": "yuv420p", "mjpeg": "yuvj420p", "gif": "rgb8", "huffyuv": "rgb24"}
    with av.open(str(path), "w") as container:
        first = next(frames, None)
        picture = heard = None
        if codec and first is not None:
            picture = container.add_stream(codec, rate=FPS, options=options or {})
            picture.height, picture.width, picture.pix_fmt = *first.shape[:2], formats.get(codec, "yuv420p")
        if sound:
            heard = container.add_stream(sound, rate=48_000 if sound == "libopus" else RATE, layout="mono")
        while picture is not None and first is not None:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(first, "rgb24")))
            first = next(frames, None)
        if heard is not None:
            tone = np.sin(np.arange(heard.rate) * 0.1).astype(np.float32)[None]
            planar = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            planar.sample_rate = heard.rate
            container.mux(heard.encode(planar))
        for stream in (picture, heard):
            container.mux(stream.encode(None) if stream is not None else [])


def damaged(originals: list[Path], number: int, seed: int, folder: Path) -> Path:
    """Damaged file ``number`` of a seed: one of ``originals`` after one to three kinds of damage."""
    random = Random(f"{seed}/{number}")
    source = originals[number % len(originals)]
    data = bytearray(source.read_bytes())
    for damage in random.choices(_DAMAGES, k=random.choice((1, 1, 2, 3))):
        damage(data, random)
    path = folder / f"{number}{source.suffix}"
    path.write_bytes(data)
    return path


def _flip(data: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 4, 16, 64))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(1, len(data)) :]


def _zero(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    length = min(random.randrange(1, 512), len(data) - at)
    data[at : at + length] = bytes(length)


def _swap(data: bytearray, random: Random) -> None:
    length = min(random.randrange(1, 512), len(data) // 2)
    a, b = sorted(random.randrange(len(data) - length + 1) for _ in range(2))
    if b - a >= length:
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]


def _header(data: bytearray, random: Random) -> None:
    for _ in range(random.randrange(1, 16)):
        data[random.randrange(min(256, len(data)))] = random.randrange(256)


def _number(data: bytearray, random: Random) -> None:
    """A field of four bytes becomes the largest, the smallest or an odd number."""
    at = random.randrange(min(1024, len(data)))
    field = random.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\0\0\x40\0"))
    data[at : at + 4] = field[: len(data) - at]


def _repeat(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at:at] = data[at : at + random.randrange(1, 512)]


_DAMAGES: tuple[Callable[[bytearray, Random], None], ...] = (_flip, _cut, _zero, _swap, _header, _number, _repeat)


def _eight_k(path: Path) -> None:
    """64 frames of 8K in a few megabytes."""
    still = list(moving((7680, 4320), 2))
    write_film(path, islice(cycle(still), 64), "libx264", "", {"preset": "ultrafast", "g": "64"})


def _huffyuv(path: Path) -> None:
    """16 frames of 4096 x 4096 pixels, each coded alone and without loss."""
    write_film(path, iter([np.full((4096, 4096, 3), 90, np.uint8)] * 16), "huffyuv")


def _two_hours(path: Path) -> None:
    """Two hours at 25 frames a second of 64 x 64 pixels: ten seconds, coded once and written again and again."""
    ten = path.with_suffix(".ten.mp4")
    write_film(ten, moving((64, 64), 250), "mpeg4", "", {"g": "250"})
    with av.open(str(ten)) as short, av.open(str(path), "w") as long:
        stream = long.add_stream_from_template(short.streams.video[0])
        packets = [(bytes(packet), packet.is_keyframe) for packet in short.demux(video=0) if packet.size]
        for number, (coded, key) in enumerate(islice(cycle(packets), 2 * 3600 * 25)):
            packet = av.Packet(coded)
            packet.pts = packet.dts = number
            packet.duration, packet.time_base, packet.stream = 1, Fraction(1, 25), stream
            packet.is_keyframe = key
            long.mux(packet)
    ten.unlink()


def _three_hours(path: Path) -> None:
    """Three hours of noise at 16 kHz."""
    minute = (np.random.default_rng(0).standard_normal(60 * RATE) * 3000).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        for _ in range(180):
            file.writeframesraw(minute)


def _picture(side: int, path: Path) -> None:
    Image.fromarray(np.tile(np.arange(side, dtype=np.uint8)[:, None, None], (1, side, 3))).save(path)


LARGE: dict[str, Callable[[Path], None]] = {  # what makes each large file
    "64 frames of 8K.mp4": _eight_k,
    "4096x4096 huffyuv.avi": _huffyuv,
    "177 megapixels.png": partial(_picture, 13_300),
    "200 megapixels.jpg": partial(_picture, 14_150),
    "2 hours at 64x64.mp4": _two_hours,
    "3 hours.wav": _three_hours,
}
