"""Protocol buffers: the fields of a message, by their numbers. What they mean, whoever reads the message knows."""

from __future__ import annotations

from collections.abc import Iterator

View = memoryview


def fields(message: View) -> Iterator[tuple[int, int | View]]:
    """The fields of a message in their order: a number and a value, which is a whole number, or bytes that are not
    copied; those of fixed width are numbers, too. Raises ValueError or IndexError where the message is damaged."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        match tag & 7:
            case 0:
                value, at = varint(message, at)
            case 1 | 5 as kind:
                width = 8 if kind == 1 else 4
                value, at = int.from_bytes(message[at : at + width], "little"), at + width
            case 2:
                length, at = varint(message, at)
                value, at = message[at : at + length], at + length
            case _:
                raise ValueError("a damaged field")
        if at > len(message):
            raise ValueError("a damaged field, which ends too late")
        yield tag >> 3, value


def varint(data: View, at: int) -> tuple[int, int]:
    """A whole number of 64 bits at most and at least 0, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a damaged number")
