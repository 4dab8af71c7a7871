"""The torchcodec decoder: an optional package that needs FFmpeg's shared libraries on the machine."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from tubelet.media.errors import MediaError
from tubelet.media.info import MediaInfo
from tubelet.media.pyav_decoder import PyAVDecoder
from tubelet.media.video import FrameBatch

_ROUNDING = 1e-6  # seconds
_WITHOUT_INDEX = ("mpeg", "mpegts")  # torchcodec's seeks land between keyframes there, and it shows the noise


@cache
def torchcodec_problem() -> str | None:
    """Why torchcodec cannot be used here and what to do about it; None where it loads."""
    try:
        _torchcodec()
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


def _torchcodec() -> ModuleType:
    return importlib.import_module("torchcodec.decoders")


class TorchcodecDecoder:
    """See :class:`tubelet.media.video.Decoder`.

    torchcodec reads the whole file once at opening. Where it cannot follow a file (cuts by edit list, MPEG streams, pts
    that fall, frames that are scaled) or fails, PyAV decodes, so that times and errors are the same; damage that FFmpeg
    conceals without an error goes unnoticed here.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        self.path = str(path)
        problem = torchcodec_problem()
        if problem is not None:
            raise MediaError(self.path, None, f'{problem}; or open the video with decoder="pyav"')
        self._pyav = PyAVDecoder(path, threads)
        left_out = self._pyav.scaled or self._pyav.format in _WITHOUT_INDEX
        self._decoder = None if left_out else _opened(self.path, threads)

    @property
    def size(self) -> tuple[int, int]:
        return self._pyav.size

    def probe(self) -> MediaInfo:
        return self._pyav.probe()

    def frames_at(self, times: Sequence[float]) -> FrameBatch:
        batch = self._batch(times)
        if batch is None:
            return self._pyav.frames_at(times)
        return FrameBatch(batch.data, batch.pts_seconds.to(torch.float64) - self._pyav.zero)

    def audio(self, start: float, end: float, rate: int) -> Float32[Tensor, " S"]:
        return self._pyav.audio(start, end, rate)

    def close(self) -> None:
        self._decoder = None
        self._pyav.close()

    def __enter__(self) -> TorchcodecDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batch(self, times: Sequence[float]) -> Any:
        """torchcodec's batch, or None where it has none or one that starts after the time asked for."""
        wanted = [self._pyav.zero + time for time in times]
        if self._decoder is None or self._pyav.by_dts or not wanted or not min(times) >= 0:
            return None
        end = math.nextafter(self._decoder.metadata.end_stream_seconds, 0)
        if max(wanted) > end:
            return None
        forgiven = [time + self._pyav.slack for time in wanted]
        try:
            batch = self._decoder.get_frames_played_at([min(time, end) for time in forgiven])
        except (RuntimeError, IndexError, ValueError):
            return None
        late = batch.pts_seconds > torch.tensor(forgiven, dtype=torch.float64) + _ROUNDING
        return None if bool(late.any()) else batch


def _opened(path: str, threads: int) -> Any:
    try:
        return _torchcodec().VideoDecoder(f"file:{os.path.abspath(path)}", num_ffmpeg_threads=threads)
    except (RuntimeError, ValueError):
        return None
