"""A manifest of a million rows: seconds and memory until training is ready, and until its first step.

    python benchmarks/manifest.py [--rows 1000000] [--out runs/manifest.json]

For CSV and Parquet: one process, two workers of one process, and two gloo ranks. A process's memory is what it holds
alone (USS) above that of a process that has only imported the library. Then the time of the command
``tubelet train folder MANIFEST`` until its first update, without what the recipe does on purpose before it: timing this
machine and fitting simple classifiers, which take a minute or two of any size of data. The pictures are few: parts
of them make the keys unique.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch.distributed as dist
from PIL import Image

from tubelet.data.dataset import TrainSet
from tubelet.data.labels import ClassLabels
from tubelet.data.loader import train_batches
from tubelet.data.manifest import read_manifest
from tubelet.specs import ImageSpec

FILES = 1_000
SPECS = {"image": ImageSpec(size=(32, 32))}
ISSUE = {"read_seconds": 42.0, "read_mb": 1485.0, "worker_seconds": 20.0}  # as the issue gives them; not run here


def make(folder: Path, rows: int) -> None:
    for i in range(FILES):
        path = folder / f"{i % 10}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        color = np.random.default_rng(i).integers(0, 255, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(color).save(path)
    number = np.arange(rows)
    file, part = number % FILES, number // FILES
    table = pa.table(
        {
            "path": [f"{i % 10}/{i}.png" for i in file.tolist()],
            "label": [f"class {i % 10}" for i in file.tolist()],
            "start": part.astype(float),
            "end": part + 1.0,
            "split": np.where(file < FILES * 0.9, "train", "val").tolist(),
        }
    )
    pa.csv.write_csv(table, folder / "all.csv")
    pq.write_table(table, folder / "all.parquet")


def held(process: int | str = "self") -> float:
    """Megabytes that a process has to itself."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"Private_\w+:\s+(\d+) kB", text)) / 1024


def peak() -> float:
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def resident() -> float:
    return int(re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def ready(manifest: str, workers: int) -> dict[str, Any]:
    """Read, build the training set, know the classes, choose the first minibatch's records; then load a minibatch."""
    bare, bare_held, began = resident(), held(), time.perf_counter()
    read = read_manifest(manifest)
    examples = TrainSet(read.split("train"), ClassLabels(read.classes(split="train")), SPECS)
    batch = [examples.records[i] for i in range(8)]
    seconds = time.perf_counter() - began
    measured = {"rows": len(read.records), "seconds": seconds, "mb": held() - bare_held, "peak_mb": peak() - bare}
    assert len(batch) == 8
    if workers:
        began = time.perf_counter()
        batches = train_batches({"a": examples}, ["a"] * 100, {"a": 8}, seed=0, workers=workers)
        next(batches)
        measured["first_minibatch_seconds"] = time.perf_counter() - began
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        measured["worker_mb"] = [held(child) for child in children]
    return measured


def rank(manifest: str) -> None:
    dist.init_process_group("gloo")
    measured = ready(manifest, 0)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, measured)
    if dist.get_rank() == 0:
        print(json.dumps(everyone))
    dist.destroy_process_group()


def called(*words: str) -> Any:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def first_step(manifest: Path, out: Path) -> float:
    """Seconds from the command to the line that its first update logs, with nothing to plan or to compare with."""
    plan = ["--epochs", "1", "--size", "128x4", "--mirror", "no", "--no-baseline"]
    words = ["train", "folder", str(manifest), "--out", str(out), "--training.log-every", "1", *plan]
    began, log = time.perf_counter(), out / "log.jsonl"
    with (out.parent / "said.txt").open("w") as said:
        process = subprocess.Popen([sys.executable, "-m", "tubelet", *words], stdout=said, stderr=said)
        try:
            while not (log.exists() and '"loss' in log.read_text()):
                if process.poll() is not None or time.perf_counter() - began > 300:
                    raise RuntimeError(f"no first step: {(out.parent / 'said.txt').read_text()[-2000:]}")
                time.sleep(0.1)
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("MANIFEST", "WORKERS"), help=argparse.SUPPRESS)
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(ready(asked.one[0], int(asked.one[1]))))
        return
    if asked.rank:
        rank(asked.rank)
        return
    found: dict[str, Any] = {"issue_figures": ISSUE}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, asked.rows)
        torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", __file__, "--rank")
        for manifest in ("all.csv", "all.parquet"):
            path = str(folder / manifest)
            found[manifest] = {
                "one process": called(__file__, "--one", path, "0"),
                "2 workers": called(__file__, "--one", path, "2"),
                "2 ranks": called(*torchrun, path),
            }
            for how, measured in found[manifest].items():
                print(f"{manifest:12} {how:12} {measured}", flush=True)
            seconds = found[manifest]["one process"]["seconds"]
            print(
                f"{manifest:12} {ISSUE['read_seconds'] / seconds:.0f}x faster than one read took by the issue's figure"
            )
        found["first_step_seconds"] = first_step(folder / "all.parquet", folder / "run")
        print(f"first step after {found['first_step_seconds']:.1f} s")
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
