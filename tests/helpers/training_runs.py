"""Whole runs on small files, in this process or in others, and what they leave: for the tests of runs and resuming."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from training_tiny import VIDEO, polyvit_experiment
from tubelet.configs import to_json
from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Record, write_manifest
from tubelet.media.write import write_video
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.training.classification import Classification
from tubelet.training.experiment import Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Mixup
from tubelet.training.schedules import Schedule, Weighted

WORKER = Path(__file__).with_name("training_worker.py")
UPDATES = 8  # of `experiment`


def make_files(folder: Path) -> Path:
    """Manifests image.csv, video.csv and audio.csv of 16 small files each; one of the videos cannot be read."""
    draw = torch.Generator().manual_seed(0)
    records: dict[str, list[Record]] = {"image": [], "video": [], "audio": []}
    for i in range(16):
        frames = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8, generator=draw)
        frames = frames.repeat_interleave(8, 2).repeat_interleave(8, 3)
        write_video(folder / f"{i}.mp4", frames, fps=8.0)
        Image.fromarray(frames[0].permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        with wave.open(str(folder / f"{i}.wav"), "wb") as sound:
            sound.setparams((1, 2, 16_000, 0, "NONE", ""))
            sound.writeframes(torch.randint(-9000, 9000, (8000,), dtype=torch.int16, generator=draw).numpy().tobytes())
        labels = {"label": ("abc"[i % 3],)}
        video = {**labels, "verb": ("ab"[i % 2],), "noun": ("abc"[i % 3],)}
        for kind, end in (("image", "png"), ("video", "mp4"), ("audio", "wav")):
            path = str(folder / f"{i}.{end}")
            records[kind].append(Record(path=path, labels=video if kind == "video" else labels, split="train"))
    (folder / "5.mp4").write_bytes((folder / "5.mp4").read_bytes()[:500])
    for kind, found in records.items():
        write_manifest(folder / f"{kind}.csv", found)
    return folder


_SETTINGS = {"log_every": 1, "checkpoint_every": 3, "keep_checkpoints": 99, "ema": 0.5}


def experiment(files: Path, *, random_layers: bool, **training: object) -> Experiment:
    """One task, "motion", on videos."""
    drop = 0.2 if random_layers else 0.0
    task = Task(
        source=Source(path=str(files / "video.csv")),
        objective=Classification(head_init="lecun", mixup=Mixup(0.4 if random_layers else 0.0)),
        augment=Augmentation(color=0.0, grayscale=0.0),
        batch_size=4,
        length=Length(steps=UPDATES),
        warmup=Length(steps=2),
        stochastic_depth=drop,
    )
    backbone = TransformerConfig(width=16, depth=2, heads=2, mlp=32, dropout=drop, attention_dropout=drop)
    return Experiment(
        model=ViViTConfig(backbone=backbone, tubelet=(2, 8, 8), video=VIDEO),
        tasks={"motion": task},
        training=Training(**{"workers": 2, **_SETTINGS, **training}),
    )


def cotraining(files: Path, *, random_layers: bool, schedule: Schedule = Weighted(), **training: object) -> Experiment:
    """A PolyViT and the tasks "image", "video" and "audio": 12 updates, or 4 of all three tasks."""
    made = polyvit_experiment(random_layers=random_layers, schedule=schedule)
    augment = Augmentation(color=0.0, grayscale=0.0)
    tasks = {
        name: replace(task, source=Source(path=str(files / f"{name}.csv")), augment=augment)
        for name, task in made.tasks.items()
    }
    return replace(made, tasks=tasks, training=Training(**{"workers": 1, "micro_batches": 2, **_SETTINGS, **training}))


def start(jobs: list[dict[str, object]], ranks: int = 0) -> subprocess.Popen[str]:
    """The worker in a process group of its own, under torchrun where there are ``ranks``."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks else []
    jobs = [{**job, "experiment": to_json(job["experiment"]), "out": str(job["out"])} for job in jobs]
    command = [sys.executable, *torchrun, str(WORKER), json.dumps(jobs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The status that it ends with, and what it said."""
    try:
        _, said = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun ends its ranks too
        _, said = process.communicate()
        raise AssertionError(f"hangs:\n{said}") from None
    return process.returncode, said


def run(jobs: list[dict[str, object]], ranks: int = 0) -> tuple[int, str]:
    return finish(start(jobs, ranks))


def losses(out: Path) -> dict[tuple[int, str], float]:
    """By update and task; every update has one task at least."""
    lines = [line for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in line]
    assert list(dict.fromkeys(line["step"] for line in lines)) == list(range(1, lines[-1]["step"] + 1))
    return {(line["step"], line["task"]): line["loss"] for line in lines}


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model" / "model.safetensors")


def assert_same(out: Path, expected: Path) -> None:
    assert losses(out) == losses(expected)
    for name, weight in weights(expected).items():
        assert torch.equal(weights(out)[name], weight), name


def assert_close(out: Path, expected: Path) -> None:
    assert losses(out) == pytest.approx(losses(expected), abs=1e-5)
    for name, weight in weights(expected).items():
        torch.testing.assert_close(weights(out)[name], weight, atol=1e-5, rtol=0)
