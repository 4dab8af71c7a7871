"""``tubelet data``: index, check or make data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from tubelet.cli.command import Commands, Status, choose
from tubelet.cli.terminal import progress, warn

if TYPE_CHECKING:
    from tubelet.data.manifest import Manifest


def data() -> Status:
    """Index, check or make data: tubelet data index DIR."""
    return choose_data([])


def choose_data(words: list[str]) -> Status:
    """``tubelet data WORDS``."""
    return choose(words, COMMANDS, prog="tubelet data", about="Index, check or make data.")


def index(
    folder: Annotated[
        Positional[str], arg(help="class folders, with or without train/ and val/; or a manifest", metavar="DIR")
    ],
    *,
    out: Annotated[
        str, arg(help="the manifest to write (.csv, .jsonl, .parquet); DIR/manifest.csv, or the one given, if empty")
    ] = "",
) -> Status:
    """Probe every file of a folder of class folders, and write a manifest: class, split, duration, frame rate, size."""
    from tubelet.data.index import index_folder

    with progress("probing") as advance:
        made = index_folder(folder, out or None, progress=advance)
    for error in made.broken:
        warn(str(error))
    manifest = made.manifest
    for note in manifest.notes:
        print(note)
    print(f"{manifest.path}: {_described(manifest)}; {len(made.broken)} cannot be read")


def check(
    manifest: Annotated[Positional[str], arg(help="a manifest, or a folder of class folders", metavar="MANIFEST")],
    *,
    sound: Annotated[bool, arg(help="also decode the sound tracks of videos")] = False,
) -> Status:
    """Decode the start, middle and end of every example; list what training would stumble over (exit status 1)."""
    from tubelet.data.index import check_manifest
    from tubelet.data.manifest import read_manifest

    read, notes = read_manifest(manifest, as_written=True), list[str]()
    with progress("decoding") as advance:
        errors = check_manifest(read, sound=sound, progress=advance, note=notes.append)
    for error in errors:
        warn(str(error))
    for note in [*read.notes, *notes]:
        print(note)
    print(f"{read.path}: {_described(read)}; {len(errors)} cannot be read{' or heard' if sound else ''}")
    return 1 if errors else 0


def digits(
    folder: Annotated[Positional[str], arg(help="where to make them", metavar="DIR")] = "runs/talking_digits",
    *,
    seed: Annotated[int, arg(help="random seed")] = 0,
    size: Annotated[int, arg(help="height and width of the videos in pixels")] = 32,
) -> Status:
    """Make Talking Digits, the demo's data: moving handwritten digits and spoken ones, in seconds, once."""
    from tubelet.data.talking_digits import make

    for task, manifest in make(folder, seed=seed, size=size).items():
        print(f"{task}: {manifest}")


def _described(manifest: Manifest) -> str:
    """How many examples of how many classes a manifest has, by split."""
    counts = ", ".join(f"{len(manifest.split(name)):,} {name or 'in no split'}" for name in manifest.splits)
    sets = [
        f"{len(manifest.classes(name)):,} classes{'' if name == 'label' else f' of {name}'}"
        for name in manifest.label_sets
    ]
    return f"{counts}; {', '.join(sets) or 'no labels'}"


COMMANDS: Commands = {"index": index, "check": check, "digits": digits}
