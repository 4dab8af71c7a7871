"""Writes what flax writes: MessagePack with arrays as extensions, by a packer of the tests' own."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_flax(path: Path, parameters: Mapping[str, np.ndarray], *around: str, **beside: Any) -> Path:
    """``parameters`` by names with "/", inside the keys ``around``, with ``beside`` at the top."""
    tree = nested(parameters)
    for key in reversed(around):
        tree = {key: tree}
    path.write_bytes(packed({**tree, **beside}))
    return path


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, last = name.split("/")
        inside = tree
        for folder in folders:
            inside = inside.setdefault(folder, {})
        inside[last] = value
    return tree


def chunked(array: np.ndarray, size: int) -> dict[str, Any]:
    """An array as flax stores those of more than a gigabyte."""
    flat = array.reshape(-1)
    chunks = [flat[i : i + size] for i in range(0, flat.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): n for i, n in enumerate(array.shape)},
        "chunks": {str(i): chunk for i, chunk in enumerate(chunks)},
    }


def packed(value: Any) -> bytes:
    match value:
        case None | bool():
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        case int() if 0 <= value < 128:
            return bytes([value])
        case int():
            return struct.pack(">Bq", 0xD3, value)
        case float():
            return struct.pack(">Bd", 0xCB, value)
        case str() if len(text := value.encode()) < 32:
            return bytes([0xA0 + len(text)]) + text
        case str():
            return struct.pack(">BH", 0xDA, len(value.encode())) + value.encode()
        case bytes():
            return struct.pack(">BI", 0xC6, len(value)) + value
        case np.ndarray():
            return _extension(1, [list(value.shape), value.dtype.name, value.tobytes()])
        case np.generic():
            return _extension(3, [[], value.dtype.name, value.tobytes()])
        case complex():
            return _extension(2, [value.real, value.imag])
        case dict():
            head = bytes([0x80 + len(value)]) if len(value) < 16 else struct.pack(">BH", 0xDE, len(value))
            return head + b"".join(packed(key) + packed(inner) for key, inner in value.items())
        case list() | tuple():
            head = bytes([0x90 + len(value)]) if len(value) < 16 else struct.pack(">BH", 0xDC, len(value))
            return head + b"".join(map(packed, value))
        case _:
            raise TypeError(type(value))


def _extension(kind: int, content: Any) -> bytes:
    data = packed(content)
    return struct.pack(">BIb", 0xC9, len(data), kind) + data
