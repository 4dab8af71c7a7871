"""Trainings of a benchmark, each in a process of its own, of one thread."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence


def launch(script: str, arguments: Sequence[str]) -> None:
    """Run ``script`` with ``arguments``; raises RuntimeError with the end of what it said where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
