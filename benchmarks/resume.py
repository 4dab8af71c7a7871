"""Exact resume, and several ranks against one, on Talking Digits: what a run promises, carried out.

    python benchmarks/resume.py [--updates 30] [--out runs/resume]

Runs are killed with SIGKILL (all of their processes) in the middle and started again. With dropout, stochastic depth,
mixup, augmentation and two loader workers on, the losses and the final weights must equal the uninterrupted run's bit
for bit. With the random layers off, two ranks must give the losses of one with the same global batch to 1e-5, under DDP
and FSDP2, and a checkpoint of two ranks must go on alone. Prints a table, writes OUT/resume.json, and fails where a
promise does.
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
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from tubelet.configs import from_json, override, to_json
from tubelet.data.augment import Augmentation
from tubelet.data.talking_digits import make
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import Backbone
from tubelet.specs import VideoSpec
from tubelet.training.experiment import Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Classification, Mixup
from tubelet.training.run import train

TOLERANCE = 1e-5


def experiment(manifest: Path, updates: int, *, random: bool) -> Experiment:
    rate = 0.1 if random else 0.0
    task = Task(
        source=Source(path=str(manifest)),
        objective=Classification(head_init="lecun", mixup=Mixup(0.3 if random else 0.0)),
        augment=Augmentation(flip=0.0),
        batch_size=16,
        length=Length(steps=updates),
        warmup=Length(steps=5),
        stochastic_depth=rate,
    )
    video = VideoSpec(frames=8, stride=2, size=(32, 32), short_side=32)
    backbone = Backbone(width=64, depth=3, heads=4, mlp=256, dropout=rate, attention_dropout=rate)
    return Experiment(
        model=ViViTConfig(backbone=backbone, tubelet=(2, 8, 8), video=video),
        tasks={"motion": task},
        training=Training(workers=2, log_every=1, checkpoint_every=updates // 3, ema=0.99),
    )


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
    print(f"{out.name}: {time.perf_counter() - began:.0f} s", flush=True)


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
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        data, out, kill_at = json.loads(arguments.job)
        job(from_json(Experiment, data), Path(out), kill_at)
        return 0
    folder, updates = arguments.out, arguments.updates
    shutil.rmtree(folder, ignore_errors=True)
    manifest = make(folder / "data", train=200, val=20)["motion"]
    kill_at = updates // 2 + 1
    random, plain = (experiment(manifest, updates, random=on) for on in (True, False))
    rows: list[dict[str, object]] = []

    def row(claim: str, out: str, expected: str, limit: float) -> None:
        loss, weight = compare(folder / out, folder / expected)
        rows.append({"claim": claim, "loss": loss, "weights": weight, "limit": limit, "holds": loss <= limit})
        if limit == 0:
            rows[-1]["holds"] = loss == 0 and weight == 0

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
    show(rows, updates)
    (folder / "resume.json").write_text(json.dumps({"torch": torch.__version__, "updates": updates, "rows": rows}))
    return 0 if all(row["holds"] for row in rows) else 1


def show(rows: list[dict[str, object]], updates: int) -> None:
    table = Table(title=f"{updates} updates of a small ViViT on Talking Digits; largest differences")
    for column in ("claim", "losses", "weights", "limit", "holds"):
        table.add_column(column, justify="left" if column == "claim" else "right")
    for row in rows:
        numbers = [f"{row[key]:.1e}" if row[key] else "0" for key in ("loss", "weights", "limit")]
        table.add_row(str(row["claim"]), *numbers, "yes" if row["holds"] else "NO")
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
