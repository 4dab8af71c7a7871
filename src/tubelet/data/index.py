"""Looking at every file of a collection before training on it: probing and really decoding, many at once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from tubelet.data.manifest import Manifest, Record, read_manifest, write_manifest
from tubelet.media.audio import read_audio
from tubelet.media.errors import MediaError
from tubelet.media.images import read_image
from tubelet.media.info import MediaInfo, probe
from tubelet.media.video import open_video

Progress = Callable[[int, int], None]
"""Called with the number of files done and of all files."""

_RATE = 16_000  # samples per second at which sound is looked at
_BLOCK = 10.0  # seconds of it at a time
_SLACK = 0.05  # seconds by which a manifest may ask for more than a sound file has

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Index:
    """A manifest with what probing found, and the files that could not be read (their records say so in ``error``)."""

    manifest: Manifest
    broken: tuple[MediaError, ...]


def index_folder(
    folder: str | Path, out: str | Path | None = None, *, workers: int = 0, progress: Progress | None = None
) -> Index:
    """Probe every media file of a folder of class folders and write the manifest, by default ``folder``/manifest.csv.

    Duration, frame rate and size are cached in it, so that training needn't look again. A broken file keeps its line,
    with the error in the column ``error``. ``workers`` threads probe; 0 means one per core.
    """
    manifest = read_manifest(folder)
    paths = list(dict.fromkeys(record.path for record in manifest.records))
    found = dict(zip(paths, _parallel(_probed, paths, workers, progress), strict=True))
    records = tuple(_described(record, found[record.path]) for record in manifest.records)
    out = Path(folder, "manifest.csv") if out is None else Path(out)
    write_manifest(out, [replace(record, path=str(Path(record.path).absolute())) for record in records])
    broken = tuple(info for info in found.values() if isinstance(info, MediaError))
    return Index(Manifest(str(out), records, manifest.notes), broken)


def check_manifest(
    manifest: Manifest, *, sound: bool = False, workers: int = 0, progress: Progress | None = None
) -> list[MediaError]:
    """What cannot be read: of every example, the frames at its start, middle and end are really decoded.

    Of sound files, and with ``sound`` of the videos' tracks, the sound: a track that is missing, or in which every
    sample is zero, is reported, too.
    """
    found = _parallel(partial(_trial, sound=sound), manifest.records, workers, progress)
    return [error for error in found if error is not None]


def _parallel(function: Callable[[T], R], items: Sequence[T], workers: int, progress: Progress | None) -> Iterator[R]:
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done, result in enumerate(pool.map(function, items), 1):
            if progress is not None:
                progress(done, len(items))
            yield result


def _probed(path: str) -> MediaInfo | MediaError:
    try:
        return probe(path)
    except MediaError as error:
        return error


def _described(record: Record, found: MediaInfo | MediaError) -> Record:
    if isinstance(found, MediaError):
        return replace(record, error=found.reason)
    sizes = {"width": found.width, "height": found.height}
    return replace(record, duration=round(found.duration, 6), fps=round(found.fps, 6), **sizes)


def _trial(record: Record, *, sound: bool) -> MediaError | None:
    try:
        info = probe(record.path)
        if info.kind == "image":
            read_image(record.path)
            return None
        start, end = _part(record, info)
        if info.kind == "video":
            with open_video(record.path) as video:
                last = max(start, end - 1 / info.fps)
                video.frames_at([start, (start + last) / 2, last])
        else:
            read_audio(record.path, max(start, end - 1), end, _RATE)
        if sound or info.kind == "audio":
            _hear(record.path, start, end)
    except MediaError as error:
        return error
    return None


def _part(record: Record, info: MediaInfo) -> tuple[float, float]:
    """Start and end of the example, in seconds of its file."""
    end = info.duration if record.end is None else record.end
    slack = 1 / info.fps if info.fps else _SLACK
    if end > info.duration + slack or record.start >= info.duration:
        part = f"{record.start:g} to {end:g} s"
        raise MediaError(record.path, end, f"the manifest asks for {part} of {info.duration:.3f} s; mend start or end")
    return record.start, min(end, info.duration)


def _hear(path: str, start: float, end: float) -> None:
    """Raises :class:`MediaError` where there is no sound to read, or every sample is zero."""
    for block in range(max(1, math.ceil((end - start) / _BLOCK - 1e-6))):
        first = start + block * _BLOCK
        if read_audio(path, first, min(first + _BLOCK, end), _RATE).any():
            return
    reason = "nothing but digital silence: every sample of the sound is zero; mend it or leave it out"
    raise MediaError(path, None, reason)
