"""What this machine can really do, where it claims more than that."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

_PROBE = "import torch; x = torch.ones(256, 256, dtype=torch.bfloat16); x @ x"
_LIMIT = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}


@cache
def bfloat16_fault() -> str:
    """Why bfloat16 matrix products crash on this CPU, and what to do; "" where they work.

    Some virtual machines claim to have AMX units, which then raise an illegal-instruction signal. A signal cannot be
    caught, so a child process tries (a second or two; the answer is kept).
    """
    if _runs({}):
        return ""
    if _runs(_LIMIT):
        setting = "=".join(next(iter(_LIMIT.items())))
        return f"bfloat16 crashes on this CPU, whose AMX units do not work; set {setting} in the environment first"
    return "bfloat16 matrix products crash on this CPU; use float32"


def require_bfloat16() -> None:
    """Raise RuntimeError, which says what to do, before a bfloat16 product would kill the process."""
    fault = bfloat16_fault()
    if fault:
        raise RuntimeError(fault)


def _runs(extra: dict[str, str]) -> bool:
    return subprocess.run([sys.executable, "-c", _PROBE], env=os.environ | extra, capture_output=True).returncode == 0
