"""Idle threads: how long they spin is set before torch loads, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_CODE = """
import os, sys
if sys.argv[1:]:
    sys.modules[sys.argv[1]] = sys
import tubelet
from tubelet.threads import limit_spinning, waiting
print(waiting(), limit_spinning())
"""


@pytest.mark.parametrize(
    ("chosen", "loaded", "says"),
    [
        ({}, [], "GOMP_SPINCOUNT=1000 True"),
        ({"GOMP_SPINCOUNT": "7"}, [], "GOMP_SPINCOUNT=7 True"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["torch"], "OMP_WAIT_POLICY=ACTIVE True"),
        ({}, ["torch"], "GOMP_SPINCOUNT=1000 False"),
    ],
)
def test_the_spin_count_is_set_unless_the_user_did(chosen: dict[str, str], loaded: list[str], says: str) -> None:
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", _CODE, *loaded]
    done = subprocess.run(command, env=others | chosen, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == says
