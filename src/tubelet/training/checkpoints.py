"""Checkpoints: tensors as (sharded) safetensors, scalars as JSON, complete or not there at all."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tubelet.training.loop import Update
from tubelet.training.ranks import Ranks

_SCALARS = "state.json"


class Checkpoints:
    """The folder ``step-00000500`` for the state after 500 updates; written beside and renamed, so that it is whole.

    The state is that of the weights and the optimizer, and of ``others``: further tensors by name and the parameter
    that they belong to, such as a moving average. Its names do not depend on the number of ranks or on how the model is
    spread over them.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        others: Mapping[str, Mapping[str, Tensor]],
        ranks: Ranks,
    ) -> None:
        self.folder, self.model, self.optimizer, self.others, self.ranks = folder, model, optimizer, others, ranks

    def save(self, step: int, scalars: Mapping[str, Any], keep: int) -> Path:
        """Write the state after ``step`` updates, and remove all but the last ``keep`` checkpoints."""
        final, beside = self._path(step), self.folder / f".new-{step:08d}"
        if self.ranks.is_main:
            for left_over in self.folder.glob(".*"):
                shutil.rmtree(left_over)
            beside.mkdir(parents=True)
        self.ranks.barrier()
        writer = HuggingFaceStorageWriter(str(beside), save_distributed=True)
        with _alone_is_meant():
            save(self._state(), storage_writer=writer, process_group=self.ranks.control, no_dist=self._alone)
        if self.ranks.is_main:
            (beside / _SCALARS).write_text(json.dumps({"step": step, **scalars}, indent=2) + "\n")
            beside.rename(final)
            for old in sorted(self.folder.glob("step-*"), key=_step)[:-keep]:
                shutil.rmtree(old.rename(self.folder / f".old-{_step(old):08d}"))
        self.ranks.barrier()
        return final

    def load(self, step: int) -> dict[str, Any]:
        """Put the state after ``step`` updates back in place; the scalars that were saved with it."""
        reader = HuggingFaceStorageReader(str(self._path(step)))
        self._allocate(set(reader.read_metadata().state_dict_metadata), step)
        with _alone_is_meant():
            load(self._state(), storage_reader=reader, process_group=self.ranks.control, no_dist=self._alone)
        return json.loads((self._path(step) / _SCALARS).read_text())

    @property
    def _alone(self) -> bool:
        return self.ranks.control is None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _state(self) -> dict[str, Tensor]:
        """Every tensor by name. Parameters that hold nothing are left out; so are Adam's counts, which are the step."""
        state = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for kind, tensors in self.others.items():
            state |= {f"{kind}.{name}": tensor for name, tensor in tensors.items()}
        for name, parameter in self.model.named_parameters():
            for key, tensor in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{key}.{name}"] = tensor
        return {name: t for name, t in state.items() if isinstance(t, Tensor) and t.ndim > 0 and t.numel() > 0}

    def _allocate(self, saved: set[str], step: int) -> None:
        """Room for the optimizer's state as it was saved."""
        keys = {name.split(".")[1] for name in saved if name.startswith("optimizer.")}
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                state = {key: torch.zeros_like(parameter, requires_grad=False) for key in sorted(keys)}
                if "exp_avg" in keys:
                    state["step"] = torch.tensor(float(step), device=parameter.device)
                self.optimizer.state[parameter] = state


def latest(folder: Path) -> int:
    """The step of the last checkpoint in ``folder``; 0 if there is none."""
    return max((_step(path) for path in folder.glob("step-*")), default=0)


class SaveRegularly:
    """A hook that saves every ``every`` updates. ``check`` raises if the state is not worth saving.

    ``scalars`` gives further numbers to save.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        every: int,
        keep: int,
        check: Callable[[], None],
        scalars: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.checkpoints, self.every, self.keep, self.check, self.scalars = checkpoints, every, keep, check, scalars

    def __call__(self, update: Update) -> None:
        if update.step % self.every == 0:
            self.save(update.step)

    def save(self, step: int) -> None:
        """Save the state after ``step`` updates now, unless that was done."""
        if step != latest(self.checkpoints.folder):
            self.check()
            self.checkpoints.save(step, {"ranks": self.checkpoints.ranks.world_size, **self.scalars()}, self.keep)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


@contextmanager
def _alone_is_meant() -> Generator[None]:
    """torch warns that a process without a process group saves alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
