"""What a media file holds, found by reading its packets rather than by trusting its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tubelet.media.containers import FFMPEG_ERRORS, WAY_OUT, check_file, open_container, reading
from tubelet.media.errors import MediaError
from tubelet.media.images import ImageInfo, image_info
from tubelet.media.streams import (
    display_size,
    film,
    frame_ticks,
    is_image,
    sound,
    sound_stream,
    stores_no_pts,
    video_stream,
)

Kind = Literal["video", "image", "audio"]

_JPEG_AFTER_JPEG = (".mjpeg", ".mjpg")  # films of which Pillow sees the first frame
_LONGEST = 30 * 86400.0  # seconds


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """The facts of one media file.

    ``duration``: seconds from the first presented frame (time 0) to the end of the last one that the file really
    holds; 0 for an image. ``frames``: presented packets, counted (frames, in every codec that puts one in a packet); of
    an image more than one where it is an animation or has pages. ``fps``: ``frames / duration``, the average.
    ``width``, ``height``: as it is shown, where pixels are not square, and after ``rotation`` (degrees clockwise, one
    of 0, 90, 180, 270) is applied. ``audio_channels``: 0 without an audio track that can be decoded.
    """

    path: str
    kind: Kind
    duration: float
    fps: float
    frames: int
    width: int
    height: int
    rotation: int
    codec: str
    pixel_format: str
    audio_rate: int
    audio_channels: int


def probe(path: str | Path) -> MediaInfo:
    """The facts of a media file. Reads every packet once but decodes a single frame.

    What the file is, its contents say: a picture where Pillow reads it, a video where a stream moves (covers do not),
    else sound. Raises :class:`MediaError` where the file cannot be opened or not one frame of it decoded.
    """
    check_file(path)
    with reading(path):
        image = image_info(path)
    if image is not None and Path(path).suffix.lower() not in _JPEG_AFTER_JPEG:
        return _image(path, image)
    with open_container(path) as container:
        if is_image(container):
            if image is not None:
                return _image(path, image)
            raise MediaError(str(path), None, "a picture of a format that is not read; convert it to JPEG or PNG")
        info = _audio(path, container) if film(container) is None else _video(path, container)
    if not 0 <= info.duration <= _LONGEST:
        reason = f"its times reach {info.duration:.3g} s, which no recording does: they are damaged; {WAY_OUT}"
        raise MediaError(str(path), None, reason)
    return info


def rotation_of(frame: VideoFrame) -> int:
    """Degrees clockwise, in quarter turns, by which a frame must be turned to stand upright."""
    return round(-frame.rotation / 90) % 4 * 90


def _image(path: str | Path, image: ImageInfo) -> MediaInfo:
    return MediaInfo(
        path=str(path), kind="image", duration=0.0, fps=0.0, frames=image.frames, width=image.width,
        height=image.height, rotation=0, codec=image.form, pixel_format=image.mode, audio_rate=0, audio_channels=0,
    )  # fmt: skip


def _video(path: str | Path, container: InputContainer) -> MediaInfo:
    stream, heard = video_stream(container, path), sound(container)
    by_dts, usual = stores_no_pts(container), frame_ticks(stream)
    first: VideoFrame | None = None
    zero: int | None = None  # time 0: the first frame, or a damaged one before it
    starts: list[int] = []
    end = untimed = 0
    try:
        for packet in container.demux(stream):
            start = packet.dts if by_dts else packet.pts
            if first is None:
                first, damaged = _decode_first(packet)
                zero = start if damaged and zero is None else zero
            if start is not None and packet.size and not (packet.is_discard or packet.is_corrupt):
                starts.append(start)
                end = max(end, start + (packet.duration or usual))
            untimed += start is None and packet.size > 0
    except FFMPEG_ERRORS:
        pass  # the readable part is what the file holds; where nothing is, the next lines say so
    if not starts:  # a stream without a container: one frame after the other
        starts, end = [i * usual for i in range(untimed)], untimed * usual
    if first is None or not starts:
        raise MediaError(str(path), None, f"no frame of this video can be decoded; {WAY_OUT}")
    if zero is None:
        zero = min(starts) if by_dts or first.pts is None else first.pts
    frames = sum(start >= zero for start in starts)
    duration = float((end - zero) * (stream.time_base or 0))
    rotation = rotation_of(first)
    width, height = display_size(first, stream)
    if rotation % 180:
        width, height = height, width
    return MediaInfo(
        path=str(path), kind="video", duration=duration, fps=frames / duration if duration else 0.0, frames=frames,
        width=width, height=height, rotation=rotation, codec=stream.codec_context.name, pixel_format=first.format.name,
        audio_rate=heard.rate if heard else 0, audio_channels=heard.channels if heard else 0,
    )  # fmt: skip


def _decode_first(packet: Packet[VideoStream]) -> tuple[VideoFrame | None, bool]:
    """A frame if this packet completes one, and whether the packet is damaged."""
    try:
        return next(iter(packet.decode()), None), False
    except FFMPEG_ERRORS:
        return None, True


def _audio(path: str | Path, container: InputContainer) -> MediaInfo:
    if not container.streams.audio:
        raise MediaError(str(path), None, "holds neither a picture nor sound")
    stream = sound_stream(container, path)
    start, end = None, 0
    try:
        for packet in container.demux(stream):
            if packet.pts is not None and packet.size:
                start = packet.pts if start is None else start
                end = max(end, packet.pts + _signed(packet.duration or 0))
    except FFMPEG_ERRORS:
        pass  # as above
    if start is None:
        raise MediaError(str(path), None, f"no sound of this file can be read; {WAY_OUT}")
    return MediaInfo(
        path=str(path), kind="audio", duration=float((end - start) * (stream.time_base or 0)), fps=0.0, frames=0,
        width=0, height=0, rotation=0, codec=stream.codec_context.name, pixel_format="",
        audio_rate=stream.rate, audio_channels=stream.channels,
    )  # fmt: skip


def _signed(duration: int) -> int:
    """The duration with its sign: FFmpeg gives some Ogg Vorbis packets a negative one as an unsigned number."""
    return duration - 2**32 if duration >= 2**31 else duration
