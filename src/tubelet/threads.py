"""How long torch's OpenMP threads spin while they wait for work.

This module does not import torch, because the setting must come before it.
"""

from __future__ import annotations

import os
import sys
from functools import cache

_SPIN_COUNT, _WAIT_POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
_ROUNDS = "1000"


@cache
def limit_spinning() -> bool:
    """Set GNU OpenMP's spin count, unless the user chose one. Returns False if torch was loaded before.

    By default the threads spin for 300,000 rounds. If anything else runs on the machine, that takes cores from threads
    that have work. The library reads the environment once, when torch loads it, so ``import tubelet`` calls this before
    anything else. Later calls return the answer of the first.
    """
    if _SPIN_COUNT in os.environ or _WAIT_POLICY in os.environ:
        return True
    os.environ[_SPIN_COUNT] = _ROUNDS  # where it is too late for this process, it is not for those that it starts
    return "torch" not in sys.modules


def waiting() -> str:
    """How the threads wait, as the environment says it: ``GOMP_SPINCOUNT=1000``."""
    return ", ".join(f"{name}={os.environ[name]}" for name in (_SPIN_COUNT, _WAIT_POLICY) if name in os.environ)
