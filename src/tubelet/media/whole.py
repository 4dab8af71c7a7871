"""Whether a picture's file holds all of its rows, which decoders do not say: they fill up what is missing."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MISSING = "rows are missing at its end"

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in compressed data these stand for a byte, restarts, and filling
_END = 0xD9
_AHEAD = bytes(16)  # what libjpeg reads past the last block

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's color types
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_AT_ONCE = 1 << 20  # bytes that are inflated at once


def unfinished_jpeg(path: str | Path) -> bytes | None:
    """A JPEG's bytes without the mark of its end, so that a decoder that runs out of data stops, and does not fill up.

    None where it has several scans (as progressive ones have): they are decoded when the end has come, and held in
    memory until then.
    """
    data = Path(path).read_bytes()
    sequential, components, at = False, 0, 2
    while len(data) > at + 4 and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        body, at = data[at + 4 : at + 10], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            sequential, components = kind in (0xC0, 0xC1), body[5]
        if kind == 0xDA:
            if not sequential or body[0] != components:
                return None
            end = _MARKER.search(data, at)
            return data[: end.start()] + _AHEAD if end and data[end.start() + 1] == _END else data
    return None


def check_png(path: str | Path, suspicious: bool) -> None:
    """Raises ValueError where the pixels of a PNG are damaged, or where there are fewer rows than it says.

    ``suspicious``: whether the rows are to be counted, which takes about as long as to decode them.
    """
    header, made, inflate = b"", 0, zlib.decompressobj()
    with Path(path).open("rb") as file:
        for name, body in _chunks(file):
            if name == b"IHDR":
                header = body
            while suspicious and name == b"IDAT" and body:
                made += len(inflate.decompress(body, _AT_ONCE))
                body = inflate.unconsumed_tail
    if suspicious and made < _pixel_bytes(header):
        raise ValueError(MISSING)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents. Raises ValueError where pixels are not as their checksum says."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name not in (b"IHDR", b"IDAT"):
            if name == b"IEND":
                return
            file.seek(size + 4, 1)
            continue
        body, checksum = file.read(size), file.read(4)
        if len(checksum) == 4 and zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(checksum, "big"):
            raise ValueError("the checksum of the pixels is wrong")
        yield name, body


def _pixel_bytes(header: bytes) -> int:
    """How many bytes the rows of a PNG have, each with a byte for its filter."""
    width, height = (int.from_bytes(part, "big") for part in (header[:4], header[4:8]))
    bits = header[8] * _CHANNELS[header[9]]
    total = 0
    for x, y, dx, dy in _ADAM7 if header[12] else ((0, 0, 1, 1),):
        columns, rows = (width - x + dx - 1) // dx, (height - y + dy - 1) // dy
        total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 < rows else 0
    return total
