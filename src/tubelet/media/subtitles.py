"""Captions with times: from SRT and WebVTT files, and from the subtitle track of a video."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from av.container import InputContainer
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from tubelet.media.containers import FFMPEG_ERRORS, check_file, describe, open_container, reading
from tubelet.media.errors import MediaError
from tubelet.media.streams import film

SUFFIXES = (".srt", ".vtt")
_TEXT_TRACKS = ("mov_text", "subrip", "srt", "webvtt", "ass", "ssa", "text")

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
# Tags such as <i>, </font>, <c.yellow>, <v Bob> and <00:01.500>, and SSA's {\an8}; "1 < 2" is no tag.
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>|</?>|<\d[\d:.]*>|\{\\[^{}]*\}")

_LANGUAGE = r"(?s)(?P<stem>.+)\.(?P<language>[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*)"  # as in clip.en or clip.pt-BR


class Caption(NamedTuple):
    """A text, and when it is shown: seconds on the video's timeline."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Subtitles:
    """The ``captions`` of a file in the order of their starts; they may overlap. ``skipped``: cues that are malformed,
    each as an error with the file and the line."""

    captions: tuple[Caption, ...]
    skipped: tuple[MediaError, ...] = ()


def read_subtitles(path: str | Path) -> Subtitles:
    """The captions of an SRT or WebVTT file, as plain text: without tags, line breaks and cue settings.

    The encoding is UTF-8 (UTF-16 with a byte order mark), else Windows-1252. Hours may be left out; cues without text
    are. A cue whose times cannot be read, or that ends before it begins, is skipped and told in ``skipped``: a single
    one should not cost a video. A WebVTT file may have no cues at all. Raises :class:`MediaError` where there is no
    such file, where none of its cues can be read, and where another file has none.
    """
    check_file(path)
    with reading(path):
        lines = re.split(r"\r\n|\r|\n", _decoded(Path(path).read_bytes()))
    captions, skipped, cues = list[Caption](), list[MediaError](), 0
    for cue in _cues(lines):
        cues += 1
        times = _TIMES.fullmatch(cue.times)
        start, end = (_seconds(times.groups()[i : i + 4]) for i in (0, 4)) if times else (0.0, -1.0)
        if times is None or end < start:
            why = f"line {cue.line}: {cue.times.strip()!r} must be two times in order, such as 00:01.500 --> 00:03.000"
            skipped.append(MediaError(str(path), None, f"{why}; the cue is left out"))
        elif text := _plain(" ".join(cue.text)):
            captions.append(Caption(start, end, text))
    if not captions and (skipped or not (cues or lines[0].startswith("WEBVTT"))):
        reason = skipped[0].reason if skipped else "there are no cues in it: lines such as 00:01.500 --> 00:03.000"
        raise MediaError(str(path), None, f"no subtitles that can be read; {reason}")
    return Subtitles(tuple(sorted(captions, key=lambda caption: caption[:2])), tuple(skipped))


def subtitles_beside(path: str | Path) -> str | None:
    """The subtitle file of the same stem beside a media file: ``clip.srt`` or ``clip.vtt`` for ``clip.mp4``, else one
    with a language between, English first: ``clip.en.srt``."""
    folder, name = os.path.split(path)
    try:
        changed = os.stat(folder or ".").st_mtime_ns
    except OSError:
        return None
    found = _beside(folder or ".", changed).get(os.path.splitext(name)[0])
    return None if found is None else os.path.join(folder, found)


@lru_cache(maxsize=64)
def _beside(folder: str, changed: int) -> dict[str, str]:
    """The subtitle file of each stem in a folder, which is listed once while it stays the same."""
    ranked: list[tuple[tuple[int, str], str, str]] = []
    for name in os.listdir(folder):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SUFFIXES:
            ranked.append(((0, suffix.lower()), stem, name))
            if match := re.fullmatch(_LANGUAGE, stem):
                ranked.append(((1 if match["language"].lower().startswith("en") else 2, name), match["stem"], name))
    found: dict[str, str] = {}
    for _, stem, name in sorted(ranked):
        found.setdefault(stem, name)
    return found


def has_track(path: str | Path) -> bool:
    """Whether a media file has a subtitle track of text. Raises :class:`MediaError` where it cannot be opened."""
    with open_container(path) as container:
        return _track(container) is not None


def read_track(path: str | Path) -> Subtitles:
    """The captions of a media file's first subtitle track of text; none where it has no such track.

    Time 0 is that of the first picture. Tracks of pictures, as on DVDs, are not read. Raises :class:`MediaError` where
    the file cannot be read.
    """
    with open_container(path) as container:
        stream = _track(container)
        if stream is None:
            return Subtitles(())
        picture = film(container)
        zero = float((picture.start_time or 0) * (picture.time_base or 0)) if picture else 0.0
        try:
            captions = tuple(_shown(container, stream, zero))
        except FFMPEG_ERRORS as error:
            raise MediaError(str(path), None, f"its subtitles cannot be decoded ({describe(error)})") from error
    return Subtitles(tuple(sorted(captions, key=lambda caption: caption[:2])))


class _Cue(NamedTuple):
    line: int
    times: str
    text: list[str]


def _cues(lines: list[str]) -> Iterator[_Cue]:
    """What stands between an arrow and the next empty line, or the next arrow and the number before it. Whatever else
    the file has (numbers, names, notes, styles) belongs to no cue."""
    cue: _Cue | None = None
    for number, line in enumerate(lines, 1):
        if "-->" in line:
            if cue is not None:
                if cue.text and cue.text[-1].strip().isdecimal():
                    cue.text.pop()
                yield cue
            cue = _Cue(number, line, [])
        elif not line.strip():
            if cue is not None:
                yield cue
            cue = None
        elif cue is not None:
            cue.text.append(line)
    if cue is not None:
        yield cue


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, rest = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{rest}")


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAGS.sub("", text)).split())


def _track(container: InputContainer) -> SubtitleStream | None:
    streams = container.streams.subtitles
    return next((s for s in streams if s.codec_context and s.codec_context.name in _TEXT_TRACKS), None)


def _shown(container: InputContainer, stream: SubtitleStream, zero: float) -> Iterator[Caption]:
    for packet in container.demux(stream):
        if packet.pts is None or not packet.size:
            continue
        start, seconds = (float(ticks * (stream.time_base or 0)) for ticks in (packet.pts, packet.duration or 0))
        found = stream.decode2(packet)
        lines = [_dialogue(part) for part in found or () if isinstance(part, AssSubtitle)]
        if text := _plain(" ".join(lines)):
            yield Caption(max(0.0, start - zero), max(0.0, start + seconds - zero), text)


def _dialogue(part: AssSubtitle) -> str:
    """FFmpeg gives every text as a line of ASS: eight fields, and what is said, with \\N for a new line."""
    said = part.ass.decode("utf-8", errors="replace").split(",", 8)[-1]
    return re.sub(r"\\[Nnh]", " ", said)
