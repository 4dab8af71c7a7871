"""Fingerprints of files' contents, computed once and kept for the other ranks and the next run."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tubelet.data.records import Records
from tubelet.media.subtitles import subtitles_beside

_SAMPLE = 1 << 16  # bytes at each end of a file that its fingerprint covers
_WORTH_KEEPING = 1_000  # files; fewer are read again in a moment
_LOOKED_AT = 1_000  # examples
LETTERS = 8  # of a fingerprint that :func:`contents` keeps


def looked_at(records: Records, captions: bool) -> list[str]:
    """The files whose contents stand for those of all records: of up to 1,000 examples, spread over them evenly.

    ``captions``: those of the subtitles beside them, too.
    """
    places = np.unique(np.linspace(0, len(records) - 1, min(len(records), _LOOKED_AT)).astype(np.int64))
    paths: dict[str, None] = {}
    for record in records.at(places):
        beside = subtitles_beside(record.path) if captions else None
        paths |= dict.fromkeys(filter(None, [record.path, *record.paths.values(), beside]))
    return list(paths)


def contents(paths: Sequence[str]) -> str:
    """The first eight letters of each file's fingerprint; those of a file that cannot be read are of an empty one's."""
    sizes = [os.path.getsize(path) if os.path.isfile(path) else 0 for path in paths]
    return "".join(
        found.hex()[:LETTERS] for found in _computed([(*file, 0) for file in zip(paths, sizes, strict=True)])
    )


def fingerprints(folder: Path, files: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """A hash of the size and both ends of each file, equal for equal files, whatever they are called.

    ``files``: path, size in bytes and time of change in ns. Those of a large ``folder`` are kept in the user's cache
    (``$XDG_CACHE_HOME/tubelet/fingerprints``, by default ``~/.cache``) and taken from there while size and time stay
    the same. The first process to come computes them, the others wait for it. A file that cannot be opened counts as
    empty.
    """
    if len(files) < _WORTH_KEEPING:
        return _computed(files)
    name = blake2b(os.fsencode(folder.resolve()), digest_size=16).hexdigest()
    kept = Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tubelet", "fingerprints", f"{name}.parquet"
    )
    with _locked(kept):
        known = _load(kept)
        missing = [file for file in files if file not in known]
        if missing:
            known |= dict(zip(missing, _computed(missing), strict=True))
            with suppress(OSError):  # a cache that cannot be written costs time alone
                _save(kept, {file: known[file] for file in files})
    return [known[file] for file in files]


def _computed(files: Sequence[tuple[str, int, int]]) -> list[bytes]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_fingerprint, files))


def _fingerprint(of: tuple[str, int, int]) -> bytes:
    path, size, _ = of
    digest = blake2b(digest_size=16)
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        return digest.digest()
    with suppress(OSError), open(path, "rb") as file:
        digest.update(size.to_bytes(8, "big"))
        digest.update(file.read(_SAMPLE))
        file.seek(max(file.tell(), size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.digest()


def _load(kept: Path) -> dict[tuple[str, int, int], bytes]:
    try:
        columns = pq.read_table(kept).to_pydict()
        files = zip(map(os.fsdecode, columns["path"]), columns["size"], columns["changed"], strict=True)
        return dict(zip(files, columns["fingerprint"], strict=True))
    except (OSError, pa.ArrowException, KeyError):
        return {}


def _save(kept: Path, known: dict[tuple[str, int, int], bytes]) -> None:
    paths, sizes, changed = zip(*known, strict=True)
    beside = kept.with_suffix(".new")
    columns = {"path": list(map(os.fsencode, paths)), "size": sizes, "changed": changed}
    columns["fingerprint"] = list(known.values())
    pq.write_table(pa.table(columns), beside)
    beside.replace(kept)


@contextmanager
def _locked(kept: Path) -> Generator[None]:
    """One process at a time, where the system can lock files and the cache can be written."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        lock = kept.with_suffix(".lock").open("w")
    except OSError:
        yield
        return
    with lock:
        if sys.platform != "win32":
            import fcntl

            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
