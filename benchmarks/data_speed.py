"""How much of bare decoding's speed is left once clips are cropped, resized, augmented and brought to the trainer.

The loader (ViViT's augmentation for Kinetics, 32 x 224 x 224 clips) beside bare decoding of the same clips, in turns,
with the same worker processes of one thread each. The videos are synthetic: colored noise that moves, with a fresh
grain in every frame, written as H.264 at 30 frames per second.

    python benchmarks/data_speed.py --json data_speed.json
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import median

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from tubelet.data.augment import Augmentation
from tubelet.data.dataset import TrainSet
from tubelet.data.labels import ClassLabels
from tubelet.data.loader import train_batches
from tubelet.data.manifest import Record
from tubelet.data.stream import Slots, Stream, slots
from tubelet.data.transforms import train_clip
from tubelet.media.info import probe
from tubelet.media.video import open_video
from tubelet.specs import VideoSpec

HEIGHT, WIDTH, FPS = 256, 456, 30
GEOMETRY = Augmentation(color=0, grayscale=0)


@dataclass(frozen=True)
class Speed:
    """Clips per second by the clock, and milliseconds of processor time a clip of this process and its workers."""

    rate: float
    processor: float


@dataclass(frozen=True)
class Round:
    """``ratio`` is that of the rates; ``processor_ratio`` says what it is where nothing else runs on the machine."""

    bare: Speed
    loader: Speed

    @property
    def ratio(self) -> float:
        return self.loader.rate / self.bare.rate

    @property
    def processor_ratio(self) -> float:
        return self.bare.processor / self.loader.processor


def write_synthetic(path: Path, seed: int, seconds: float, gop: int) -> None:
    random = np.random.default_rng(seed)
    blobs = torch.from_numpy(random.uniform(0, 255, (1, 3, 72, 136)).astype(np.float32))
    field = F.interpolate(blobs, scale_factor=8, mode="bicubic").clamp(0, 255).byte()[0].permute(1, 2, 0).numpy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "fast", "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in range(round(seconds * FPS)):
            top, left = int(160 + 150 * np.sin(frame / 40)), 2 * frame % 600
            picture = field[top : top + HEIGHT, left : left + WIDTH].astype(np.int16)
            picture += random.integers(-6, 7, picture.shape, dtype=np.int16)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), "rgb24")))
        container.mux(stream.encode(None))


def records_of(paths: Sequence[Path]) -> list[Record]:
    infos = [probe(path) for path in paths]
    return [Record(info.path, {"label": ("a",)}, key=info.path, duration=info.duration, fps=info.fps) for info in infos]


class BareDecoding(Dataset[int]):
    """The frames of the very clips that the loader gives, decoded and dropped."""

    def __init__(self, examples: TrainSet, stream: Stream) -> None:
        self.examples, self.stream = examples, stream

    def __getitem__(self, key: Slots) -> int:
        for position in range(key.first, key.end):
            index, pass_ = self.stream.at(position)
            with open_video(self.examples.records[index].path) as video:
                video.frames_at(self.examples.times(index, pass_, "video"))
        return key.end - key.first


def bare_batches(examples: TrainSet, keys: Sequence[Slots], workers: int) -> Iterator[int]:
    data = BareDecoding(examples, Stream((len(examples),), 0, "task"))
    context = "fork" if workers else None
    return iter(DataLoader(data, None, sampler=keys, num_workers=workers, worker_init_fn=_one_thread,
                           multiprocessing_context=context))  # fmt: skip


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def speed(start: Callable[[], Iterator[object]], clips: int) -> Speed:
    before, began = _processor_seconds(), time.perf_counter()
    for _ in start():
        pass
    seconds = time.perf_counter() - began
    gc.collect()  # ends the workers, whose time counts once they have ended
    return Speed(clips / seconds, (_processor_seconds() - before) / clips * 1e3)


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(examples: TrainSet, rounds: int, batches: int, batch_size: int, workers: int) -> list[Round]:
    """Pairs of measurements of the same clips, taken in alternating order; every round has clips of its own."""
    sizes, plan = {"task": batch_size}, ["task"] * (batches * rounds)
    done: list[Round] = []
    for index in range(rounds):
        start, end = batches * index, batches * (index + 1)
        keys = list(slots(plan[:end], sizes, start))
        ways: dict[str, Callable[[], Iterator[object]]] = {
            "bare": partial(bare_batches, examples, keys, workers),
            "loader": partial(
                train_batches, {"task": examples}, plan[:end], sizes, seed=0, start=start, workers=workers
            ),
        }
        order = ("bare", "loader") if index % 2 else ("loader", "bare")
        done.append(Round(**{name: speed(ways[name], batches * batch_size) for name in order}))
    return done


def stages(examples: TrainSet, clips: int) -> dict[str, float]:
    """Milliseconds of processor time a clip in one thread, means over many clips and draws."""
    spec = examples.specs["video"]
    decode, geometry, full = list[float](), list[float](), list[float]()

    def timed(into: list[float], function: Callable[[], torch.Tensor]) -> torch.Tensor:
        start = time.process_time()
        result = function()
        into.append((time.process_time() - start) * 1e3)
        return result

    for index in range(clips):
        example = index % len(examples)
        times = examples.times(example, index, "video")

        def frames() -> torch.Tensor:
            with open_video(examples.records[example].path) as video:  # noqa: B023
                return video.frames_at(times).frames  # noqa: B023

        decoded = timed(decode, frames)
        timed(geometry, lambda: train_clip(decoded, spec, GEOMETRY, Random(index)))  # noqa: B023
        timed(full, lambda: train_clip(decoded, spec, examples.augment, Random(index)))  # noqa: B023
    crop = sum(geometry) / clips
    return {"decode": sum(decode) / clips, "crop and resize": crop, "augment": sum(full) / clips - crop}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gop", type=int, default=15, help="frames from keyframe to keyframe")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each file")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of measurements")
    parser.add_argument("--batches", type=int, default=12, help="minibatches in each")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{seed}.mp4") for seed in range(args.files)]
        for seed, path in enumerate(paths):
            write_synthetic(path, seed, args.seconds, args.gop)
        kbit = sum(path.stat().st_size for path in paths) * 8e-3 / args.seconds / args.files
        examples = TrainSet(records_of(paths), ClassLabels(("a",)), {"video": VideoSpec()}, Augmentation(), task="task")
        rounds = measure(examples, args.rounds, args.batches, args.batch_size, args.workers)
        spent = stages(examples, 4 * args.files)
    report(args, kbit, rounds, spent)


def report(args: argparse.Namespace, kbit: float, rounds: Sequence[Round], spent: dict[str, float]) -> None:
    print(
        f"{args.files} synthetic videos, {WIDTH}x{HEIGHT} H.264, {kbit:.0f} kbit/s, a keyframe every {args.gop} "
        f"frames; {args.workers} workers of one thread on {os.cpu_count()} cores ({platform.machine()})"
    )
    print(f"{'':5} {'clips/s':^22} {'processor ms a clip':^22}")
    print(f"{'round':>5} {'bare':>7} {'loader':>7} {'ratio':>6} {'bare':>7} {'loader':>7} {'ratio':>6}")
    for number, one in enumerate(rounds, 1):
        print(
            f"{number:>5} {one.bare.rate:>7.1f} {one.loader.rate:>7.1f} {one.ratio:>6.2f} "
            f"{one.bare.processor:>7.1f} {one.loader.processor:>7.1f} {one.processor_ratio:>6.2f}"
        )
    ratios = {"clock": [one.ratio for one in rounds], "processor": [one.processor_ratio for one in rounds]}
    for name, values in ratios.items():
        print(f"ratio by the {name}: median {median(values):.3f}, from {min(values):.3f} to {max(values):.3f}")
    print("to reach: 0.8")
    total = sum(spent.values())
    print(
        "in one thread, mean of each clip: " + ", ".join(f"{k} {v:.1f} ms ({v / total:.0%})" for k, v in spent.items())
    )
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        result = {
            "data": "synthetic", "settings": settings | {"kbit_per_second": kbit}, "cores": os.cpu_count(),
            "torch": torch.__version__, "pyav": av.__version__, "rounds": [asdict(one) for one in rounds],
            "ratio": {name: {"median": median(v), "min": min(v), "max": max(v)} for name, v in ratios.items()},
            "stages_ms": spent,
        }  # fmt: skip
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
