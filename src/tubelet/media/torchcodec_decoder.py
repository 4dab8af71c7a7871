"""The torchcodec decoder: an optional package that needs FFmpeg's shared libraries on the machine."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import torch
from jaxtyping import Float32
from torch import Tensor

from tubelet.media.audio import read_audio
from tubelet.media.containers import WAY_OUT, open_container, video_stream
from tubelet.media.errors import MediaError
from tubelet.media.info import MediaInfo, probe
from tubelet.media.video import FrameBatch

_USE_PYAV = 'open the video with decoder="pyav", which is always there'
_CPP_PLACE = re.compile(r"^\w+, \S+\.(?:cpp|cu|h):\d+, ")


def torchcodec_problem() -> str | None:
    """Why torchcodec cannot be used here and what to do about it; None where it loads."""
    try:
        _decoders()
    except ImportError:
        return 'torchcodec is not installed; PyAV is used. To add it: pip install "tubelet[torchcodec]"'
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return (
            f"torchcodec is installed but does not load ({first}); PyAV is used. It needs FFmpeg's shared libraries "
            "(Debian and Ubuntu: apt install ffmpeg; conda: conda install ffmpeg) and a build for this PyTorch, "
            f"which is {torch.__version__}"
        )
    return None


def _decoders() -> ModuleType:
    return importlib.import_module("torchcodec.decoders")


class TorchcodecDecoder:
    """See :class:`tubelet.media.video.Decoder`. Damage that FFmpeg conceals goes unnoticed here."""

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        self.path = str(path)
        self._threads = threads
        self._info: MediaInfo | None = None
        problem = torchcodec_problem()
        if problem is not None:
            raise MediaError(self.path, None, f"{problem}; or {_USE_PYAV}")
        with open_container(path) as container:
            stream = video_stream(container, path)
            self._slack = min(float(stream.time_base or 0) / 2, 5e-4)
        self._open()
        try:
            self._zero = float(self._decoder.get_frame_at(0).pts_seconds)
        except Exception as error:
            raise MediaError(
                self.path, 0.0, f"the first frame cannot be decoded ({_words(error)}); {WAY_OUT}"
            ) from error
        self._end = float(self._decoder.metadata.end_stream_seconds) - self._zero

    def probe(self) -> MediaInfo:
        self._info = self._info or probe(self.path)
        return self._info

    def frames_at(self, times: Sequence[float]) -> FrameBatch:
        if not len(times):
            raise ValueError("frames_at needs at least one time")
        for time in times:
            if not time >= 0:
                raise MediaError(self.path, time, "not a time of this video; its first frame is at 0 s")
            if time >= self._end:
                reason = f"the video ends at {self._end:.3f} s; ask for earlier times (probe() gives the duration)"
                raise MediaError(self.path, time, reason)
        try:
            batch = self._played_at(times)
        except Exception as error:
            raise self._first_failure(times, error) from error
        pts = batch.pts_seconds.to(torch.float64) - self._zero
        for time, at in zip(times, pts.tolist(), strict=True):
            if at > time + self._slack + 1e-6:
                reason = f"the file's presentation times are not in order, which torchcodec cannot follow; {_USE_PYAV}"
                raise MediaError(self.path, time, reason)
        return FrameBatch(batch.data, pts)

    def audio(self, start: float, end: float, rate: int) -> Float32[Tensor, " S"]:
        return read_audio(self.path, start, end, rate, zero=self._zero)

    def close(self) -> None:
        self._decoder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        try:
            self._decoder: Any = _decoders().VideoDecoder(self.path, num_ffmpeg_threads=self._threads)
        except Exception as error:
            raise MediaError(
                self.path, None, f"torchcodec cannot read this file ({_words(error)}); {WAY_OUT}"
            ) from error

    def _played_at(self, times: Sequence[float]) -> Any:
        last = math.nextafter(self._zero + self._end, 0)
        return self._decoder.get_frames_played_at([min(self._zero + time + self._slack, last) for time in times])

    def _first_failure(self, times: Sequence[float], error: Exception) -> MediaError:
        """The first time that fails, one by one: torchcodec does not say which one of a batch it was."""
        failed, cause = min(times), error
        for time in sorted(times):
            self._open()  # after an error a decoder stands past the damage and would go on as if nothing were
            try:
                self._played_at([time])
            except Exception as at_time:
                failed, cause = time, at_time
                break
        return MediaError(self.path, failed, f"this frame cannot be decoded ({_words(cause)}); {WAY_OUT}")


def _words(error: Exception) -> str:
    """torchcodec's message without the C++ function, file and line it begins with."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return _CPP_PLACE.sub("", lines[0]).rstrip(".") if lines else type(error).__name__
