"""How long the threads of torch's OpenMP spin while they wait for work; no torch here, for it must be set before."""

from __future__ import annotations

import os
import sys

SPIN_COUNT, WAIT_POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
_COUNT = "2000"


def limit_spinning() -> str:
    """Set GNU OpenMP's spin count, unless the user has chosen one; returns who chose, for ``tubelet doctor``.

    Its threads spin for hundreds of thousands of rounds by default. Where anything else runs on the machine, that takes
    the cores from the threads that have work. The library reads the environment once, when torch loads it.
    """
    if chosen := [name for name in (SPIN_COUNT, WAIT_POLICY) if name in os.environ]:
        return f"{chosen[0]} was in the environment"
    if "torch" in sys.modules:
        return "torch was imported before tubelet"
    os.environ[SPIN_COUNT] = _COUNT
    return "set by tubelet"
