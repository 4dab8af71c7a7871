"""Which process is which, and whether it still is: for what several of them share."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that others may ask for. ``place``: where its number means anything; ``born``: its start, "" where the
    system does not say."""

    host: str
    pid: int
    place: str
    born: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def ended(self) -> bool | None:
        """Whether it has ended; None where that cannot be seen from here, as of another host's."""
        if self.place != _place() or sys.platform == "win32":
            return None
        if born := _born(self.pid):
            return born != self.born
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return None
        return True if born == "" else None


def this_process() -> Process:
    return Process(host=platform.node(), pid=os.getpid(), place=_place(), born=_born(os.getpid()) or "")


def _place() -> str:
    """What has the same numbers of processes: one start of a machine, or a container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _born(pid: int) -> str | None:
    """When the process began, in the kernel's ticks; "" of one that has ended and is still listed, None: not known."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if state in ("Z", "X") else fields[18]
