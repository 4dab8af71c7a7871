"""PolyViT's five schedules on Talking Digits: the counterpart of its Table 1, small and half synthetic.

    python benchmarks/schedules.py [--seeds 3] [--share 0.5] [--jobs 2] [--out runs/schedules]

Co-trains the demo's PolyViT with each schedule, and trains each task alone, from several seeds; ``--share`` shortens
every task's training. Runs that are done are not repeated. Prints the table, writes OUT/schedules.json and a plot,
OUT/schedules.svg. The video and the speech of Talking Digits are synthetic, and its tasks easy: read the order of the
schedules, not the accuracies.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from jobs import launch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tubelet.data.talking_digits import make
from tubelet.evaluation.run import evaluator
from tubelet.recipes.demo import TASKS, Name, demo
from tubelet.training.experiment import Experiment, Length
from tubelet.training.run import train
from tubelet.training.schedules import Accumulated, Alternating, Schedule, TaskByTask, Uniform, Weighted
from tubelet.writing import write_json

SCHEDULES: dict[str, Schedule] = {
    "task by task": TaskByTask(),
    "accumulated": Accumulated(),
    "alternating": Alternating(),
    "uniform": Uniform(),
    "weighted": Weighted(),
}
ALONE = "one model per task"

Accuracies = dict[str, dict[str, list[float]]]
"""By schedule and task, one of each seed."""


def experiment(name: str, task: Name | None, seed: int, share: float, data: str) -> Experiment:
    made = demo(data, task)
    tasks = {
        key: replace(
            task,
            length=Length(steps=round(task.length.steps * share)),
            warmup=Length(steps=round(task.warmup.steps * share)),
        )
        for key, task in made.tasks.items()
    }
    return replace(made, tasks=tasks, schedule=SCHEDULES.get(name, Weighted()), seed=seed)


def jobs(seeds: int, out: Path) -> list[tuple[str, Name | None, int, Path]]:
    """Every run: its row of the table, its task where it has one alone, its seed and its folder."""
    kinds: list[tuple[str, Name | None]] = [*((name, None) for name in SCHEDULES), *((ALONE, task) for task in TASKS)]
    return [
        (name, task, seed, out / (task or name).replace(" ", "_") / str(seed))
        for seed in range(seeds)
        for name, task in kinds
    ]


def arguments(job: tuple[str, Name | None, int, Path], share: float) -> list[str]:
    name, task, seed, folder = job
    return ["--job", json.dumps([name, task, seed, str(folder), share])]


def run_job(name: str, task: Name | None, seed: int, folder: str, share: float) -> None:
    data = str(Path(folder).parents[1] / "data")
    made = experiment(name, task, seed, share, data)
    made = replace(made, training=replace(made.training, workers=0))
    train(made, folder, evaluate=evaluator(folder, progress=False), progress=False)


def accuracies(done: Sequence[tuple[str, Name | None, int, Path]]) -> Accuracies:
    found: Accuracies = {}
    for name, _, _, folder in done:
        results = json.loads((folder / "results.json").read_text())["tasks"]
        for task, result in results.items():
            found.setdefault(name, {}).setdefault(task, []).append(result["metrics"]["top1"])
    return found


def print_table(found: Accuracies, share: float) -> None:
    lengths = ", ".join(f"{task} {round(demo().tasks[task].length.steps * share)}" for task in TASKS)
    table = Table(
        "schedule", *TASKS, title=f"top-1, mean of the seeds (lowest to highest); minibatches: {lengths}", box=None
    )
    for name, by_task in found.items():
        cells = [
            f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"
            for values in (by_task[task] for task in TASKS)
        ]
        table.add_row(name, *cells)
    Console(width=120).print(table)


def plot(found: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """A panel per task: every seed a dot, the mean a line."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    names = list(found)
    for panel, (axes, task) in enumerate(zip(figure.subplots(1, len(TASKS), sharey=True), TASKS, strict=True)):
        for row, name in enumerate(names):
            values = [100 * value for value in found[name][task]]
            axes.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.6, clip_on=False)
            axes.plot([statistics.mean(values)] * 2, [row - 0.3, row + 0.3], color="black")
        axes.set(title=task, xlim=(0, 100), xlabel="top-1 accuracy, %")
        axes.grid(axis="x", alpha=0.3)
        if panel == 0:
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.5, help="of every task's length in the demo")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, of one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/schedules"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_job(*json.loads(options.job))
        return
    make(options.out / "data")
    wanted = jobs(options.seeds, options.out)
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(launch, __file__, arguments(job, options.share)) for job in wanted]
        for run in track(running, description="runs", console=Console(stderr=True)):
            run.result()
    found = accuracies(wanted)
    print_table(found, options.share)
    write_json(options.out / "schedules.json", {"share": options.share, "top1": found})
    plot(found, options.out / "schedules.svg")


if __name__ == "__main__":
    main()
