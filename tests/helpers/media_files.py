"""Makers of media files for the tests. Every picture carries its number: a test knows which frame it was given."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.subtitles.subtitle import SubtitleSet
from torch import Tensor

BITS = 9
SIZE = (96, 64)  # width, height
SOUND_RATE = 44_100


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3): ``number`` as 3x3 dark and bright tiles in the left two thirds, a moving bar beside them."""
    width, height = size
    bits = np.array([(number >> bit) & 1 for bit in range(BITS)], np.uint8).reshape(3, 3) * 220 + 16
    tile = np.kron(bits, np.ones((height // 3 + 1, width * 2 // 9 + 1), np.uint8))
    image = np.empty((height, width, 3), np.uint8)
    image[:] = (200, 60, 30)
    image[:, : width * 2 // 3] = tile[:height, : width * 2 // 3, None]
    image[number * 3 % height :][:3, width * 2 // 3 :] = (20, 80, 240)
    return image


def numbers(frames: Tensor) -> list[int]:
    """The number that each of ``frames`` (T, 3, H, W) carries."""
    height, width = frames.shape[-2:]
    gray = frames.float().mean(1)
    step_h, step_w = height // 3 + 1, width * 2 // 9 + 1
    rows = [min(row * step_h + step_h // 2, height - 1) for row in range(3)]
    columns = [column * step_w + step_w // 2 for column in range(3)]
    bits = torch.stack([gray[:, r, c] > 128 for r in rows for c in columns], 1)
    return (bits * (1 << torch.arange(BITS))).sum(1).tolist()


def encode(
    path: Path,
    frames: int | Sequence[int] = 60,
    *,
    fps: int = 30,
    pts: Sequence[int] | None = None,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    gop: int = 12,
    options: dict[str, str] | None = None,
    rotation: int = 0,
    bt709: bool = False,
    sound: np.ndarray | None = None,
    sound_start: float = 0.0,
    mux: dict[str, str] | None = None,
) -> Path:
    """A video of numbered pictures with two B-frames between others.

    ``pts`` counts in ``1 / fps``; ``rotation``: degrees counter-clockwise that players turn it by; ``sound``: stereo
    (2, samples) at 44.1 kHz, from ``sound_start`` seconds on; ``options``: the encoder's; ``mux``: the container's.
    """
    shown = range(frames) if isinstance(frames, int) else frames
    if codec == "libx264":
        options = {"preset": "veryfast", "crf": "12", "sc_threshold": "0", **(options or {})}
    with av.open(str(path), "w", options=mux or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        context = stream.codec_context
        context.thread_count, context.time_base, context.gop_size, context.max_b_frames = 1, Fraction(1, fps), gop, 2
        if bt709:
            context.colorspace, context.color_range = 1, 1
        if rotation:
            stream.set_display_rotation(rotation)
        track = None if sound is None else container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        for index, number in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            if bt709:
                frame = frame.reformat(format=pixel_format, dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = (pts[index] if pts else index), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None and sound is not None:
            frame = av.AudioFrame.from_ndarray(sound.astype(np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = SOUND_RATE, round(sound_start * SOUND_RATE)
            frame.time_base = Fraction(1, SOUND_RATE)
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def remux(source: Path, path: Path, *, skip_packets: int = 0, shift: int = 0, decoding_times: bool = False) -> Path:
    """Copy the coded video without its first ``skip_packets`` packets and with all times moved by ``shift`` frames.

    Times below zero become an edit list in MP4, as after ``ffmpeg -ss ... -c copy``. ``decoding_times``: packets carry
    them as presentation times, as careless muxers write.
    """
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        ticks = round(shift / stream.average_rate / stream.time_base)
        packets = [packet for packet in old.demux(stream) if packet.size]
        first = packets[0].dts
        for packet in packets[skip_packets:]:
            packet.pts = (packet.dts - first if decoding_times else packet.pts) + ticks
            packet.dts = packet.pts if decoding_times else packet.dts + ticks
            packet.stream = copy
            new.mux(packet)
    return path


def cut_short(source: Path, path: Path, share: float) -> Path:
    """The first ``share`` of the bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damage(source: Path, path: Path, index: int) -> Path:
    """Overwrite the last two thirds of one coded picture, counted in decoding order."""
    with av.open(str(source)) as container:
        packet = [packet for packet in container.demux(container.streams.video[0]) if packet.size][index]
        start, length = packet.pos + packet.size // 3, packet.size - packet.size // 3
    data = bytearray(source.read_bytes())
    data[start : start + length] = b"\xff" * length
    path.write_bytes(data)
    return path


def record_sound(path: Path, samples: np.ndarray, rate: int = 16_000, codec: str = "pcm_f32le") -> Path:
    """A file of sound, mono (S,) or stereo (2, S); 32-bit WAV keeps the samples exactly."""
    layout = "mono" if samples.ndim == 1 else "stereo"
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.atleast_2d(samples).astype(np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


# The styles without which FFmpeg's encoders of subtitles refuse to begin.
_STYLES = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour
Style: Default,Arial,16,&Hffffff

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def with_captions(source: Path, path: Path, captions: Sequence[tuple[float, float, str]], codec: str) -> Path:
    """Copy the coded tracks beside a track of ``captions``: (start, end, text with ASS's tags)."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        track, tick = new.add_stream(codec), Fraction(1, 1000)
        track.codec_context.subtitle_header = _STYLES
        track.codec_context.time_base = track.time_base = tick
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
        for number, (start, end, text) in enumerate(captions):
            line = f"{number},0,Default,,0,0,0,,{text}".encode()
            shown = SubtitleSet.create(line, 0, round((end - start) * 1000), round(start * 1e6))
            packet = track.codec_context.encode_subtitle(shown)
            packet.pts = packet.dts = round(start * 1000)
            packet.duration, packet.time_base, packet.stream = round((end - start) * 1000), tick, track
            new.mux(packet)
    return path
