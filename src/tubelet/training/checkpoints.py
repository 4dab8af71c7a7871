"""Checkpoints: tensors as (sharded) safetensors, scalars as JSON, and digests of both; complete or not there at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tubelet.training.loop import Update
from tubelet.training.ranks import Ranks
from tubelet.writing import bring_to_disk, is_full, remove

_SCALARS, _SUMS = "state.json", "SHA256SUMS"


class DamagedCheckpointsError(RuntimeError):
    """A run has checkpoints, and none of them is whole."""


class Checkpoints:
    """The folder ``step-00000500`` for the state after 500 updates; written beside and renamed, so that it is whole.

    The state is that of the weights and the optimizer, and of ``others``: further tensors by name and the parameter
    that they belong to, such as a moving average. Its names do not depend on the number of ranks or on how the model is
    spread over them. ``last``: the step that was saved or loaded last, 0 before. Whatever else is in ``folder`` stays.
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
        self.last = 0

    def save(self, step: int, scalars: Mapping[str, Any], keep: int) -> Path:
        """Write the state after ``step`` updates, and remove all but the last ``keep`` checkpoints.

        Those of later steps, which a run that goes on from before them has left, go as well. Raises OSError, such as on
        a full disk; the checkpoints before are then as they were.
        """
        final, beside = _path(self.folder, step), self.folder / f".new-{step:08d}"
        if self.ranks.is_main:
            for left_over in (*self.folder.glob(".new-*"), *self.folder.glob(".old-*")):
                remove(left_over)
            beside.mkdir(parents=True)
        self.ranks.barrier()
        try:
            digests = self._write_tensors(beside)
            if self.ranks.is_main:
                (beside / _SCALARS).write_text(json.dumps({"step": step, **scalars}, indent=2) + "\n")
                digests[_SCALARS] = _digest(beside / _SCALARS)
                sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
                (beside / _SUMS).write_text(sums)
                bring_to_disk(beside)
                self._put_in_place(beside, final, keep)
        except Exception:
            if self.ranks.is_main:
                remove(beside)
            raise
        self.ranks.barrier()
        self.last = step
        return final

    def load(self, step: int) -> dict[str, Any]:
        """Put the state after ``step`` updates back in place; the scalars that were saved with it."""
        path = _path(self.folder, step)
        reader = HuggingFaceStorageReader(str(path))
        self._allocate(set(reader.read_metadata().state_dict_metadata), step)
        with _alone_is_meant():
            load(self._state(), storage_reader=reader, process_group=self.ranks.control, no_dist=self._alone)
        self.last = step
        return json.loads((path / _SCALARS).read_text())

    def _write_tensors(self, folder: Path) -> dict[str, str]:
        """Write every rank's tensors; the digests of all files by name."""
        files = _DigestedFiles()
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        writer.fs = files
        try:
            with _alone_is_meant():
                save(self._state(), storage_writer=writer, process_group=self.ranks.control, no_dist=self._alone)
        except CheckpointException as error:  # which is no Exception, and holds one for every rank that failed
            reason, _ = next(iter(error.failures.values()))
            raise (OSError(errno.ENOSPC, "no space left", str(self.folder)) if is_full(reason) else reason) from None
        return {name: digest for found in self.ranks.collect(files.digests()) for name, digest in found.items()}

    def _put_in_place(self, beside: Path, final: Path, keep: int) -> None:
        if final.exists():  # damaged, or there would be nothing to save
            _discard(final)
        beside.rename(final)
        bring_to_disk(self.folder, deep=False)
        kept = [step for step in _steps(self.folder) if step <= _step(final)][-keep:]
        for step in _steps(self.folder):
            if step not in kept:
                _discard(_path(self.folder, step))

    @property
    def _alone(self) -> bool:
        return self.ranks.control is None

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


def last_whole(folder: Path) -> tuple[int, list[str]]:
    """The step of the last whole checkpoint in ``folder``, 0 if it has none; a sentence on each later, damaged one.

    Raises DamagedCheckpointsError where none is whole.
    """
    damaged: list[str] = []
    for step in reversed(_steps(folder)):
        if not (problem := _problem(_path(folder, step))):
            return step, [f"{said}; update {step} is the last whole one" for said in damaged]
        damaged.append(f"{_path(folder, step)} is damaged ({problem})")
    if damaged:
        raise DamagedCheckpointsError(
            f"{'; '.join(damaged)}: no whole checkpoint is left; remove {folder} to train from the beginning"
        )
    return 0, []


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
        if step != self.checkpoints.last:
            self.check()
            self.checkpoints.save(step, {"ranks": self.checkpoints.ranks.world_size, **self.scalars()}, self.keep)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, whole or not, in order."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal() and path.is_dir()]
    return sorted(_step(path) for path in found if path == _path(folder, _step(path)))


def _discard(path: Path) -> None:
    """Remove a checkpoint, in such a way that a kill leaves nothing that looks like one."""
    remove(path.rename(path.with_name(f".old-{_step(path):08d}")))


def _problem(path: Path) -> str:
    """What is wrong with a checkpoint; "" if nothing is. Those of version 0.1 have no digests."""
    try:
        if (path / _SUMS).exists():
            for line in (path / _SUMS).read_text().splitlines():
                digest, _, name = line.partition("  ")
                if _digest(path / name) != digest:
                    return f"{name} is not as it was written"
        json.loads((path / _SCALARS).read_text())
        for shard in (shards := list(path.glob("*.safetensors"))):
            with safe_open(shard, "pt"):
                pass
        return "" if shards else "its tensors are missing"
    except FileNotFoundError as error:
        return f"{Path(error.filename or path).name} is missing"
    except (OSError, ValueError, SafetensorError) as error:
        return str(error)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.sha256).hexdigest()


class _DigestedFiles(FileSystem):
    """Files as torch's writer makes them, with the SHA-256 of each, computed while it is written."""

    def __init__(self) -> None:
        super().__init__()
        self._files: list[_DigestedFile] = []

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[io.IOBase]:
        with _DigestedFile(path, mode) as file:
            self._files.append(file)
            yield file

    def digests(self) -> dict[str, str]:
        return {file.path.name: file.digest.hexdigest() for file in self._files}


class _DigestedFile(io.BufferedWriter):
    def __init__(self, path: str | os.PathLike[str], mode: str) -> None:
        super().__init__(io.FileIO(path, mode))
        self.path, self.digest = Path(path), hashlib.sha256()

    def write(self, data: Any, /) -> int:
        with ThreadPoolExecutor(1) as beside:
            beside.submit(self.digest.update, data)
            return super().write(data)


@contextmanager
def _alone_is_meant() -> Generator[None]:
    """torch warns that a process without a process group saves alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
