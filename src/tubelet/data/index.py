"""Looking at every file of a collection before training on it: probing and really decoding, many at once."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tubelet.data.facts import FACTS, SLACK, contradiction
from tubelet.data.kinds import Kind, kind_of_file, kinds_by_suffix
from tubelet.data.manifest import Manifest, Record, Records, read_manifest, write_manifest
from tubelet.media.audio import read_audio
from tubelet.media.errors import MediaError
from tubelet.media.images import read_image
from tubelet.media.info import MediaInfo, probe
from tubelet.media.subtitles import SUFFIXES, read_subtitles, read_track, subtitles_beside
from tubelet.media.video import open_video

Progress = Callable[[int, int], None]
"""Called with the number of files done and of all files."""

_WAITING = 4  # files per thread
_RATE = 16_000  # samples per second at which sound is looked at
_BLOCK = 10.0  # seconds of it at a time
_SHORTER = 1.0  # seconds that a second file may lack at its end

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

    ``folder`` may be a manifest, which is then written again, by default in its place. Duration, frame rate and size
    are cached in it, so that training needn't look again. A broken file keeps its line, with the error in the column
    ``error``. ``workers`` threads probe; 0 means one per core.
    """
    manifest = read_manifest(folder, as_written=True)
    records = Records.of(manifest.records)
    found = probed(records, workers, progress)
    broken = tuple(info for info in found if isinstance(info, MediaError))
    facts = {
        name: [0 if isinstance(info, MediaError) else round(getattr(info, name), 6) for info in found] for name in FACTS
    }
    errors = [info.reason if isinstance(info, MediaError) else "" for info in found]
    records = records.replaced(**facts, error=errors)
    out = Path(out or (Path(folder, "manifest.csv") if Path(folder).is_dir() else folder))
    write_manifest(out, Records(records.table, None, str(Path(records.folder).absolute())))
    notes = first_taken([info for info in found if isinstance(info, MediaInfo)])
    return Index(Manifest(str(out), records, (*manifest.notes, *notes)), broken)


