"""Learning from one film without labels: does the sound of its last two minutes find its picture?

    python benchmarks/film.py --root data/film --out runs/film --seeds 3

Big Buck Bunny (596 s, from PyPI's moviepy source distribution, fetched once) is scaled to 96 lines. ``vatt.folder``
trains on its first 476 s, with no flag but the seed; 100 clips of 1.2 s of the last two minutes, which it never saw,
are the test: each one's sound looks for its picture among all 100. Beside it, the same model before any training. What
this does not show: anything about other films. The end has the same characters, music and drawing style as the
beginning, and one film is small.
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
import torch
from folder_data import Packages
from rich.console import Console
from rich.table import Table

from tubelet.data.manifest import Record, write_manifest
from tubelet.evaluation.run import evaluator
from tubelet.recipes import recipes
from tubelet.training.experiment import Experiment
from tubelet.training.ranks import Ranks
from tubelet.training.resolve import resolve
from tubelet.training.run import initial_model

SECONDS, LAST, LENGTH, CLIPS, LINES = 1.2, 476.0, 596.0, 100, 96
METRICS = ("audio_to_video_r1", "audio_to_video_r5", "audio_to_video_r10", "audio_to_video_median_rank")


def prepare(root: Path) -> Path:
    """The manifest, made once."""
    manifest, small = root / "film.csv", root / "film.mp4"
    if manifest.exists():
        return manifest
    (archive,) = Packages(root / ".packages").pypi("moviepy", source=True).rglob("moviepy_10_minutes.zip")
    with zipfile.ZipFile(archive) as opened, opened.open("moviepy_10_minutes/resources/bbb.mp4") as film:
        (root / "whole.mp4").write_bytes(film.read())
    scale(root / "whole.mp4", small)
    test = [round(LAST + i * (LENGTH - LAST - SECONDS) / (CLIPS - 1), 3) for i in range(CLIPS)]
    records = [Record(path="film.mp4", start=0.0, end=LAST, split="train")]
    records += [Record(path="film.mp4", start=start, end=round(start + SECONDS, 3), split="val") for start in test]
    write_manifest(manifest, records)
    return manifest


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
    given = parser.parse_args()
    given.root.mkdir(parents=True, exist_ok=True)
    data = prepare(given.root)
    given.out.mkdir(parents=True, exist_ok=True)
    table = Table("seed", "model", "R@1", "R@5", "R@10", "median rank", "minutes", title="sound to picture, 100 clips")
    found: list[dict[str, Any]] = []
    table.add_row("", "chance", "1.0%", "5.0%", "10.0%", "50.5", "")
    for seed in range(given.seeds):
        folder = given.out / str(seed)
        before = untrained(replace(recipes()["vatt.folder"](str(data), steps=1), seed=seed))
        began = time.monotonic()
        command = [sys.executable, "-m", "tubelet", "train", "vatt.folder", str(data), "--seed", str(seed)]
        subprocess.run([*command, "--out", str(folder)], check=True)
        minutes = (time.monotonic() - began) / 60
        (task,) = json.loads((folder / "results.json").read_text())["tasks"].values()
        for name, metrics, took in (("untrained", before, ""), ("trained", task["metrics"], f"{minutes:.1f}")):
            *shares, rank = (metrics[metric] for metric in METRICS)
            table.add_row(str(seed), name, *(f"{share:.1%}" for share in shares), f"{rank:g}", took)
            found.append({"seed": seed, "model": name, **metrics})
    (given.out / "film.json").write_text(json.dumps(found, indent=1) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()
