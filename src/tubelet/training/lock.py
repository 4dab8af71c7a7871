"""One writer for a run's folder: a file that names it, and that a dead one leaves to the next."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tubelet.configs import from_json, to_json
from tubelet.training.loop import Update
from tubelet.training.processes import Process, this_process
from tubelet.training.ranks import Ranks
from tubelet.writing import remove

LOCK, _CLAIM = ".lock", ".lock-claim"
_BEAT, _SILENCE = 15.0, 180.0  # seconds between two signs of life; after so many without one, a far process is dead
_PATIENCE = 10.0  # seconds for another start to take a dead process's lock away


class RunInUseError(RuntimeError):
    """Another process writes this run."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who writes a run, and since when (UTC)."""

    process: Process
    since: str

    def __str__(self) -> str:
        return f"{self.process}, since {self.since} UTC"


class RunLock:
    """Inside, this process and its ranks are the only ones that write ``folder``. The first rank holds the lock.

    The lock is a file that is created only where there is none, which holds on network file systems too. A process of
    this machine that has ended leaves its lock to the next; one of another machine does after three minutes without a
    sign of life. ``notes`` says so. As a hook, the lock stops a run that another process took over all the same, as
    when this one was suspended. Entering raises RunInUseError.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self.folder, self.ranks, self.path = folder, ranks, folder / LOCK
        self.notes: list[str] = []
        self._mine = Owner(process=this_process(), since=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()))
        self._lost: Owner | None = None
        self._ends = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> RunLock:
        problem: Exception | None = None
        if self.ranks.is_main:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._take()
            except Exception as error:
                problem = error
        if self.ranks.any(problem is not None):
            raise problem or SystemExit(1)  # the first rank says why
        if self.ranks.is_main:
            self._beating.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ends.set()
        if self.ranks.is_main:
            self._beating.join()
            if self._owner() == self._mine:
                remove(self.path)

    def __call__(self, update: Update) -> None:
        if self._lost:
            raise RunInUseError(f"{self.folder}: {self._lost}, took this run over while this process was silent")

    def _take(self) -> None:
        until = time.monotonic() + _PATIENCE
        while not self._created():
            owner = self._owner()
            if self._is_left(owner):
                self._clear(owner)
            elif owner:
                raise RunInUseError(
                    f"{self.folder}: {owner}, is writing this run: wait until it ends, or give another --out"
                )
            if time.monotonic() > until:
                raise RunInUseError(
                    f"{self.path}: cannot be taken over; if no process writes this run, remove it and {_CLAIM}"
                )
            time.sleep(0.05)

    def _created(self) -> bool:
        try:
            file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with open(file, "w", encoding="utf-8") as text:
                json.dump(to_json(self._mine), text)
        except OSError:
            remove(self.path)
            raise
        return True

    def _owner(self) -> Owner | None:
        """Whom the lock names; None where there is none, or where it is being written."""
        try:
            return from_json(Owner, json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def _is_left(self, owner: Owner | None) -> bool:
        ended = owner.process.ended() if owner else None
        return self._is_silent() if ended is None else ended

    def _is_silent(self) -> bool:
        """Whether the lock is old by the clock of its own file system."""
        now = self.folder / f".now-{os.getpid()}"
        try:
            now.touch()
            return now.stat().st_mtime - self.path.stat().st_mtime > _SILENCE
        except FileNotFoundError:
            return False
        finally:
            remove(now)

    def _clear(self, owner: Owner | None) -> None:
        """Remove the lock of a dead process. One start does, so that none removes the lock of the next one."""
        claim = self.folder / _CLAIM
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        try:
            if self._owner() == owner and self._is_left(owner):
                self.path.unlink()
                self.notes.append(f"goes on with the run of {owner or 'another process'}, which died")
        finally:
            remove(claim)

    def _beat(self) -> None:
        while not self._ends.wait(_BEAT):
            if (owner := self._owner()) not in (None, self._mine):
                self._lost = owner
                return
            with suppress(OSError):
                os.utime(self.path)
