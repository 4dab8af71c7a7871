"""Which examples a report shows, and small files of them that a browser plays."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tubelet.evaluation.predictions import Scored
from tubelet.media.audio import read_audio
from tubelet.media.heat import spectrogram_picture
from tubelet.media.images import read_image
from tubelet.media.info import Kind, probe
from tubelet.media.spectrogram import log_mel
from tubelet.media.video import open_video
from tubelet.media.write import write_sound, write_video
from tubelet.specs import SpectrogramSpec

_SECONDS, _RATE, _SHORT_SIDE, _LONG_SIDE = 6.0, 25.0, 192, 1024
_NARROWEST = 48  # times that a side goes into the other: a line of pixels is widened to this, so that it can be seen
_EAR = SpectrogramSpec()  # for a person's eye: whatever the model's own bins
_DEPTH = 12.0  # nepers below the loudest that are shown: what is fainter, an eye takes for noise


def choose(examples: Sequence[Scored], count: int) -> tuple[list[Scored], list[Scored]]:
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


def cut(example: Scored, folder: Path, *, heard: bool = False) -> Preview:
    """Write the first seconds of an example into ``folder``: as a small mp4, an image as a PNG, a sound as an m4a.

    ``heard``: the model saw nothing but the sound of it, so that a video's pictures are left out. Raises MediaError
    where the file cannot be read any more.
    """
    part = f"{heard} {example.path} {example.start} {example.end}"
    target = folder / hashlib.sha256(part.encode()).hexdigest()[:16]
    info = probe(example.path)
    if info.kind == "image":
        return _image(example.path, target.with_suffix(".png"))
    end = min(info.duration if example.end is None else example.end, example.start + _SECONDS)
    if heard or info.kind == "audio":
        return _sound(example.path, example.start, end, target)
    return _video(example.path, example.start, end, target.with_suffix(".mp4"))


def _image(path: str, target: Path) -> Preview:
    picture = shrink(read_image(path)[None])[0]
    _save(picture, target)
    return Preview(target, "image", picture.shape[-1])


def _sound(path: str, start: float, end: float, target: Path) -> Preview:
    samples = read_audio(path, start, max(end, start + _EAR.window), _EAR.rate)
    spectrogram = log_mel(samples, _EAR)
    picture = spectrogram_picture(spectrogram.clamp_min(spectrogram.amax().item() - _DEPTH))
    sound, drawn = target.with_suffix(".m4a"), target.with_suffix(".png")
    write_sound(sound, samples, _EAR.rate)
    _save(picture, drawn)
    return Preview(sound, "audio", picture.shape[-1], drawn)


def _video(path: str, start: float, end: float, target: Path) -> Preview:
    with open_video(path) as decoder:
        rate = min(_RATE, decoder.probe().fps)
        times = [start + i / rate for i in range(max(1, int((end - start) * rate)))]
        frames = shrink(decoder.frames_at(times).frames)
    write_video(target, frames, fps=rate)
    return Preview(target, "video", frames.shape[-1])


def _save(picture: Tensor, target: Path) -> None:
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(target)


def shrink(frames: Tensor) -> Tensor:
    """uint8 frames (T, 3, H, W) with even sides of 2 pixels at least, brought down to a card's size where larger."""
    short, long = sorted(frames.shape[-2:])
    scale = min(1.0, _SHORT_SIDE / short, _LONG_SIDE / long)
    least = max(2.0, scale * long / _NARROWEST)
    if scale == 1 and short >= least:
        return frames[..., : frames.shape[-2] // 2 * 2, : frames.shape[-1] // 2 * 2]
    size = [round(max(scale * side, least) / 2) * 2 for side in frames.shape[-2:]]
    resized = torch.nn.functional.interpolate(frames.float(), size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
