"""Exact resume, and several ranks against one, on Talking Digits: what a run promises, carried out.

    python benchmarks/resume.py [--updates 30] [--out runs/resume] [--cases motion weighted accumulated]

Three cases: a ViViT on one task (motion), and a PolyViT on an image, a video and an audio task under two schedules, in
two micro-batches each. Runs are killed with SIGKILL (all of their processes) in the middle and started again. With
dropout, stochastic depth, mixup, augmentation and two loader workers on, the losses and the final weights must equal
the uninterrupted run's bit for bit. With the random layers off, two ranks must give the losses of one with the same
global batch to 1e-5, under DDP and FSDP2, and a checkpoint of two ranks must go on alone. Prints a table, writes
OUT/resume.json, and fails where a promise does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from tubelet.configs import from_json, override, to_json
from tubelet.data.augment import Augmentation
from tubelet.data.talking_digits import make
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Mixup
from tubelet.training.run import train
from tubelet.training.schedules import Accumulated, Weighted

TOLERANCE = 1e-5
CASES = ("motion", "weighted", "accumulated")


def task(path: Path, name: str, steps: int, rate: float, batch_size: int = 16, learning_rate: float = 0.1) -> Task:
    return Task(
        source=Source(path=str(path)),
        objective=Classification(head_init="lecun", mixup=Mixup(3 * rate)),
        inputs=(name,),
        augment=Augmentation(flip=0.0),
        batch_size=batch_size,
        length=Length(steps=steps),
        warmup=Length(steps=steps // 6),
        learning_rate=learning_rate,
        stochastic_depth=rate,
    )


def experiment(case: str, manifests: Mapping[str, Path], updates: int, *, random: bool) -> Experiment:
    """``updates`` minibatches: of one task, of three in turn, or of three together in each update."""
    rate = 0.1 if random else 0.0
    backbone = TransformerConfig(width=64, depth=3, heads=4, mlp=256, dropout=rate, attention_dropout=rate)
    video = VideoSpec(frames=8, stride=2, size=(32, 32), short_side=32)
    settings = Training(workers=2, log_every=1, checkpoint_every=max(1, updates // 3), ema=0.99)
    if case == "motion":
        model = ViViTConfig(backbone=backbone, tubelet=(2, 8, 8), video=video)
        tasks = {"motion": task(manifests["motion"], "video", updates, rate)}
        return Experiment(model=model, tasks=tasks, training=settings)
    modalities = {
        "image": Modality(spec=ImageSpec(size=(32, 32), short_side=32), patch=(1, 8, 8)),
        "video": Modality(spec=video, patch=(2, 8, 8)),
        "audio": Modality(spec=SpectrogramSpec(frames=96, bins=64, low=60.0), patch=(1, 16, 16)),
    }
    steps = updates // 3
    tasks = {
        "digit": task(manifests["digit"], "image", steps, 0.0, batch_size=24, learning_rate=0.03),
        "motion": task(manifests["motion"], "video", steps + 2, rate),
        "spoken": task(manifests["spoken"], "audio", steps - 2, 2 * rate, batch_size=8, learning_rate=0.05),
    }
    schedule = Weighted() if case == "weighted" else Accumulated()
    every = updates // 3 if case == "weighted" else updates // 9
    settings = replace(settings, micro_batches=2, checkpoint_every=max(1, every))
    model = PolyViTConfig(backbone=backbone, modalities=modalities, adaptor_depth=1)
    return Experiment(model=model, tasks=tasks, schedule=schedule, training=settings)


def job(made: Experiment, out: Path, kill_at: int = 0) -> None:
    """What each process does: train, or die with all of its group at an update."""

    def die(*_: object) -> dict[str, object]:
        os.killpg(0, signal.SIGKILL)
        return {}

    if kill_at:
        made = replace(made, training=replace(made.training, evaluate_every=kill_at))
    train(made, out, evaluate=die if kill_at else None, progress=False)


def launch(made: Experiment, out: Path, ranks: int = 1, kill_at: int = 0) -> None:
    """Train in processes of their own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *torchrun, __file__, "--job", json.dumps([to_json(made), str(out), kill_at])]
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    began = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": threads}
    done = subprocess.run(command, env=environment, start_new_session=True, capture_output=True, text=True)
    if (done.returncode != 0) != bool(kill_at):
        raise RuntimeError(f"{out} ended with status {done.returncode}:\n{done.stderr}")
    print(f"{out.parent.name}/{out.name}: {time.perf_counter() - began:.0f} s", flush=True)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def compare(out: Path, expected: Path) -> tuple[float, float]:
    """The largest difference of the losses, and of the final weights."""
    ours, theirs = losses(out), losses(expected)
    assert len(ours) == len(theirs), (len(ours), len(theirs))
    a, b = (load_file(path / "model" / "model.safetensors") for path in (out, expected))
    return (
        max(abs(x - y) for x, y in zip(ours, theirs, strict=True)),
        max(float((a[name] - b[name]).abs().max()) for name in a if a[name].numel()),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("runs/resume"))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        data, out, kill_at = json.loads(arguments.job)
        job(from_json(Experiment, data), Path(out), kill_at)
        return 0
    folder, updates = arguments.out, arguments.updates
    shutil.rmtree(folder, ignore_errors=True)
    manifests = make(folder / "data", train=200, val=20)
    rows: list[dict[str, object]] = []
    for case in arguments.cases:
        random, plain = (experiment(case, manifests, updates, random=on) for on in (True, False))
        kill_at = (updates if case != "accumulated" else updates // 3) // 2 + 1
        rows += prove(case, folder / case, random, plain, kill_at)
    show(rows, updates)
    (folder / "resume.json").write_text(json.dumps({"torch": torch.__version__, "updates": updates, "rows": rows}))
    return 0 if all(row["holds"] for row in rows) else 1


def prove(case: str, folder: Path, random: Experiment, plain: Experiment, kill_at: int) -> list[dict[str, object]]:
    """The promises, carried out on an experiment with random layers and on one without."""
    rows: list[dict[str, object]] = []

    def row(claim: str, out: str, expected: str, limit: float) -> None:
        loss, weight = compare(folder / out, folder / expected)
        rows.append({"case": case, "claim": claim, "loss": loss, "weights": weight, "limit": limit})
        rows[-1]["holds"] = loss <= limit and (weight == 0 or limit > 0)

    for ranks, kind in ((1, "ddp"), (2, "ddp"), (2, "fsdp")):
        made = override(random, {"training.parallel": kind})
        whole, killed = f"whole-{ranks}-{kind}", f"killed-{ranks}-{kind}"
        launch(made, folder / whole, ranks)
        launch(made, folder / killed, ranks, kill_at)
        launch(made, folder / killed, ranks)
        who = "1 process" if ranks == 1 else f"2 ranks, {kind}"
        row(f"kill -9 at update {kill_at}, resumed: {who}, random layers on", killed, whole, 0.0)
    launch(plain, folder / "plain-1")
    for kind in ("ddp", "fsdp"):
        made = override(plain, {"training.parallel": kind})
        launch(made, folder / f"plain-2-{kind}", 2)
        row(f"2 ranks, {kind}, against 1 process", f"plain-2-{kind}", "plain-1", TOLERANCE)
        launch(made, folder / f"fewer-{kind}", 2, kill_at)
        launch(made, folder / f"fewer-{kind}", 1)
        row(f"checkpoint of 2 ranks, {kind}, goes on alone", f"fewer-{kind}", "plain-1", TOLERANCE)
        launch(made, folder / f"more-{kind}", 1, kill_at)
        launch(made, folder / f"more-{kind}", 2)
        row(f"checkpoint of 1 process goes on with 2 ranks, {kind}", f"more-{kind}", "plain-1", TOLERANCE)
    return rows


def show(rows: list[dict[str, object]], updates: int) -> None:
    table = Table(title=f"{updates} minibatches of a small ViViT and PolyViT on Talking Digits; largest differences")
    for column in ("case", "claim", "losses", "weights", "limit", "holds"):
        table.add_column(column, justify="left" if column in ("case", "claim") else "right")
    for row in rows:
        numbers = [f"{row[key]:.1e}" if row[key] else "0" for key in ("loss", "weights", "limit")]
        table.add_row(str(row["case"]), str(row["claim"]), *numbers, "yes" if row["holds"] else "NO")
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
