"""Every family on Talking Digits: MTV, TokenLearner, TubeViT and MBT, each through its recipe, evaluated and counted.

    python benchmarks/families.py [--only mtv mbt] [--jobs 2] [--out runs/families]

``motion`` is one task for all that take video. In ``duet`` a digit is heard while another moves, and the answer is the
pair: the rows with one sense show what it can know alone. Runs that are done are not repeated. Prints the table and
writes OUT/families.json and OUT/families.md. The video and the speech of Talking Digits are synthetic, and its tasks
easy: the table shows that each family learns what it is for, and says nothing about Kinetics or AudioSet.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jobs import launch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tubelet.costs.cost import cost
from tubelet.data.talking_digits import make
from tubelet.evaluation.run import evaluator
from tubelet.recipes.families import Senses, mbt_duet, mtv_duet, mtv_motion, token_learner_motion, tubevit_motion
from tubelet.reports.comparison import compare
from tubelet.training.experiment import Experiment
from tubelet.training.run import train
from tubelet.writing import write_json

MOTION = {"MTV": mtv_motion, "TokenLearner in ViViT": token_learner_motion, "TubeViT": tubevit_motion}
DUET = {"MBT": mbt_duet, "multimodal MTV": mtv_duet}
SENSES: tuple[Senses, ...] = ("both", "video", "audio")
HEADER = ("family", "task", "senses", "top-1", "scored", "views", "parameters", "multiply-adds", "updates", "minutes")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A row of the table: a family's recipe on one task, with both senses or one."""

    family: str
    task: str
    senses: Senses

    @property
    def name(self) -> str:
        return "_".join([*self.family.lower().split(), self.task, self.senses])

    def experiment(self, data: str, seed: int) -> Experiment:
        recipe = MOTION[self.family](data) if self.task == "motion" else DUET[self.family](data, self.senses)
        return replace(recipe, seed=seed)


JOBS = [
    *(Job(family=family, task="motion", senses="video") for family in MOTION),
    *(Job(family=family, task="duet", senses=senses) for family in DUET for senses in SENSES),
]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of a job. ``minutes``: of the updates, data included, on one thread, evaluation left out."""

    job: Job
    top1: float
    scored: str
    views: str
    parameters: int
    multiply_adds: int
    updates: int
    minutes: float

    def cells(self) -> tuple[str, ...]:
        counted = f"{self.parameters / 1e6:.2f} M", f"{self.multiply_adds / 1e6:.0f} M"
        return (
            self.job.family, self.job.task, self.job.senses, f"{self.top1:.1%}", self.scored, self.views, *counted,
            str(self.updates), f"{self.minutes:.1f}",
        )  # fmt: skip


def arguments(job: Job, out: Path, seed: int) -> list[str]:
    return ["--out", str(out), "--seed", str(seed), "--job", json.dumps(asdict(job))]


def run_job(job: Job, out: Path, seed: int) -> None:
    made = job.experiment(str(out / "data"), seed)
    made = replace(made, training=replace(made.training, workers=0))
    train(made, out / job.name, evaluate=evaluator(out / job.name, progress=False), progress=False)


def measured(job: Job, out: Path, seed: int) -> Row:
    (compared,) = compare({job.name: [out / job.name]}).rows
    result = json.loads((out / job.name / "results.json").read_text())["tasks"][job.task]
    made = job.experiment(str(out / "data"), seed)
    classes = 8 if job.task == "motion" else 80
    return Row(
        job=job,
        top1=result["metrics"]["top1"],
        scored=f"{result['coverage']['scored']} / {result['coverage']['expected']}",
        views=result["views"],
        parameters=compared.parameters,
        multiply_adds=cost(made.model, classes, made.tasks[job.task].inputs).multiply_adds,
        updates=compared.updates,
        minutes=compared.seconds / 60,
    )


def markdown(rows: Sequence[Row]) -> str:
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name begins so, such as mbt_duet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, of one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_job(Job(**json.loads(options.job)), options.out, options.seed)
        return
    make(options.out / "data")
    wanted = [job for job in JOBS if job.name.startswith(tuple(options.only))]
    if not wanted:
        parser.error(f"--only {' '.join(options.only)}: the rows are {', '.join(job.name for job in JOBS)}")
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(launch, __file__, arguments(job, options.out, options.seed)) for job in wanted]
        for run in track(running, description="runs", console=Console(stderr=True)):
            run.result()
    rows = [measured(job, options.out, options.seed) for job in wanted]
    table = Table(*HEADER, title=f"Talking Digits, seed {options.seed}, one thread a run", box=None)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=140).print(table)
    write_json(options.out / "families.json", {"seed": options.seed, "rows": [asdict(row) for row in rows]})
    (options.out / "families.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
