"""Model folders made to do harm, with bait beside their weights: what runs, what hangs, what fills the memory."""

from __future__ import annotations

import os
import pickle
import runpy
from pathlib import Path
from typing import Any

from claims import Claim, at_most, none_of
from hostile_folders import EXECUTED, hostile_folders
from media_reliability import tiny_model
from watched import alone, watched

import tubelet

_SLOWER = 5.0  # seconds more than a plain load
_CODE = ("plugin.py", "modeling_tubelet.py", "sitecustomize.py", "__init__.py", "numpy.py", "conftest.py")
_PICKLES = ("pytorch_model.bin", "model.pt", "model.pkl", "optimizer.pth")


def folders(folder: Path, count: int, seed: int, workers: int) -> list[Claim]:
    """``count`` hostile model folders: what loading each of them did, with the folder as the working directory."""
    plain, root = folder / "plain", folder / "hostile"
    canary = root / EXECUTED  # that of the folders' own bait, too
    root.mkdir()
    tiny_model().save(plain)
    _check_bait(folder / "bait", canary)
    usual = alone(_load, plain)
    if usual.value != "loaded":
        raise RuntimeError(f"a plain folder is not loaded: {usual.value or usual.error or usual.died}")
    names, paths = zip(*hostile_folders(root, count, seed), strict=True)
    for path in paths:
        lay_bait(path, canary)
    outcomes = watched(_load, paths, workers, limit=usual.seconds + _SLOWER)
    named = list(zip(names, outcomes, strict=True))
    executed = [str(canary)] * canary.exists()
    tracebacks = [f"{name}: {outcome.error}" for name, outcome in named if outcome.error]
    died = [f"{name}: {outcome.died}" for name, outcome in named if outcome.died]
    highest, worst = max((outcome.peak, name) for name, outcome in named)
    loaded = sum(outcome.value == "loaded" for outcome in outcomes)
    part = "folders"
    return [
        none_of(part, "folders whose code ran", len(paths), executed),
        none_of(part, "errors that are no sentence of ours", len(paths), tracebacks),
        none_of(part, f"crashes, and loads {_SLOWER:g} s longer than a plain one", len(paths), died),
        at_most(part, "peak memory", highest, 1024, "MB", f" ({worst}); {loaded} loaded"),
    ]


def _load(path: Path) -> str:
    """What is said of a folder; raises what is no error of the library's own."""
    os.chdir(path if path.is_dir() else path.parent)
    try:
        tubelet.load(path, device="cpu")
    except Exception as error:
        if not type(error).__module__.startswith("tubelet."):
            raise
        return str(error)
    return "loaded"


class _Bait:
    """Unpickled, it leaves the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def lay_bait(folder: Path, canary: Path) -> None:
    """Put files into a folder that create ``canary`` if anything runs or unpickles them."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for name in _CODE:
        if not (folder / name).exists():
            (folder / name).write_text(f"open({str(canary)!r}, 'w').close()\n")
    for name in _PICKLES:
        if not (folder / name).exists():
            (folder / name).write_bytes(pickle.dumps(_Bait(canary)))


def _check_bait(folder: Path, canary: Path) -> None:
    """Raise RuntimeError unless every bait leaves the canary when it is run."""
    folder.mkdir()
    lay_bait(folder, canary)
    for path in folder.iterdir():
        alone(_take, path)
        if not canary.exists():
            raise RuntimeError(f"{path} leaves no canary")
        canary.unlink()


def _take(path: Path) -> None:
    if path.suffix == ".py":
        runpy.run_path(str(path))
    else:
        pickle.loads(path.read_bytes())
