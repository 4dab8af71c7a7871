"""What kind of media a file is: its suffix says which files of a folder are media, the contents what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute

from tubelet.data.facts import glance
from tubelet.data.records import FILE, Codes, Record, Records
from tubelet.media.images import SUFFIXES

pc: Any = pyarrow.compute  # its functions are made when it is imported, which type checkers cannot see

Kind = Literal["image", "video", "audio"]

_SUFFIXES: dict[Kind, str] = {
    "video": ".mp4 .m4v .mov .qt .mkv .webm .avi .divx .mpg .mpeg .mpe .m1v .m2v .vob .ts .mts .m2ts .m2t .wmv .asf "
    ".flv .f4v .swf .3gp .3g2 .ogv .ogm .rm .rmvb .mxf .dv .nut .ivf .y4m .h264 .264 .hevc .h265 .265 .mjpeg .mjpg "
    ".gif",
    "image": " ".join([*SUFFIXES, ".heic .heif"]),
    "audio": ".wav .wave .w64 .flac .mp3 .mp2 .mpga .ogg .oga .opus .spx .m4a .m4b .mka .aac .ac3 .eac3 .dts .aif "
    ".aiff .aifc .au .snd .caf .wma .amr .ape .wv .tta .ra",
}
_KINDS: dict[str, Kind] = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_OPENED = 3  # files of each suffix, whose contents say what all are


def kind_of_file(path: str | Path) -> Kind | None:
    """None for a suffix that says nothing."""
    return _KINDS.get(Path(path).suffix.strip().lower())


def kinds_of(records: Sequence[Record], file: str = "") -> dict[Kind | None, Record]:
    """The kinds of a data set's files, each with the first record of it; or of the second files ``file``."""
    found: dict[Kind | None, Record] = {}
    for kind, record in kinds_by_suffix(records, file).values():
        found.setdefault(kind, record)
    return found


def kinds_by_suffix(records: Sequence[Record], file: str = "") -> dict[str, tuple[Kind | None, Record]]:
    """The kind of the files of each suffix, and the first record of them, in the order of these.

    It is that of most of those whose contents are looked at, a few of each suffix. The suffix itself tells where none
    of them can be read.
    """
    records = Records.of(records)
    paths = records.column(FILE + file if file else "path")
    suffixes = Codes.of(pc.replace_substring_regex(paths, r"(?s)^.*?(\.[^./]*)?$", r"\1"))
    codes, first = np.unique(suffixes.codes, return_index=True)
    found: dict[str, tuple[Kind | None, Record]] = {}
    for place, code in sorted(zip(first.tolist(), codes.tolist(), strict=True)):
        alike = np.flatnonzero(suffixes.codes == code)
        some = [records[i] for i in alike[:: -(-len(alike) // _OPENED)].tolist()]
        seen = filter(None, (glance(record.paths[file] if file else record.path) for record in some))
        kinds: Counter[Kind] = Counter(info.kind for info in seen)
        by_suffix = _KINDS.get(suffixes.names[code].lower())
        kind = max(kinds, key=lambda kind: (kinds[kind], kind == by_suffix)) if kinds else by_suffix
        found.setdefault(suffixes.names[code].lower(), (kind, records[place]))
    return found


def kind_of(records: Sequence[Record]) -> Kind:
    """The kind that all files of a data set are. Raises ValueError for a mixture, or where no suffix tells."""
    first: dict[Kind, str] = {kind: record.path for kind, record in kinds_of(records).items() if kind is not None}
    if len(first) > 1:
        found = ", ".join(f"{kind} ({path})" for kind, path in first.items())
        raise ValueError(
            f"files of several kinds: {found}; keep one kind in a folder or manifest, and train on several of them "
            "together if you want them all"
        )
    if not first:
        example = f", such as {records[0].path}" if records else ""
        known = " ".join(_KINDS)
        raise ValueError(
            f"no file whose suffix tells its kind{example}, nor its contents; the suffixes known are {known}"
        )
    return next(iter(first))
