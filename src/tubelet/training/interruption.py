"""Stopping on request: SIGTERM and SIGINT finish the update, save, and end the run with a word on how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

import torch
import torch.distributed as dist

from tubelet.training.loop import Update
from tubelet.training.ranks import Ranks

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """The run was asked to stop, and saved. Uncaught, it exits with the status that shells give to its signal.

    That is 130 after SIGINT, and 143 after SIGTERM.
    """

    def __init__(self, received: signal.Signals, step: int, total: int) -> None:
        super().__init__(
            f"stopped by {received.name} after update {step} of {total}; the state is saved: run the same command "
            "again to go on from here"
        )
        self.code = 128 + received


class StopOnSignal:
    """A hook that, after a signal, calls ``save`` with the step and raises Interrupted, on all ranks at the same step.

    Use it as a context manager around the loop. A second signal acts at once.
    """

    def __init__(self, ranks: Ranks, total: int, save: Callable[[int], None]) -> None:
        self.ranks, self.total, self.save = ranks, total, save
        self._received = 0
        self._agreed: tuple[torch.Tensor, dist.Work] | None = None

    def __enter__(self) -> StopOnSignal:
        in_main = threading.current_thread() is threading.main_thread()
        self._before = {s: signal.signal(s, self._receive) for s in _SIGNALS} if in_main else {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for received, handler in self._before.items():
            signal.signal(received, handler)
        if self._agreed is not None and error is None:
            self._agreed[1].wait()

    def __call__(self, update: Update) -> None:
        received = self._agree()
        if received and update.step < self.total:
            self.save(update.step)
            raise Interrupted(signal.Signals(received), update.step, self.total)

    def _receive(self, received: int, _: FrameType | None) -> None:
        self._received = received
        signal.signal(received, signal.SIG_DFL)

    def _agree(self) -> int:
        """The signal that any rank had received one update ago: the message travels during the update."""
        if self.ranks.control is None:
            return self._received
        answer = 0
        if self._agreed is not None:
            flag, work = self._agreed
            work.wait()
            answer = int(flag)
        flag = torch.tensor(self._received)
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.ranks.control, async_op=True)
        assert work is not None
        self._agreed = (flag, work)
        return answer
