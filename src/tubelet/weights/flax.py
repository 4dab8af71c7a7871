"""Checkpoints that flax wrote: one object in MessagePack, a tree of names whose arrays are extensions.

Read without flax and without MessagePack's library: of the many things that an object may be, only trees and arrays of
floats are of interest, and those are mapped, not copied.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.weights.files import MOST_NAMES, WeightsError, check_file, looks_like

_ARRAY, _CHUNKED = 1, "__msgpack_chunked_array__"
_DTYPES = {
    b"float16": torch.float16,
    b"bfloat16": torch.bfloat16,
    b"float32": torch.float32,
    b"float64": torch.float64,
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = dict(zip((0xCA, 0xCB, *range(0xCC, 0xD4)), "fdBHIQbhiq", strict=True))
_LENGTHS = {0xC4: "B", 0xC5: "H", 0xC6: "I", 0xD9: "B", 0xDA: "H", 0xDB: "I"}  # of bytes and of strings
_EXTENSIONS = {0xC7: "B", 0xC8: "H", 0xC9: "I"}
_LISTS, _MAPS = {0xDC: "H", 0xDD: "I"}, {0xDE: "H", 0xDF: "I"}
# Far more than any checkpoint has, with the state of its optimizer: a tree's depth, its values, the bytes of a name.
_DEPTH, _VALUES, _NAME = 32, 100_000, 1000


def is_flax(path: Path) -> bool:
    """Whether a file begins as MessagePack's map with something in it does."""
    check_file(path)
    with path.open("rb") as file:
        first = file.read(1)
    return first != b"\x80" and (b"\x80" < first < b"\x90" or first in (b"\xde", b"\xdf"))


def newest_checkpoint(folder: Path) -> Path | None:
    """The file ``checkpoint_N`` of a trainer's folder whose N is the highest, or the file ``checkpoint``."""
    numbers = {path: path.name.removeprefix("checkpoint").removeprefix("_") for path in folder.glob("checkpoint*")}
    found = {path: int(number or 0) for path, number in numbers.items() if number.isdecimal() or not number}
    return max((path for path in found if path.is_file() and is_flax(path)), key=lambda path: found[path], default=None)


def read_flax(path: Path) -> dict[str, Tensor]:
    """The arrays of floats of a checkpoint, by names joined by "/"; mapped, so that only what is used is read.

    Whatever follows the object is left alone: some downloads have more at their end. Raises WeightsError.
    """
    check_file(path)
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants memory that could be written
            return _named(_Reader(memoryview(data)).value())
        except (ValueError, OverflowError, RuntimeError) as error:
            raise WeightsError(
                f"{path}: no whole checkpoint of flax ({looks_like(path) or error}); fetch it again"
            ) from None


def _named(tree: Any) -> dict[str, Tensor]:
    if not isinstance(tree, dict):
        raise ValueError("it is no tree of names")
    found: dict[str, Tensor] = {}
    length = 0
    for name, array in _leaves(tree):
        length += len(name)
        if length > 4 * MOST_NAMES:
            raise ValueError(f"its names are longer than {4 * MOST_NAMES:,} bytes")
        found[name] = array
    return found


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in tree.items():
        if isinstance(value, Tensor):
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}/")


class _Reader:
    """Reads one object: maps, and lists by their numbers, as dicts; bytes and strings as views; what is of no interest
    as None."""

    def __init__(self, data: memoryview, depth: int = 0) -> None:
        self._data, self._at, self._depth, self._values = data, 0, depth, 0

    def value(self) -> Any:
        self._values += 1
        if self._values > _VALUES:
            raise ValueError(f"more than {_VALUES:,} values")
        code = self._take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code < 0x90:
            return self._map(code & 0x0F)
        if code < 0xA0:
            return self._list(code & 0x0F)
        if code < 0xC0:
            return self._take(code & 0x1F)
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code in _LENGTHS:
            return self._take(self._number(_LENGTHS[code]))
        if code in _LISTS:
            return self._list(self._number(_LISTS[code]))
        if code in _MAPS:
            return self._map(self._number(_MAPS[code]))
        if code == 0xC1:
            raise ValueError("a byte that has no meaning in MessagePack")
        size = self._number(_EXTENSIONS[code]) if code in _EXTENSIONS else 1 << (code - 0xD4)
        kind, content = self._number("b"), self._take(size)
        return _array(content) if kind == _ARRAY else None

    def _take(self, size: int) -> memoryview:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise ValueError("it ends too early")
        return self._data[start : self._at]

    def _number(self, kind: str) -> Any:
        return struct.unpack(f">{kind}", self._take(struct.calcsize(f">{kind}")))[0]

    def _list(self, length: int) -> dict[str, Any]:
        return self._inside(str(i) for i in range(length))

    def _map(self, length: int) -> Any:
        tree = self._inside(self._name() for _ in range(length))
        return _joined(tree) if _CHUNKED in tree else tree

    def _inside(self, names: Iterator[str]) -> dict[str, Any]:
        self._depth += 1
        if self._depth > _DEPTH:
            raise ValueError(f"nested more than {_DEPTH} deep")
        tree = {name: self.value() for name in names}
        self._depth -= 1
        return tree

    def _name(self) -> str:
        name = self.value()
        if not isinstance(name, memoryview) or len(name) > _NAME:
            raise ValueError("a name that is no string, or a very long one")
        return str(name, "utf-8")


def _array(content: memoryview) -> Tensor | None:
    """An array: its shape, the name of its type, its bytes. None where they are no floats."""
    parts = _Reader(content, _DEPTH - 2).value()
    if not isinstance(parts, dict) or len(parts) != 3:
        raise ValueError("an array that is none")
    shape, name, data = parts.values()
    if not isinstance(name, memoryview) or not isinstance(data, memoryview):
        raise ValueError("an array that is none")
    if (dtype := _DTYPES.get(bytes(name[:16]))) is None:
        return None
    sizes = _sizes(shape)
    if math.prod(sizes) * dtype.itemsize != len(data):
        raise ValueError(f"an array claims the shape {sizes}, which its {len(data):,} bytes do not hold")
    return (torch.frombuffer(data, dtype=dtype) if len(data) else torch.empty(0, dtype=dtype)).reshape(sizes)


def _joined(tree: Mapping[str, Any]) -> Tensor:
    """An array of more than a gigabyte, which flax cuts into chunks."""
    sizes, chunks = _sizes(tree.get("shape")), tree.get("chunks")
    if not isinstance(chunks, dict) or not chunks or not all(isinstance(x, Tensor) for x in chunks.values()):
        raise ValueError("an array in chunks that is none")
    held = sum(x.numel() for x in chunks.values())
    if math.prod(sizes) != held:
        raise ValueError(f"an array in chunks claims the shape {sizes}, and has {held:,} numbers")
    return torch.cat([x.flatten() for x in chunks.values()]).reshape(sizes)


def _sizes(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape.values()) if isinstance(shape, dict) else (-1,)
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes):
        raise ValueError("an array whose shape is none")
    return sizes
