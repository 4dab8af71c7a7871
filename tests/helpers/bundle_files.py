"""Writes what TensorFlow writes: an index in LevelDB's format and a file of numbers, by a writer of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
MAGIC = 0xDB4775248B80FB57


def write_bundle(prefix: Path, arrays: Mapping[str, np.ndarray], before: str = "", after: str = VALUE) -> Path:
    """``arrays`` by the names ``before`` + name + ``after``; the files are called ``prefix.index`` and so on."""
    data, entries = bytearray(), {b"": field(1, 1) + field(2, 0)}
    for name, x in sorted(arrays.items()):
        shape = b"".join(field(2, field(1, n)) for n in x.shape)
        offset, content = len(data), x.tobytes()
        data += content
        entry = field(1, DTYPES[x.dtype.name]) + field(2, shape) + field(4, offset) + field(5, len(content))
        entries[(before + name + after).encode()] = entry + b"\x35" + b"\0\0\0\0"
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries))
    return prefix


def table(entries: Mapping[bytes, bytes], per_block: int = 5) -> bytes:
    """Blocks of a few entries, an empty block for what a table says of itself, the block that lists the others."""
    content, handles = bytearray(), {}
    keys = sorted(entries)
    for group in (keys[i : i + per_block] for i in range(0, len(keys), per_block)):
        handles[group[-1]] = append(content, block((key, entries[key]) for key in group))
    about = append(content, block(iter(())))
    listed = append(content, block(iter(sorted(handles.items()))))
    return bytes(content) + (about + listed).ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def append(content: bytearray, made: bytes) -> bytes:
    """Put a block at the end, not compressed and without its checksum; where it lies."""
    place = varint(len(content)) + varint(len(made))
    content += made + b"\0" * 5
    return place


def block(entries: Iterator[tuple[bytes, bytes]]) -> bytes:
    made, last = bytearray(), b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        made += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(made) + bytes(4) + (1).to_bytes(4, "little")


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])
