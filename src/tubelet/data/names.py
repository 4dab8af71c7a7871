r"""File names as text. A name is bytes, and not all bytes are letters: those that are none are written ``\xNN``, and so
is what a table of text may lose: control characters, and spaces at either end.

``caf\xe9.png`` is the file whose name has the byte 233 in it, as old archives in Latin-1 unpack it.
"""

from __future__ import annotations

import os
import re

_CODE = r"x(?:[01][0-9a-f]|20|5c|7f|[89a-f][0-9a-f])"
_ODD = re.compile(rf"[\x00-\x1f\x7f\udc80-\udcff]|^\s+|\s+$|\\(?={_CODE})")
_CODES = re.compile(rf"\\{_CODE}".encode())
_BYTES = os.sep == "/"  # elsewhere names are letters, and a backslash stands between folders


def text_of(path: str) -> str:
    """A path as text that any file can hold; :func:`path_of` gives the path again."""
    if not _BYTES:
        return path
    return _ODD.sub(lambda found: "".join(rf"\x{byte:02x}" for byte in os.fsencode(found[0])), path)


def path_of(text: str) -> str:
    r"""The path that a text means: where it has no ``\xNN``, the text itself."""
    if not _BYTES or "\\x" not in text:
        return text
    return os.fsdecode(_CODES.sub(lambda found: bytes([int(found[0][2:], 16)]), os.fsencode(text)))
