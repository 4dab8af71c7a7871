"""Goldens of VATT's data operations: test windows, crops, resizing, smoothing and mixup."""

from __future__ import annotations

import math
import re

import numpy as np
import torch

from goldens_golden import Golden, close
from training_tiny import experiment
from tubelet.data.geometry import Box, cut
from tubelet.data.transforms import view_boxes
from tubelet.media.clips import clip_times, spread_starts
from tubelet.models import Model
from tubelet.specs import VideoSpec
from tubelet.training.classification import smooth_labels
from tubelet.training.objectives import mixup

_LIKE_A_FRAME = 1e-6  # how much before a frame a time still shows it: what the sum of floats may lose


def check_data_ops(golden: Golden) -> None:
    checks = {
        "linspace": check_windows,
        "middle": check_windows,
        "threecrop": check_crops,
        "resize_smallest": check_resizing,
        "normalize": check_normalization,
        "label_smoothing": check_smoothing,
        "mixup": check_mixup,
    }
    for kind in sorted({name.split("/")[0] for name in golden.arrays}):
        checks[kind](golden)


def check_windows(golden: Golden) -> None:
    """Evenly spread windows and the middle one, of frames and of every second sample; short files are repeated."""
    for kind in ("linspace", "middle"):
        for name, expected in golden.under(f"{kind}/").items():
            match = re.fullmatch(r"len(\d+)(?:_win(\d+))?_n(\d+)_stride(\d+)/(indices|(?:first|last)_index.*)", name)
            assert match, name
            length, windows, count, stride = (int(number or 1) for number in match.groups()[:4])
            whole = match[5] == "indices"  # else the first and the last alone
            frames, step = (count, stride) if whole else (2, stride * (count - 1))
            clips = [clip_times(x, frames, step, length) for x in spread_starts(length, count * stride, windows)]
            ours = np.floor(np.array(clips) + _LIKE_A_FRAME)
            shown = ours.ravel() if whole else ours[:, 0 if match[5].startswith("first") else 1]
            np.testing.assert_array_equal(shown, expected, err_msg=name)


def check_crops(golden: Golden) -> None:
    """A difference: of a room of an odd number of pixels, the released code rounds the half to the even pixel, ours up,
    as the other papers' code does. So the middle crop may lie one pixel further."""
    names = {name.rpartition("/")[0] for name in golden.under("threecrop/")}
    for name in names:
        match = re.fullmatch(r"(\d+)x(\d+)_to(\d+)", name)
        assert match, name
        height, width, side = map(int, match.groups())
        frames = golden.arrays[f"threecrop/{name}/input"]
        crops = np.split(golden.arrays[f"threecrop/{name}/output"], 3)
        spec = VideoSpec(size=(side, side), short_side=min(height, width))
        for place, (box, expected) in enumerate(zip(view_boxes((height, width), spec, 3), crops, strict=True)):
            assert (box.height, box.width) == (side, side)
            along, theirs = int(width >= height), []
            for axis, (ours, room) in enumerate(((box.top, height - side), (box.left, width - side))):
                middle = axis != along or place == 1
                theirs.append(round(room / 2) if middle else room * (place == 2))
                assert ours == (math.ceil(room / 2) if middle else theirs[-1]), (name, place)
            top, left = theirs
            np.testing.assert_array_equal(frames[:, top : top + side, left : left + side], expected, err_msg=name)


def check_resizing(golden: Golden) -> None:
    """Two differences. The released code cuts the fraction of a level off, ours rounds, once for each axis. Where
    pictures shrink, it interpolates between four pixels; ours averages over what each pixel of the result covers."""
    frames = golden.arrays["resize_smallest/input"]
    height, width = frames.shape[1:3]
    for name, expected in golden.under("resize_smallest/output_to").items():
        size = expected.shape[1], expected.shape[2]
        assert min(size) == int(name)
        channels_first = torch.from_numpy(frames).permute(0, 3, 1, 2)
        ours = cut(channels_first, Box(0, 0, height, width), size).permute(0, 2, 3, 1).numpy().astype(np.float64)
        exact = resized(frames, size, averaged=False)
        assert np.all(np.abs(exact - 0.5 - expected) <= 0.5 + 1e-3), "theirs: between four pixels, cut off"
        assert np.all(np.abs(resized(frames, size, averaged=True) - ours) <= 1.0 + 0.02), "ours: averaged"
        if min(size) >= height:
            assert np.all(np.isin(ours - expected, (0, 1))), "the same, but for the fraction of a level"


def resized(frames: np.ndarray, size: tuple[int, int], *, averaged: bool) -> np.ndarray:
    """(T, h, w, C) of triangles about the middles of the new pixels; ``averaged``: as wide as these, where larger."""
    down, across = (triangles(have, need, averaged) for have, need in zip(frames.shape[1:3], size, strict=True))
    return np.einsum("yh,xw,thwc->tyxc", down, across, frames.astype(np.float64))


def triangles(have: int, need: int, averaged: bool) -> np.ndarray:
    scale = have / need
    reach = max(1.0, scale) if averaged else 1.0
    middles = (np.arange(need) + 0.5) * scale - 0.5
    places = middles if averaged else middles.clip(0, have - 1)
    weights = np.maximum(0.0, 1 - np.abs(np.arange(have) - places[:, None]) / reach)
    return weights / weights.sum(1, keepdims=True)


def check_normalization(golden: Golden) -> None:
    """Levels to [-1, 1]."""
    frames = torch.from_numpy(golden.arrays["resize_smallest/input"]).permute(0, 3, 1, 2)[None]
    model = Model(experiment().model.build(), {})
    ours = model.preprocess({"video": frames})["video"][0].permute(0, 2, 3, 1)
    close(ours, golden.arrays["normalize/output_zero_centred"], what="normalize")


def check_smoothing(golden: Golden) -> None:
    ours = smooth_labels(golden.tensor("label_smoothing/input"), 0.1)
    close(ours, golden.arrays["label_smoothing/output"], what="label smoothing")


def check_mixup(golden: Golden) -> None:
    """Each example with its own weight and a partner by a permutation."""
    weights, partners = golden.tensor("mixup/input/lambda")[:, 0], golden.tensor("mixup/input/perm")
    for name in ("x", "y"):
        ours = mixup(golden.tensor(f"mixup/input/{name}"), weights, partners)
        close(ours, golden.arrays[f"mixup/output/{name}"], what=name)
