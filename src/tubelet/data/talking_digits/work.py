"""Draws, speaks and writes a part of the files, in a process of its own: ``python -m`` this module.

A fresh process per part makes the voices repeatable (see :class:`~tubelet.data.talking_digits.speech.Speaker`).
"""

from __future__ import annotations

import json
import sys
import wave
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tubelet.data.talking_digits.plan import FPS, FRAMES, SECONDS, Item, Parameters, items
from tubelet.data.talking_digits.scenes import Glyphs
from tubelet.data.talking_digits.speech import RATE, Speaker
from tubelet.media.write import write_video

_MARGIN = round(0.05 * RATE)  # silence before and after the voice of a sound file


def write_part(folder: Path, parameters: Parameters, part: int, parts: int) -> None:
    """Write every ``parts``-th file of the plan, from number ``part``."""
    glyphs, speaker = Glyphs(), Speaker()
    plan = items(parameters, glyphs)
    for parent in sorted({(folder / item.path).parent for item in plan}):
        parent.mkdir(parents=True, exist_ok=True)
    for item in plan[part::parts]:
        _write(item, folder / item.path, parameters.size, glyphs, speaker)


def _write(item: Item, path: Path, size: int, glyphs: Glyphs, speaker: Speaker) -> None:
    voice = speaker.say(item.utterance) if item.utterance else np.zeros(0, np.float32)
    if item.scene:
        frames = torch.from_numpy(item.scene.draw(glyphs, size, FRAMES, FPS))
        sound = np.zeros(round(SECONDS * RATE), np.float32)
        start = int(item.onset * (len(sound) - len(voice)))
        sound[start : start + len(voice)] = voice
        write_video(path, frames, FPS, torch.from_numpy(sound), RATE, keyframe_every=1)  # or traces tell the direction
    elif item.utterance:
        _write_wav(path, np.pad(voice, _MARGIN))
    elif item.glyph is not None:
        Image.fromarray(np.rint(glyphs.picture(item.glyph, size) * 255).astype(np.uint8)).save(path)


def _write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    write_part(Path(sys.argv[1]), Parameters(**json.loads(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]))
