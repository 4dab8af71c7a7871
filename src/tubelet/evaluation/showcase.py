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
from tubelet.media.images import read_image
from tubelet.media.info import probe
from tubelet.media.video import open_video
from tubelet.media.write import write_video

_SECONDS, _RATE, _SHORT_SIDE = 6.0, 25.0, 192


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
class Cutting:
    """A small media file: ``kind`` is "video" or "image"; ``width`` in pixels."""

    path: Path
    kind: str
    width: int


def cut(example: Scored, folder: Path) -> Cutting:
    """Write the first seconds of an example as a small mp4 (or its image as a PNG) into ``folder``.

    Raises MediaError where the file cannot be read any more.
    """
    name = hashlib.sha256(example.key.encode()).hexdigest()[:16]
    if probe(example.path).kind == "image":
        picture = shrink(read_image(example.path)[None])[0]
        target = folder / f"{name}.png"
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(target)
        return Cutting(target, "image", picture.shape[-1])
    with open_video(example.path) as decoder:
        info = decoder.probe()
        rate = min(_RATE, info.fps)
        start = example.start
        end = min(info.duration if example.end is None else example.end, start + _SECONDS)
        times = [start + i / rate for i in range(max(1, int((end - start) * rate)))]
        frames = shrink(decoder.frames_at(times).frames)
    target = folder / f"{name}.mp4"
    write_video(target, frames, fps=rate)
    return Cutting(target, "video", frames.shape[-1])


def shrink(frames: Tensor) -> Tensor:
    """uint8 frames (T, 3, H, W) with even sides, the short one brought down to a card's size where it is larger."""
    short = min(frames.shape[-2:])
    if short <= _SHORT_SIDE:
        return frames[..., : frames.shape[-2] // 2 * 2, : frames.shape[-1] // 2 * 2]
    size = [round(side * _SHORT_SIDE / short / 2) * 2 for side in frames.shape[-2:]]
    resized = torch.nn.functional.interpolate(frames.float(), size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
