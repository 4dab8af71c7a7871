"""The examples of a report: which are shown, small files of them that a browser plays, and the HTML around them."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain, zip_longest
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tubelet.data.manifest import LABEL
from tubelet.evaluation.predictions import Scored
from tubelet.media.audio import read_audio
from tubelet.media.errors import MediaError
from tubelet.media.heat import spectrogram_picture
from tubelet.media.images import read_image
from tubelet.media.info import Kind, probe
from tubelet.media.spectrogram import log_mel
from tubelet.media.video import in_batches, open_video
from tubelet.media.write import write_sound, write_video
from tubelet.specs import SpectrogramSpec

_SECONDS, _RATE, _SHORT_SIDE, _LONG_SIDE = 6.0, 25.0, 192, 1024
_LARGEST_RATIO = 48  # of the longer side to the shorter; a narrower picture is widened, so that it can be seen
_SPECTROGRAM = SpectrogramSpec()  # of every sound that is drawn, whatever the model uses
_DYNAMIC_RANGE = 12.0  # nepers below the loudest bin; anything fainter is drawn as silence


def report_examples(examples: Sequence[Scored], media: Path, count: int, *, audio_only: bool = False) -> str:
    """HTML of at most ``count`` mistakes and as many right answers; their files are written into ``media``.

    ``audio_only``: show the sound alone, also of a video, because the model got nothing else. The page that holds the
    HTML must lie beside the folder ``media``.
    """
    if not examples[0].top:
        return _farthest(examples, media, count, audio_only)
    mistakes, right = pick_examples(examples, count)
    wrong_in_all = sum(not example.right for example in examples)
    html = ""

    def cards(shown: Sequence[Scored]) -> str:
        wide = " sounds" if audio_only else ""
        return f'<div class="clips{wide}">{"".join(_card(example, media, audio_only) for example in shown)}</div>'

    if mistakes:
        are = "file is" if wrong_in_all == 1 else "files are"
        order = "The mistakes that the model was surest of come first." if len(mistakes) > 1 else ""
        shown = f" {len(mistakes):,} of them are shown." if len(mistakes) < wrong_in_all else ""
        html += (
            f'<h3>Where it fails</h3><p class="soft">{wrong_in_all:,} of {len(examples):,} {are} named wrong.{shown} '
            f"{order} The percentages say how sure it was.</p>{cards(mistakes)}"
        )
    if right:
        html += f"<h3>What it gets right</h3>{cards(right)}"
    return html


def _farthest(examples: Sequence[Scored], media: Path, count: int, audio_only: bool) -> str:
    """Those whose number is farthest off, and those where it is closest."""

    def truth(example: Scored, name: str) -> float:
        return float(example.labels[name][0])

    spread = {name: float(np.std([truth(e, name) for e in examples])) or 1.0 for name in examples[0].numbered}

    def off(example: Scored) -> float:
        return max(abs(example.numbers[name] - truth(example, name)) / spread[name] for name in spread)

    def card(example: Scored) -> str:
        said = "; ".join(
            f"{'' if name == LABEL else f'{name}: '}{example.numbers[name]:.4g}, really {truth(example, name):.4g}"
            for name in spread
        )
        return (
            f'<div class="clip" title="{escape(example.key)}">{_shown(example, media, audio_only)}<div class="text">'
            f'<div class="file">{escape(PurePath(example.key).name)}</div><div class="truth">{escape(said)}</div>'
            "</div></div>"
        )

    if not spread:
        return ""
    ordered, wide = sorted(examples, key=off, reverse=True), " sounds" if audio_only else ""
    shown = min(count, len(ordered) // 2)
    parts = (("Where it is farthest off", ordered[:shown]), ("Where it is closest", ordered[len(ordered) - shown :]))
    return "".join(
        f'<h3>{title}</h3><div class="clips{wide}">{"".join(map(card, part))}</div>' for title, part in parts if part
    )


def _shown(example: Scored, media: Path, audio_only: bool) -> str:
    try:
        return _player(make_preview(example, media, audio_only=audio_only), media.name)
    except MediaError as error:
        return f'<div class="text soft">{escape(str(error))}</div>'


def _card(example: Scored, media: Path, audio_only: bool) -> str:
    truth = ", ".join(label for labels in example.labels.values() for label in labels)
    state, shown = "right" if example.right else "wrong", _shown(example, media, audio_only)
    answers = "".join(_answers(top[:3], example.labels.get(name, ())) for name, top in example.top.items())
    really = "" if example.right else '<span class="soft">really</span> '
    words = "" if example.right else '<div class="soft">but answered</div>'
    return (
        f'<div class="clip {state}" title="{escape(example.key)}">{shown}<div class="text">'
        f'<div class="file">{escape(PurePath(example.key).name)}</div>'
        f'<div class="truth">{really}{escape(truth)}</div>{words}{answers}</div></div>'
    )


def _player(preview: Preview, folder: str) -> str:
    source = f"{folder}/{preview.path.name}"
    style = ' class="pixels"' if preview.width < 128 else ""
    if preview.picture is not None:
        image = f'<img class="spectrogram" src="{folder}/{preview.picture.name}" alt="its spectrogram">'
        return f'{image}<audio src="{source}" controls preload="metadata"></audio>'
    if preview.kind == "video":
        return f'<video{style} src="{source}" autoplay muted loop playsinline></video>'
    return f'<img{style} src="{source}" alt="">'


def _answers(top: Sequence[tuple[str, float]], truth: Sequence[str]) -> str:
    def row(place: int, label: str, p: float) -> str:
        mark = " hit" if label in truth else " miss" if place == 0 else ""
        return (
            f'<div class="answer{mark}"><i style="width:{100 * p:.1f}%"></i>'
            f'<span class="label">{escape(label)}</span><span>{p:.0%}</span></div>'
        )

    return "".join(row(place, label, p) for place, (label, p) in enumerate(top))


def pick_examples(examples: Sequence[Scored], count: int) -> tuple[list[Scored], list[Scored]]:
    """At most ``count`` mistakes, the most confident first, and as many right answers, one class after another."""
    mistakes = sorted((e for e in examples if not e.right), key=lambda e: -e.confidence)
    by_class: defaultdict[str, list[Scored]] = defaultdict(list)
    for example in examples:
        if example.right:
            by_class[str(example.labels)].append(example)
    in_turn = chain.from_iterable(zip_longest(*(by_class[name] for name in sorted(by_class))))
    return mistakes[:count], [example for example in in_turn if example is not None][:count]


@dataclass(frozen=True)
class Preview:
    """A small media file: ``kind`` is "video", "image" or "audio", of which ``picture`` is the spectrogram.

    ``width``: of the pictures, in pixels.
    """

    path: Path
    kind: Kind
    width: int
    picture: Path | None = None


def make_preview(example: Scored, folder: Path, *, audio_only: bool = False) -> Preview:
    """Write the first seconds of an example into ``folder``: as a small mp4, an image as a PNG, a sound as an m4a.

    ``audio_only``: the sound alone, also of a video, because the model got nothing else. Raises MediaError where the
    file can no longer be read.
    """
    part = f"{audio_only} {example.path} {example.start} {example.end}"
    target = folder / hashlib.sha256(os.fsencode(part)).hexdigest()[:16]
    info = probe(example.path)
    if info.kind == "image":
        return _image(example.path, target.with_suffix(".png"))
    end = min(info.duration if example.end is None else example.end, example.start + _SECONDS)
    if audio_only or info.kind == "audio":
        return _sound(example.path, example.start, end, target)
    return _video(example.path, example.start, end, target.with_suffix(".mp4"))


def _image(path: str, target: Path) -> Preview:
    picture = _shrink(read_image(path)[None])[0]
    _save(picture, target)
    return Preview(target, "image", picture.shape[-1])


def _sound(path: str, start: float, end: float, target: Path) -> Preview:
    samples = read_audio(path, start, max(end, start + _SPECTROGRAM.window), _SPECTROGRAM.rate)
    spectrogram = log_mel(samples, _SPECTROGRAM)
    picture = spectrogram_picture(spectrogram.clamp_min(spectrogram.amax().item() - _DYNAMIC_RANGE))
    sound, drawn = target.with_suffix(".m4a"), target.with_suffix(".png")
    write_sound(sound, samples, _SPECTROGRAM.rate)
    _save(picture, drawn)
    return Preview(sound, "audio", picture.shape[-1], drawn)


def _video(path: str, start: float, end: float, target: Path) -> Preview:
    with open_video(path) as decoder:
        rate = min(_RATE, decoder.probe().fps)
        times = [start + i / rate for i in range(max(1, int((end - start) * rate)))]
        frames = torch.cat([_shrink(batch.frames) for batch in in_batches(decoder, times)])
    write_video(target, frames, fps=rate)
    return Preview(target, "video", frames.shape[-1])


def _save(picture: Tensor, target: Path) -> None:
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(target)


def _shrink(frames: Tensor) -> Tensor:
    """uint8 frames (T, 3, H, W) with even sides of 2 pixels at least, brought down to a card's size where larger."""
    short, long = sorted(frames.shape[-2:])
    scale = min(1.0, _SHORT_SIDE / short, _LONG_SIDE / long)
    least = max(2.0, scale * long / _LARGEST_RATIO)
    if scale == 1 and short >= least:
        return frames[..., : frames.shape[-2] // 2 * 2, : frames.shape[-1] // 2 * 2]
    size = [round(max(scale * side, least) / 2) * 2 for side in frames.shape[-2:]]
    resized = torch.nn.functional.interpolate(frames.float(), size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
