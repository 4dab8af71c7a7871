"""Making the folder: once, whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

from tubelet.data.manifest import Record, write_manifest
from tubelet.data.talking_digits.plan import FPS, SECONDS, Item, Parameters, items
from tubelet.data.talking_digits.scenes import Glyphs
from tubelet.data.talking_digits.speech import check_espeak

TASKS = ("digit", "motion", "spoken", "talking", "duet")
_MARKER = "talking_digits.json"
_FORMAT = 1  # raised when equal parameters come to mean other files
_PARTS = 2  # fixed, for the files must not depend on how many cores a machine has


def make(
    folder: str | os.PathLike[str], *, seed: int = 0, train: int = 1600, val: int = 400, size: int = 32
) -> dict[str, Path]:
    """Make Talking Digits in ``folder``, or reuse what an earlier call with the same parameters made there.

    Returns the manifest of each task. ``train`` and ``val``: examples of each of motion, spoken and duet; digit has
    every written digit once. ``size``: the side of the square picture, pixels. The files are written beside ``folder``
    and renamed into place. Talking Digits of other parameters, or with files missing, are made anew.

    Raises ModuleNotFoundError without eSpeak NG, FileExistsError if ``folder`` holds anything else.
    """
    folder = Path(folder)
    parameters = Parameters(seed=seed, train=train, val=val, size=size)
    manifests = {task: folder / f"{task}.csv" for task in TASKS}
    if _is_whole(folder, parameters):
        return manifests
    if folder.exists() and not (folder / _MARKER).exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds other files: give Talking Digits a folder of their own")
    check_espeak()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        fresh = Path(beside, "new")
        _write(fresh, parameters)
        if _is_whole(folder, parameters):  # another process was quicker
            return manifests
        if folder.exists():
            folder.rename(Path(beside, "old"))
        fresh.rename(folder)
    return manifests


def _write(folder: Path, parameters: Parameters) -> None:
    folder.mkdir()
    glyphs = Glyphs()
    _write_media(folder, parameters)
    rows: defaultdict[str, list[Record]] = defaultdict(list)
    for item in items(parameters, glyphs):
        for task in item.labels:
            rows[task].append(_record(item, task, parameters.size))
    for task in TASKS:
        write_manifest(folder / f"{task}.csv", rows[task])
    marker = {"format": _FORMAT, "parameters": asdict(parameters), "files": _sizes(folder)}
    (folder / _MARKER).write_text(json.dumps(marker, indent=1) + "\n")


def _record(item: Item, task: str, size: int) -> Record:
    record = Record(path=item.path, labels={"label": (item.labels[task],)}, split=item.split, text=item.text)
    return replace(record, duration=SECONDS, fps=FPS, width=size, height=size) if item.scene else record


def _write_media(folder: Path, parameters: Parameters) -> None:
    command = [sys.executable, "-m", "tubelet.data.talking_digits.work", str(folder), json.dumps(asdict(parameters))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*command, str(part), str(_PARTS)], env=environment, stderr=subprocess.PIPE, text=True)
        for part in range(_PARTS)
    ]
    try:
        for worker in workers:
            _, complaint = worker.communicate()
            if worker.returncode != 0:
                raise RuntimeError(f"Talking Digits could not be written to {folder}:\n{complaint}")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _is_whole(folder: Path, parameters: Parameters) -> bool:
    try:
        marker = json.loads((folder / _MARKER).read_text())
    except (FileNotFoundError, ValueError):
        return False
    wanted = {"format": _FORMAT, "parameters": asdict(parameters)}
    return {key: marker.get(key) for key in wanted} == wanted and all(
        (folder / name).exists() and (folder / name).stat().st_size == size for name, size in marker["files"].items()
    )


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
