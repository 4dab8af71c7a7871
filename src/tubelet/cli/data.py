"""``tubelet data``: index, check or make data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from tyro.conf import Positional, arg

from tubelet.cli.terminal import described, progress, warn


def data_index(
    folder: Annotated[Positional[str], arg(help="class folders, with or without train/ and val/", metavar="DIR")],
    *,
    out: Annotated[str, arg(help="the manifest to write (.csv, .jsonl, .parquet); DIR/manifest.csv if empty")] = "",
) -> int:
    """Probe every file of a folder of class folders, and write a manifest: class, split, duration, frame rate, size."""
    from tubelet.data.index import index_folder

    with progress("probing") as advance:
        index = index_folder(folder, out or None, progress=advance)
    for error in index.broken:
        warn(str(error))
    manifest = index.manifest
    for note in manifest.notes:
        print(note)
    print(f"{manifest.path}: {described(manifest)}; {len(index.broken)} cannot be read")
    return 0


def data_check(
    manifest: Annotated[Positional[str], arg(help="a manifest, or a folder of class folders", metavar="MANIFEST")],
    *,
    sound: Annotated[bool, arg(help="also decode the sound tracks of videos")] = False,
) -> int:
    """Decode the start, middle and end of every example; list what cannot be read, and silence (exit status 1)."""
    from tubelet.data.index import check_manifest
    from tubelet.data.manifest import read_manifest

    read = read_manifest(manifest)
    with progress("decoding") as advance:
        errors = check_manifest(read, sound=sound, progress=advance)
    for error in errors:
        warn(str(error))
    print(f"{read.path}: {described(read)}; {len(errors)} cannot be read{' or heard' if sound else ''}")
    return 1 if errors else 0


def data_digits(
    folder: Annotated[Positional[str], arg(help="where to make them", metavar="DIR")] = "runs/talking_digits",
    *,
    seed: Annotated[int, arg(help="random seed")] = 0,
    size: Annotated[int, arg(help="height and width of the videos in pixels")] = 32,
) -> int:
    """Make Talking Digits, the demo's data: moving handwritten digits and spoken ones, in seconds, once."""
    from tubelet.data.talking_digits import make

    for task, manifest in make(folder, seed=seed, size=size).items():
        print(f"{task}: {manifest}")
    return 0


DATA: dict[str, Callable[..., int]] = {"index": data_index, "check": data_check, "digits": data_digits}
