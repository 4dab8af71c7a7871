"""Videos by presentation time: one protocol, two decoders that give the same frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from tubelet.media.info import MediaInfo


@dataclass(frozen=True)
class FrameBatch:
    """Frames of one video: ``frames`` upright RGB, ``pts`` the time in seconds at which each came on screen."""

    frames: UInt8[Tensor, "T C H W"]
    pts: Float64[Tensor, " T"]


@runtime_checkable
class Decoder(Protocol):
    """An open video. Time 0 is its first presented frame; edit lists, rotation and the shape of pixels are obeyed.

    ``size``: (height, width) of the frames that it gives: as they are shown, but above 4K (4096 x 2304 pixels) halved
    until they are smaller. A decoder belongs to one process and one thread; close it, or use it as a context manager.
    """

    path: str

    @property
    def size(self) -> tuple[int, int]: ...

    def probe(self) -> MediaInfo: ...

    def frames_at(self, times: Sequence[float]) -> FrameBatch:
        """The frame on screen at each time (seconds): the one with the largest presentation time at or before it.

        Presentation times are stored in ticks, so "at" is meant to half a tick (at most half a millisecond). Any order
        and repeated times are fine; sorted times, across all views of a video, decode each frame once.
        Raises :class:`MediaError` with the time that lies outside the video or where its data are damaged.
        """
        ...

    def audio(self, start: float, end: float, rate: int) -> Float32[Tensor, " S"]:
        """``round((end - start) * rate)`` mono samples between two times; silence where the track has none.

        Raises :class:`MediaError` without an audio track, or where none of the span lies on it.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Decoder: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_video(path: str | Path, decoder: Literal["auto", "pyav", "torchcodec"] = "auto", threads: int = 1) -> Decoder:
    """Open a video for decoding with ``threads`` threads (one: data workers are the parallelism).

    "auto" is PyAV, as the only one that notices damaged frames, and the same FFmpeg on every machine. "torchcodec"
    reads the whole file once at opening and passes on what FFmpeg makes of damaged data.
    Raises :class:`MediaError` where the file is not a readable video or the decoder is not installed.
    """
    if decoder == "torchcodec":
        from tubelet.media.torchcodec_decoder import TorchcodecDecoder

        return TorchcodecDecoder(path, threads=threads)
    if decoder not in ("auto", "pyav"):
        raise ValueError(f'{decoder=} must be "auto", "pyav" or "torchcodec"')
    from tubelet.media.pyav_decoder import PyAVDecoder

    return PyAVDecoder(path, threads=threads)


_AT_ONCE = 32  # frames
_BYTES_AT_ONCE = 2**26  # 10 frames of 1080p, 2 of 4K


def in_batches(video: Decoder, times: Sequence[float]) -> Iterator[FrameBatch]:
    """The frames on screen at each time, as many at once as :func:`frames_at_once` says: the memory that they take does
    not grow with their size and number. Raises as :meth:`Decoder.frames_at`."""
    count = frames_at_once(*video.size)
    for first in range(0, len(times), count):
        yield video.frames_at(times[first : first + count])


def frames_at_once(height: int, width: int) -> int:
    """How many frames of a size are held at once while they are made smaller."""
    return max(1, min(_AT_ONCE, _BYTES_AT_ONCE // (3 * height * width)))
