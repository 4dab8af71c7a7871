"""Checkpoints that TensorFlow wrote: an index, which is a table of LevelDB's format, and files of numbers.

Read without TensorFlow. The index is small and read as a whole; the numbers are mapped. What an entry claims of its
place and shape is compared with what is there, checksums are not.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tubelet.weights.files import MOST_NAMES, WeightsError, check_file, looks_like
from tubelet.weights.protobuf import View, fields, varint

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER, _TRAILER = 48, 5  # bytes at the end of the table, and after each block: how it is packed, and its checksum
_INDEX = 16 * MOST_NAMES
_DTYPES = {1: torch.float32, 2: torch.float64, 14: torch.bfloat16, 19: torch.float16}
_VALUE, _SLOT = "/.ATTRIBUTES/VARIABLE_VALUE", "/.OPTIMIZER_SLOT/"


def bundle_of(path: Path) -> Path | None:
    """What stands before ``.index`` in the names of the checkpoint that ``path`` names, with or without it; None where
    there is none."""
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    return prefix if prefix.with_name(f"{prefix.name}.index").is_file() else None


def read_bundle(prefix: Path) -> dict[str, Tensor]:
    """The floats of a checkpoint by the paths of their attributes, without an optimizer's. Raises WeightsError."""
    index = prefix.with_name(f"{prefix.name}.index")
    check_file(index)
    try:
        return _tensors(prefix, index)
    except (ValueError, IndexError, OverflowError, RuntimeError, OSError) as error:
        fault = looks_like(index) or error
        raise WeightsError(f"{index}: no whole checkpoint of TensorFlow ({fault}); fetch it again") from None


def _tensors(prefix: Path, index: Path) -> dict[str, Tensor]:
    with index.open("rb") as file:
        table = memoryview(file.read(_INDEX + 1))
    if len(table) > _INDEX:
        raise ValueError(f"its index is larger than {_INDEX // 2**20} MiB")
    entries = _entries(table)
    shards = dict(fields(next((value for key, value in entries if not key), View(b"")))).get(1, 1)
    mapped: dict[int, View] = {}
    found: dict[str, Tensor] = {}
    for key, value in entries:
        name = str(key, "utf-8").removesuffix(_VALUE)
        entry = _Entry(value)
        if not name or _SLOT in name or entry.dtype is None:
            continue
        if entry.shard not in mapped:
            mapped[entry.shard] = _mapped(prefix.with_name(f"{prefix.name}.data-{entry.shard:05}-of-{shards:05}"))
        found[name] = entry.read(mapped[entry.shard], name)
    return found


def _mapped(path: Path) -> View:
    check_file(path)
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))  # torch wants what could be written


class _Entry:
    """Where a tensor lies, and what it is; ``dtype`` None: no floats."""

    def __init__(self, data: View) -> None:
        numbers = {number: value for number, value in fields(data) if isinstance(value, int)}
        self.dtype = _DTYPES.get(numbers.get(1, 0))
        self.shard, self.offset, self.size = numbers.get(3, 0), numbers.get(4, 0), numbers.get(5, 0)
        self.shape: list[int] = []
        for number, value in fields(data):
            if number == 2 and isinstance(value, View):
                dims = (dim for kind, dim in fields(value) if kind == 2 and isinstance(dim, View))
                self.shape = [size for dim in dims for size in [dict(fields(dim)).get(1, 0)] if isinstance(size, int)]

    def read(self, data: View, name: str) -> Tensor:
        assert self.dtype is not None
        end = self.offset + self.size
        if end > len(data) or math.prod(self.shape) * self.dtype.itemsize != self.size:
            raise ValueError(f"{name} claims the shape {tuple(self.shape)} at {self.offset:,}, which is not there")
        values = data[self.offset : end]
        made = torch.frombuffer(values, dtype=self.dtype) if self.size else torch.empty(0, dtype=self.dtype)
        return made.reshape(self.shape)


def _entries(table: View) -> list[tuple[bytes, View]]:
    """All keys and values: those of the blocks that the table's last block names."""
    if len(table) < _FOOTER or bytes(table[-len(_MAGIC) :]) != _MAGIC:
        raise ValueError("its index has no table's end")
    footer = table[-_FOOTER:]
    _, at = _handle(footer, 0)
    where, _ = _handle(footer, at)
    found: list[tuple[bytes, View]] = []
    length = 0
    for _, handle in _block(table, *where):
        for key, value in _block(table, *_handle(handle, 0)[0]):
            length += len(key)
            if length > 4 * MOST_NAMES:
                raise ValueError(f"its names are longer than {4 * MOST_NAMES:,} bytes")
            found.append((key, value))
    return found


def _handle(data: View, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(table: View, offset: int, size: int) -> Iterator[tuple[bytes, View]]:
    """The keys and values of a block; a key begins with as much of the one before as it says."""
    block = table[offset : offset + size]
    packed = table[offset + size : offset + size + _TRAILER]
    if len(block) != size or size < 4 or len(packed) != _TRAILER:
        raise ValueError("its index ends too early")
    if packed[0]:
        raise ValueError("its index is compressed")
    restarts = int.from_bytes(block[-4:], "little")
    end, at, key = size - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise ValueError("its index is damaged")
        key = key[:shared] + bytes(block[at : at + own])
        yield key, block[at + own : at + own + length]
        at += own + length
