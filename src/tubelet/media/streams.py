"""The one rule for what is in a file: which of its streams is the film, which the sound, and how pictures are shown.

Everything that reads media asks here; names and suffixes have no say.
"""

from __future__ import annotations

from pathlib import Path

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tubelet.media.containers import decoder_options, demuxing, open_input
from tubelet.media.errors import MediaError, NoTrackError
from tubelet.media.limits import check_pixels

_COVERS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_PICTURE_CODECS = (
    "apng", "bmp", "gif", "jpeg2000", "jpegls", "jpegxl", "libjxl", "libopenjpeg", "mjpeg", "pam", "pbm", "pgm", "png",
    "ppm", "psd", "qoi", "targa", "tiff", "webp",
)  # fmt: skip
_PICTURE_BRANDS = ("avif", "heic", "heim", "heis", "heix", "mif1")
_HIGHEST_RATE = 1_000_000  # samples per second
_SQUARE = 0.01  # pixels that are wider or higher by less are square: scaling a picture often leaves such remainders
_LONGEST_PIXEL = 10.0  # times its other side; what is said beyond is no shape


def film(container: InputContainer) -> VideoStream | None:
    """The main video stream: one that moves, not a cover or a thumbnail; None where there is only sound.

    Of several, the one in a video codec, that can be decoded, that is marked as the default, the largest, the first. A
    single frame is a film only where there is no sound that it could be the cover of.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & _COVERS]
    alone = not container.streams.audio
    if len(streams) == 1 and alone:
        return streams[0]
    moving = [stream for stream in streams if _moves(container, stream)]
    return max(moving or (streams if alone else []), key=_rank, default=None)


def sound(container: InputContainer) -> AudioStream | None:
    """The main sound track that can be decoded: the one marked as the default, else the first."""
    heard = [stream for stream in container.streams.audio if _problem(stream) is None]
    return max(heard, key=lambda stream: bool(stream.disposition & Disposition.default), default=None)


def video_stream(container: InputContainer, path: str | Path, threads: int = 1) -> VideoStream:
    """The film of a container, ready to be decoded. Raises :class:`MediaError` for a still image, a file that has only
    sound, and for pictures that are too large or in an unknown codec."""
    if is_image(container):
        raise MediaError(str(path), None, "a still image, not a video; read it with tubelet.media.images.read_image")
    stream = film(container)
    if stream is None:
        raise NoTrackError(str(path), None, "there is no video track in this file, only sound or data")
    if not stream.codec_context:  # PyAV leaves it empty where FFmpeg lacks the codec
        raise MediaError(str(path), None, "PyAV's FFmpeg has no decoder for this video track; convert it to H.264")
    check_pixels(path, stream.codec_context.width, stream.codec_context.height)
    stream.codec_context.options = decoder_options()
    stream.codec_context.thread_count = threads
    return stream


def sound_stream(container: InputContainer, path: str | Path) -> AudioStream:
    """The sound of a container. Raises :class:`NoTrackError` where it has none, :class:`MediaError` where it has none
    that can be decoded."""
    stream = sound(container)
    if stream is not None:
        return stream
    problems = [_problem(stream) for stream in container.streams.audio]
    if not problems:
        raise NoTrackError(str(path), None, "there is no audio track in this file; use a model or task without sound")
    raise MediaError(str(path), None, f"the sound cannot be decoded: {problems[0]}; convert it to AAC")


def is_image(container: InputContainer) -> bool:
    if container.metadata.get("major_brand", "") in _PICTURE_BRANDS:
        return True
    return container.format.name.endswith("_pipe")


def display_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """(width, height) at which a frame is shown, before it is turned upright: its pixels may not be square."""
    shape = float(stream.sample_aspect_ratio or 1)
    if abs(shape - 1) < _SQUARE or not 1 / _LONGEST_PIXEL <= shape <= _LONGEST_PIXEL:
        return frame.width, frame.height
    return max(1, round(frame.width * shape)), frame.height


def stores_no_pts(container: InputContainer) -> bool:
    """AVI counts chunks in decoding order: the presentation times FFmpeg gives its B-frames are guesses."""
    return container.format.name == "avi"


def frame_ticks(stream: VideoStream) -> int:
    """The usual duration of one frame in ticks of the stream's time base: for frames whose own duration is unknown."""
    rate = stream.average_rate or stream.guessed_rate
    return max(1, round(1 / (rate * stream.time_base))) if rate and stream.time_base else 1


def _moves(container: InputContainer, stream: VideoStream) -> bool:
    """Whether a stream has more than one frame, without reading on wherever the file's index tells."""
    if len(stream.index_entries) > 1:
        return True
    if stream.frames == 1:
        return False
    if not _is_picture_codec(stream) and not container.format.name.startswith("mov"):
        return True
    path = container.name.removeprefix("file:")
    with open_input(path) as other:
        same = next(one for one in other.streams.video if one.index == stream.index)
        with demuxing(other, same) as packets:
            full = (packet for packet in packets if packet.size)
            return next(full, None) is not None and next(full, None) is not None


def _rank(stream: VideoStream) -> tuple[bool, bool, bool, int]:
    context = stream.codec_context
    pixels = context.width * context.height if context else 0
    return not _is_picture_codec(stream), bool(context), bool(stream.disposition & Disposition.default), pixels


def _is_picture_codec(stream: Stream) -> bool:
    return bool(stream.codec_context) and stream.codec_context.name in _PICTURE_CODECS


def _problem(stream: AudioStream) -> str | None:
    """Why a track cannot be decoded, if so."""
    if not stream.codec_context:
        return "PyAV's FFmpeg has no decoder for it"
    if not 0 < stream.rate <= _HIGHEST_RATE:
        return f"its header says {stream.rate} samples a second"
    return None
