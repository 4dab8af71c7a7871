"""Learning from one film without labels: does the sound of what was held out find its picture?

    python benchmarks/film.py --root data/film --out runs/film --seeds 3 [--held end scenes]

Big Buck Bunny (596 s, from PyPI's moviepy source distribution, fetched once) is scaled to 96 lines. ``vatt.folder``
trains with no flag but the seed; 100 clips of 1.2 s that it never saw are the test: each one's sound looks for its
picture among all 100. Beside it, the same model before any training, and a canonical correlation analysis of features
made by hand (log-mel statistics; colors, gradients and frame differences), fitted on the same training clips.

``end`` trains on the first 476 s and tests on the last two minutes. These are 12 s of story, 85 s of credits and 20 s
of another scene, while training saw no credits. ``scenes`` holds out six times 20 s of the story, with a second on
either side, and trains on the rest of the first 476 s: the test has the places and the music of scenes that training
saw other parts of. What neither shows: anything about other films.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from folder_data import Packages
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tubelet.data.manifest import Record, read_manifest, write_manifest
from tubelet.evaluation.handmade import (
    frame_differences,
    mean_gradients_and_colors,
    mel_statistics,
    read_frames,
    read_sound,
)
from tubelet.evaluation.run import evaluator
from tubelet.metrics import cosine, retrieval
from tubelet.recipes import recipes
from tubelet.training.experiment import Experiment
from tubelet.training.ranks import Ranks
from tubelet.training.resolve import resolve
from tubelet.training.run import initial_model

SECONDS, LAST, LENGTH, CLIPS, LINES = 1.2, 476.0, 596.0, 100, 96
SCENES = [(start, start + 20.0) for start in (30.0, 112.0, 194.0, 276.0, 358.0, 440.0)]
HELD = ("end", "scenes")
METRICS = ("audio_to_video_r1", "audio_to_video_r5", "audio_to_video_r10", "audio_to_video_median_rank")


def prepare(root: Path, held: str) -> Path:
    """The manifest, made once."""
    manifest, small = root / f"{held}.csv", root / "film.mp4"
    if not small.exists():
        (archive,) = Packages(root / ".packages").pypi("moviepy", source=True).rglob("moviepy_10_minutes.zip")
        with zipfile.ZipFile(archive) as opened, opened.open("moviepy_10_minutes/resources/bbb.mp4") as film:
            (root / "whole.mp4").write_bytes(film.read())
        scale(root / "whole.mp4", small)
    if not manifest.exists():
        train, tested = stretches(held)
        count = -(-CLIPS // len(tested))
        test = [round(t, 3) for start, end in tested for t in np.linspace(start, end - SECONDS, count).tolist()]
        records = [Record(path="film.mp4", start=start, end=end, split="train") for start, end in train]
        records += [Record(path="film.mp4", start=t, end=round(t + SECONDS, 3), split="val") for t in test[:CLIPS]]
        write_manifest(manifest, records)
    return manifest


def stretches(held: str) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The seconds of the film that are for training, and for the test."""
    if held == "end":
        return [(0.0, LAST)], [(LAST, LENGTH)]
    borders = [0.0, *(t for start, end in SCENES for t in (start - 1, end + 1)), LAST]
    return list(zip(borders[::2], borders[1::2], strict=True)), SCENES


def simple(manifest: Path) -> dict[str, float]:
    """What canonical correlations of features made by hand find."""
    records = read_manifest(manifest)
    cut = [
        replace(record, start=t, end=t + SECONDS)
        for record in records.split("train")
        for t in np.arange(record.start, (record.end or 0) - SECONDS, SECONDS)
    ]
    sets = [cut, list(records.split("val"))]
    heard = [np.stack([mel_statistics(read_sound(record)) for record in part]) for part in sets]
    seen = [np.stack([_seen(read_frames(record)) for record in part]) for part in sets]
    few = [make_pipeline(StandardScaler(), PCA(20, random_state=0)).fit(part[0]) for part in (heard, seen)]
    x, y = ([pipeline.transform(part) for part in both] for pipeline, both in zip(few, (heard, seen), strict=True))
    found = CCA(8, max_iter=2000).fit(x[0], y[0]).transform(x[1], y[1])
    scores = retrieval(cosine(*found), np.arange(len(sets[1])))
    return {f"audio_to_video_{name}": value for name, value in scores.items()}


def _seen(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.concatenate([mean_gradients_and_colors(frames), frame_differences(frames)])


def scale(source: Path, target: Path) -> None:
    """The film at 96 lines with all of its sound."""
    with av.open(str(source)) as film, av.open(str(target), "w", options={"movflags": "+faststart"}) as out:
        video, audio = film.streams.video[0], film.streams.audio[0]
        width = round(LINES * video.width / video.height / 2) * 2
        seen = out.add_stream("libx264", rate=Fraction(video.average_rate or 24), options={"crf": "20", "g": "12"})
        seen.width, seen.height, seen.pix_fmt = width, LINES, "yuv420p"  # pyright: ignore
        heard = out.add_stream_from_template(audio)
        for packet in film.demux(video, audio):
            if packet.stream is audio:
                if packet.dts is not None:
                    packet.stream = heard
                    out.mux(packet)
                continue
            for frame in packet.decode():
                out.mux(seen.encode(frame.reformat(width, LINES, "yuv420p")))  # pyright: ignore
        out.mux(seen.encode(None))  # pyright: ignore


def untrained(experiment: Experiment) -> dict[str, float]:
    """What the fresh model says."""
    prepared = resolve(experiment).resolved.experiment
    (task,) = evaluator(progress=False)(initial_model(prepared), prepared, Ranks(torch.device("cpu")))["tasks"].values()
    return task["metrics"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/film"))
    parser.add_argument("--out", type=Path, default=Path("runs/film"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--held", nargs="+", choices=HELD, default=list(HELD), help="what is held out for the test")
    given = parser.parse_args()
    given.root.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    table = Table(
        "held out", "seed", "model", "R@1", "R@5", "R@10", "median rank", "minutes", title="sound to picture, 100 clips"
    )
    found: list[dict[str, Any]] = []

    def add(held: str, seed: int | None, name: str, metrics: dict[str, float], minutes: str = "") -> None:
        *shares, rank = (metrics[metric] for metric in METRICS)
        shown = "" if seed is None else str(seed)
        table.add_row(held, shown, name, *(f"{share:.1%}" for share in shares), f"{rank:g}", minutes)
        found.append({"held": held, "seed": seed, "model": name, **metrics})

    table.add_row("", "", "chance", "1.0%", "5.0%", "10.0%", "50.5", "")
    for held in given.held:
        data = prepare(given.root, held)
        add(held, None, "canonical correlations", simple(data))
        for seed in range(given.seeds):
            folder = given.out / f"{held}-{seed}"
            add(held, seed, "untrained", untrained(replace(recipes()["vatt.folder"](str(data), steps=1), seed=seed)))
            began = time.monotonic()
            command = [sys.executable, "-m", "tubelet", "train", "vatt.folder", str(data), "--seed", str(seed)]
            subprocess.run([*command, "--out", str(folder)], check=True)
            minutes = (time.monotonic() - began) / 60
            (task,) = json.loads((folder / "results.json").read_text())["tasks"].values()
            add(held, seed, "trained", task["metrics"], f"{minutes:.1f}")
    (given.out / "film.json").write_text(json.dumps(found, indent=1) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()
