"""Opening a media file with PyAV: the one place where what goes wrong with a file becomes its error."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from tubelet.media.errors import MediaError
from tubelet.media.limits import max_pixels

WAY_OUT = "copy or download it again, or leave it out (`tubelet data check` lists such files)"
FFMPEG_ERRORS = (FFmpegError, OSError)

# FFmpeg's names of the formats that are opened. Left out are those that open further files or addresses (playlists,
# sessions, numbered pictures), those that run scripts, devices, and what looks like any text.
_FORMATS = (
    "mov", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "m4v", "h261", "h263", "h264", "hevc", "vvc",
    "av1", "obu", "ivf", "vc1", "vc1test", "cavsvideo", "dirac", "dnxhd", "mjpeg", "mjpeg_2000", "asf", "asf_o",
    "flv", "live_flv", "kux", "gif", "ogg", "rm", "swf", "mxf", "nut", "nuv", "nsv", "dv", "gxf", "wtv", "ty",
    "pva", "roq", "smk", "bink", "flic", "yuv4mpegpipe", "vivo",
    "wav", "w64", "aiff", "au", "caf", "voc", "mp3", "aac", "loas", "ac3", "eac3", "dts", "dtshd", "truehd", "mlp",
    "flac", "tta", "tak", "wv", "ape", "mpc", "mpc8", "shn", "dsf", "iff", "amr", "amrnb", "amrwb", "gsm",
    "ircam", "nistsphere", "sox", "avr", "oma", "qcp", "ac4", "aea", "iamf", "mmf",
    "bmp_pipe", "dpx_pipe", "exr_pipe", "gif_pipe", "j2k_pipe", "jpeg_pipe", "jpegls_pipe", "jpegxl_pipe", "pam_pipe",
    "pbm_pipe", "pcx_pipe", "pgm_pipe", "png_pipe", "ppm_pipe", "psd_pipe", "qoi_pipe", "sgi_pipe", "sunrast_pipe",
    "tiff_pipe", "webp_pipe",
)  # fmt: skip
_LOCAL = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)}
_Stream = TypeVar("_Stream", VideoStream, AudioStream)
_NOT_LISTED = 22  # EINVAL: what FFmpeg says to a format that is not


@contextmanager
def reading(path: str | Path) -> Generator[None]:
    """Whatever goes wrong with a file in this block is raised as its :class:`MediaError`, so that no file stops a job.

    All functions of this package read in such a block, and check their arguments before it. Interrupts pass through,
    and so does want of memory, unless FFmpeg was asked by the file for more than there is.
    """
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) and not isinstance(error, FFmpegError):
            raise
        kind = "" if isinstance(error, FFMPEG_ERRORS) else f"{type(error).__name__}: "
        raise MediaError(str(path), None, f"cannot be read ({kind}{describe(error)}); {WAY_OUT}") from error


@contextmanager
def open_container(path: str | Path) -> Generator[InputContainer]:
    """The file's container, closed at the end. Raises :class:`MediaError` where there is no readable media file, and
    for whatever goes wrong while it is read."""
    with reading(path):
        container = open_input(path)
        try:
            yield container
        finally:
            container.close()


def open_input(path: str | Path) -> InputContainer:
    """Like :func:`open_container`, but the caller closes the container. No other file is opened, and no address."""
    check_file(path)
    try:
        return av.open(
            f"file:{os.path.abspath(path)}",
            metadata_errors="replace",
            container_options=_LOCAL,
            options=decoder_options(),
        )
    except FFMPEG_ERRORS as error:
        raise MediaError(str(path), None, _why_unopened(Path(path), error)) from error


@contextmanager
def demuxing(container: InputContainer, stream: _Stream) -> Generator[Iterator[Packet[_Stream]]]:
    """The packets of a stream from the container's position on, for a reader that may stop before the last one.

    PyAV 18 loses some 260 bytes with every demuxer that is dropped before its end, and none where it is closed.
    """
    packets = cast("Generator[Packet[_Stream]]", container.demux(stream))
    try:
        yield packets
    finally:
        packets.close()


def decoder_options() -> dict[str, str]:
    """What keeps FFmpeg's decoders from frames that are too large; codecs round sizes up."""
    return {"max_pixels": str(max_pixels() * 5 // 4)}


def check_file(path: str | Path) -> None:
    """Raises :class:`MediaError` unless ``path`` is a regular file with something in it."""
    with reading(path):
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            reason = "no such file; relative paths start at the working directory"
            raise MediaError(str(path), None, reason) from None
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(str(path), None, "not a file; give a media file")
        if status.st_size == 0:
            raise MediaError(str(path), None, f"the file is empty; {WAY_OUT}")


def describe(error: BaseException) -> str:
    """The first line of a message, FFmpeg's without error numbers and paths."""
    said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return said.splitlines()[0].rstrip(".")


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
    if getattr(error, "errno", None) == _NOT_LISTED:
        return (
            "not a media file of a format that is read here (what names other files is not); convert it or leave it out"
        )
    return f"not a media file that FFmpeg can read ({describe(error)}); {WAY_OUT}"