def check_manifest(
    manifest: Manifest,
    *,
    sound: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> list[MediaError]:
    """What training, evaluation or prediction would stumble over, one error for an example.

    Of every example the frames at its start, middle and end are really decoded, and compared with what the manifest
    says of the file. A file of another kind than the files of its suffix is an error, and one whose record has an
    ``error``, as training leaves it out. Of sound files, and with ``sound`` of the videos' tracks, all of the sound is
    read: a track that is missing, or in which every sample is zero, is reported, too. So is a subtitle file with
    malformed cues, which readers leave out: one beside the media file, or that a column names. ``note`` is called with
    what is no error, but may be a surprise.
    """
    records = Records.of(manifest.records)
    kinds: dict[str, Kind | None] = {suffix: kind for suffix, (kind, _) in kinds_by_suffix(records).items()}
    found = list(_parallel(partial(_trial, kinds=kinds, sound=sound), records, workers, progress))
    if note is not None:
        for sentence in first_taken([info for info in found if isinstance(info, MediaInfo)]):
            note(sentence)
    return [error for error in found if isinstance(error, MediaError)]


def first_taken(infos: Sequence[MediaInfo]) -> list[str]:
    """Sentences about the pictures that hold several, of which the first alone is seen."""
    pictures = [info for info in infos if info.kind == "image"]
    paged = sum(info.frames > 1 and info.codec == "tiff" for info in pictures)
    moving = sum(info.frames > 1 for info in pictures) - paged
    said: list[str] = []
    if moving:
        said.append(
            f"{moving} of {len(pictures)} pictures are animations, of which the first frame is taken; convert them to "
            "videos to see motion."
        )
    if paged:
        said.append(f"{paged} of {len(pictures)} pictures have several pages, of which the first is taken.")
    return said


def _parallel(function: Callable[[T], R], items: Sequence[T], workers: int, progress: Progress | None) -> Iterator[R]:
    """The results in the order of the items. Threads, as decoding leaves Python's lock; few items wait at a time."""
    workers = workers or os.cpu_count() or 1
    pool, waiting, coming = ThreadPoolExecutor(workers), deque[Future[R]](), iter(items)
    try:
        for done in range(len(items)):
            for item in islice(coming, _WAITING * workers - len(waiting)):
                waiting.append(pool.submit(function, item))
            yield waiting.popleft().result()
            if progress is not None:
                progress(done + 1, len(items))
    finally:
        pool.shutdown(cancel_futures=True)


def probed(
    records: Sequence[Record], workers: int = 0, progress: Progress | None = None
) -> list[MediaInfo | MediaError]:
    """The facts of every example's file, or why it cannot be read; by ``workers`` threads, one per core if 0."""
    return list(_parallel(_probed, records, workers, progress))


def _probed(record: Record) -> MediaInfo | MediaError:
    return _named(record.path, probe)


def _named(path: str, function: Callable[[str], R]) -> R | MediaError:
    """What the function returns; whatever goes wrong is the file's error, and ends no collection."""
    try:
        return function(path)
    except MediaError as error:
        return error
    except Exception as error:
        return MediaError(path, None, f"cannot be read ({type(error).__name__}: {error})")


def _trial(record: Record, *, kinds: Mapping[str, Kind | None], sound: bool) -> MediaInfo | MediaError:
    return _named(record.path, lambda path: _try(record, path, kinds, sound))


def _try(record: Record, path: str, kinds: Mapping[str, Kind | None], sound: bool) -> MediaInfo:
    info = probe(path)
    _check_kind(path, info.kind, kinds.get(Path(path).suffix.lower()))
    if wrong := contradiction(record, info):
        raise MediaError(path, None, f"the manifest says {wrong}; index it again")
    _decode(record, info, sound)
    _read_captions(record, info)
    for file in record.paths.values():
        if not file.lower().endswith(SUFFIXES):
            _decode_beside(file, record, info)
    if record.error:
        raise MediaError(path, None, f"the manifest says that it cannot be read ({record.error}); index it again")
    return info


def _check_kind(path: str, kind: Kind, alike: Kind | None) -> None:
    """Raises :class:`MediaError` where the contents are of another kind than the name says, or than those of the other
    files of its suffix; what a container of films holds may be sound alone."""
    named = kind_of_file(path)
    said = named if "image" in (kind, named) else alike
    if said and kind != said:
        raise MediaError(path, None, f"its name says {said}, but it holds {kind}; rename it, or leave it out")


def _decode(record: Record, info: MediaInfo, sound: bool) -> None:
    path = record.path
    if info.kind == "image":
        read_image(path)
        return
    start, end = _part(record, info)
    if info.kind == "video":
        with open_video(path) as video:
            last = max(start, end - 1 / info.fps)
            video.frames_at([start, (start + last) / 2, last])
    if sound or info.kind == "audio":
        _hear(path, start, end)


def _decode_beside(file: str, record: Record, info: MediaInfo) -> None:
    """Read another file of the example, which may lack a second at its end."""
    beside = probe(file)
    if beside.kind != "image" and beside.duration < info.duration - _SHORTER:
        reason = f"it lasts {beside.duration:.3f} s, but {record.path}, beside which it is read, {info.duration:.3f} s"
        raise MediaError(file, None, reason)
    _decode(Record(file), beside, False)


def _read_captions(record: Record, info: MediaInfo) -> None:
    """Raises :class:`MediaError` for the first cue of the example's subtitles that cannot be read."""
    if info.kind != "image":
        read_track(record.path)
    for file in (subtitles_beside(record.path), *record.paths.values()):
        if file and file.lower().endswith(SUFFIXES) and (skipped := read_subtitles(file).skipped):
            raise skipped[0]


def _part(record: Record, info: MediaInfo) -> tuple[float, float]:
    """Start and end of the example, in seconds of its file."""
    end = info.duration if record.end is None else record.end
    most = info.duration + (1 / info.fps if info.fps else SLACK)
    if end > most or record.start >= info.duration:
        part, last = f"{record.start:g} to {end:g} s", max(record.start, end)
        unit = "frame numbers" if last <= info.frames else "milliseconds" if last / 1000 <= most else ""
        hint = f", which are in seconds: are these {unit}?" if unit else ""
        reason = f"the manifest asks for {part} of {info.duration:.3f} s; mend start or end{hint}"
        raise MediaError(record.path, end, reason)
    return record.start, min(end, info.duration)


def _hear(path: str, start: float, end: float) -> None:
    """Raises :class:`MediaError` where some of the sound cannot be read, or every sample is zero."""
    heard = False
    for block in range(max(1, math.ceil((end - start) / _BLOCK - 1e-6))):
        first = start + block * _BLOCK
        heard |= bool(read_audio(path, first, min(first + _BLOCK, end), _RATE).any())
    if not heard:
        reason = "nothing but digital silence: every sample of the sound is zero; mend it or leave it out"
        raise MediaError(path, None, reason)
