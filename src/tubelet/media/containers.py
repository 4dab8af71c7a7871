"""Opening a media file with PyAV: the checks, messages and clock that probing and decoding share."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from tubelet.media.errors import MediaError, NoTrackError

WAY_OUT = "copy or download it again, or leave it out (`tubelet data check` lists such files)"
FFMPEG_ERRORS = (FFmpegError, OSError)


@contextmanager
def open_container(path: str | Path) -> Generator[InputContainer]:
    """The file's container, closed at the end. Raises :class:`MediaError` where there is no readable media file."""
    container = open_input(path)
    try:
        yield container
    finally:
        container.close()


def open_input(path: str | Path) -> InputContainer:
    """Like :func:`open_container`, but the caller closes the container."""
    check_file(path)
    try:
        return av.open(os.path.abspath(path), metadata_errors="replace")
    except FFMPEG_ERRORS as error:
        raise MediaError(str(path), None, _why_unopened(Path(path), error)) from error


def check_file(path: str | Path) -> None:
    """Raises :class:`MediaError` unless ``path`` is a regular file with something in it."""
    file = Path(path)
    if not file.exists():
        raise MediaError(str(path), None, "no such file; relative paths start at the working directory")
    if not file.is_file():
        raise MediaError(str(path), None, "not a file; give a media file")
    if file.stat().st_size == 0:
        raise MediaError(str(path), None, f"the file is empty; {WAY_OUT}")


def video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """The video stream of a container. Raises :class:`MediaError` for a still image or a file that has only sound."""
    if is_image(container):
        raise MediaError(str(path), None, "a still image, not a video; read it with tubelet.media.images.read_image")
    stream = moving_picture(container)
    if stream is None:
        raise NoTrackError(str(path), None, "there is no video track in this file, only sound or data")
    require_codec(stream, path)
    return stream


def require_codec(stream: Stream, path: str | Path) -> None:
    if not stream.codec_context:  # PyAV leaves it empty where FFmpeg lacks the codec
        reason = f"PyAV's FFmpeg has no decoder for this {stream.type} track; convert it to H.264 and AAC"
        raise MediaError(str(path), None, reason)


def is_image(container: InputContainer) -> bool:
    names = container.format.name.split(",")
    return any(name == "image2" or name.endswith("_pipe") for name in names)


def moving_picture(container: InputContainer) -> VideoStream | None:
    """The first video stream that is not a cover picture."""
    moving = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    return next(moving, None)


def stores_no_pts(container: InputContainer) -> bool:
    """AVI counts chunks in decoding order: the presentation times FFmpeg gives its B-frames are guesses."""
    return container.format.name == "avi"


def frame_ticks(stream: VideoStream) -> int:
    """The usual duration of one frame in ticks of the stream's time base: for frames whose own duration is unknown."""
    rate = stream.average_rate or stream.guessed_rate
    return max(1, round(1 / (rate * stream.time_base))) if rate and stream.time_base else 1


def describe(error: BaseException) -> str:
    """FFmpeg's message, without error numbers and paths."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


def _why_unopened(file: Path, error: BaseException) -> str:
    try:
        with file.open("rb") as stream:
            head = stream.read(12)
    except OSError as failed:
        return f"cannot be opened: {describe(failed)}; check its permissions"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return (
            "the MP4 index (moov box) is missing or damaged, as when a recording or a download was cut short; "
            + WAY_OUT
        )
    return f"not a media file that FFmpeg can read ({describe(error)}); {WAY_OUT}"
