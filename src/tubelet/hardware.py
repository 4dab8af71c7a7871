"""What this machine can really do, where it claims more than that."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

_PROBE = "import torch; x = torch.ones(256, 256, dtype=torch.bfloat16); x @ x"
_LIMIT = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
_BFLOAT16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX512", "bf16": "Arm"}  # flags of /proc/cpuinfo


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


def native_bfloat16() -> list[str]:
    """The units of this CPU that compute in bfloat16, such as "AVX512": none where it is slower than float32."""
    flags = cpu_info("flags", "Features").split()
    return [unit for flag, unit in _BFLOAT16.items() if flag in flags]


@cache
def computes_bfloat16() -> bool:
    """Whether the device that trainings use here, a GPU or else the CPU, computes in bfloat16 by itself."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(native_bfloat16()) and not bfloat16_fault()


def cpu_info(*keys: str) -> str:
    """What Linux says about the CPU under the first of these keys that it has; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() in keys), "")


def _runs(extra: dict[str, str]) -> bool:
    return subprocess.run([sys.executable, "-c", _PROBE], env=os.environ | extra, capture_output=True).returncode == 0
