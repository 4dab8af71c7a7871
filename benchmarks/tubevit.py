"""TubeViT on Talking Digits: images beside videos (its Table 5, small), and the scaling method (Tables 6 and 9, small).

    python benchmarks/tubevit.py [--seeds 3] [--share 0.5] [--jobs 2] [--out runs/tubevit]

The first table: one model trained on still digits and moving ones, beside a model of each, at equal updates on the
task, and again at half of them. The second: a larger model that learned still digits, with the tubes of a small
one that learned both, is trained on motion, frozen up to its last layers or as a whole. ``--share`` shortens the
recipes' trainings. Runs that are done are not repeated. Writes OUT/tubevit.json and OUT/tubevit.md.

The larger image model is a TubeViT that saw images alone: its positions are TubeViT's. The videos of Talking Digits are
synthetic and its tasks easy: the tables say how the methods compare here, and nothing about Kinetics.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jobs import launch
from rich.console import Console
from rich.progress import track

from tubelet.data.talking_digits import make
from tubelet.evaluation.run import evaluator
from tubelet.models.tubevit import Tube, TubeViTConfig, scaled
from tubelet.nn.blocks import TransformerConfig
from tubelet.recipes.demo import demo
from tubelet.recipes.families import tubevit_motion
from tubelet.recipes.tubevit import last_layers
from tubelet.reports.comparison import compare
from tubelet.training.experiment import Experiment, Init, Length
from tubelet.training.optimizers import choose_trainable
from tubelet.training.run import initial_model, train
from tubelet.writing import write_json

# Of the recipe's model, the tubes that are needed, set further apart: 64 tokens.
TUBES = (
    Tube(kernel=(8, 8, 8), stride=(8, 8, 8)),
    Tube(kernel=(16, 4, 4), stride=(16, 8, 8), offset=(0, 2, 2)),
)
SHARES = (0.5, 1.0)  # of the updates, in the first table
JOINT = {"motion alone": ("motion",), "digit alone": ("digit",), "jointly": ("digit", "motion")}

# What the second table's models start from; then how many of their last layers are trained, and whether they are gated.
SOURCES = {"small": ("digit", "motion"), "large, images": ("digit",)}
SCALED = {"head": (0, False), "head, last 2": (2, False), "head, last 2, gate": (2, True), "all": (6, False)}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run: a key of JOINT, SOURCES or SCALED. ``share``: of the updates that its tasks have in their recipes."""

    name: str
    seed: int
    share: float

    def folder(self, out: Path) -> Path:
        return out / f"{self.name.replace(', ', '_').replace(' ', '_')}-{self.share:g}" / str(self.seed)

    def experiment(self, out: Path) -> Experiment:
        data, motion = str(out / "data"), tubevit_motion(str(out / "data"))
        known = {"digit": demo(data).tasks["digit"], **motion.tasks}
        tasks = {
            name: replace(
                known[name],
                length=Length(steps=round(known[name].length.steps * self.share)),
                warmup=Length(steps=round(known[name].warmup.steps * self.share)),
            )
            for name in {**JOINT, **SOURCES}.get(self.name, ("motion",))
        }
        made = replace(motion, model=self._model(motion), tasks=tasks, seed=self.seed)
        if self.name not in SCALED:
            return made
        small, image = (str(replace(self, name=name).folder(out)) for name in SOURCES)
        start = Init(source=image), Init(source=small, into="video")
        return replace(made, init=start, trainable=last_layers(self._model(motion), SCALED[self.name][0]))

    def _model(self, motion: Experiment) -> TubeViTConfig:
        assert isinstance(motion.model, TubeViTConfig)
        base = replace(motion.model, tubes=TUBES)
        if self.name in JOINT:
            return base
        small = replace(base, backbone=TransformerConfig(width=64, depth=4, heads=2, mlp=256))
        if self.name == "small":
            return small
        large = replace(base, backbone=replace(base.backbone, depth=6))
        count, gated = SCALED.get(self.name, (0, False))
        return scaled(large, small, gate=large.backbone.depth - count if gated else 0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table, over the seeds. ``trained``: numbers; ``seconds``: of the updates, data included."""

    name: str
    updates: str
    trained: int
    seconds: list[float]
    top1: dict[str, list[float]]


def stages(seeds: int, share: float) -> list[list[Job]]:
    """All runs; those of a later list start from those of an earlier one. A seed is whole before the next one."""
    made: list[list[Job]] = []
    for seed in range(seeds):
        joint = [Job(name=name, seed=seed, share=part * share) for part in SHARES for name in JOINT]
        first, then = ([Job(name=name, seed=seed, share=share) for name in names] for names in (SOURCES, SCALED))
        made += [[*joint, *first], then]
    return made


def arguments(job: Job, out: Path) -> list[str]:
    return ["--out", str(out), "--job", json.dumps(asdict(job))]


def run_job(job: Job, out: Path) -> None:
    made, folder = job.experiment(out), job.folder(out)
    made = replace(made, training=replace(made.training, workers=0))
    train(made, folder, evaluate=evaluator(folder, progress=False), progress=False)


def rows(jobs: Sequence[Job], out: Path) -> list[Row]:
    """A row for each name and share, over its seeds."""
    by_row: dict[tuple[str, float], list[Job]] = {}
    for job in jobs:
        by_row.setdefault((job.name, job.share), []).append(job)
    made: list[Row] = []
    for (name, _), same in by_row.items():
        experiment = same[0].experiment(out)
        found = [compare({name: [job.folder(out)]}).rows[0] for job in same]
        made.append(
            Row(
                name=name,
                updates=" + ".join(f"{task.length.steps} {key}" for key, task in experiment.tasks.items()),
                trained=_trained(experiment),
                seconds=[row.seconds for row in found],
                top1={task: [row.scores[task] for row in found] for task in experiment.tasks},
            )
        )
    return made


def _trained(experiment: Experiment) -> int:
    tasks = {
        name: replace(task, objective=replace(task.objective, classes=("",) * (8 if name == "motion" else 10)))
        for name, task in experiment.tasks.items()
    }
    model = initial_model(replace(experiment, tasks=tasks))
    choose_trainable(model, experiment.trainable)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def markdown(title: str, made: Sequence[Row]) -> str:
    """Mean of the seeds, lowest and highest."""
    header = (title, "updates", "motion, top-1", "digit, top-1", "trained numbers", "seconds")
    cells = [
        (
            row.name, row.updates, *(_spread(row.top1.get(task, [])) for task in ("motion", "digit")),
            f"{row.trained / 1e6:.2f} M", f"{statistics.mean(row.seconds):.0f}",
        )
        for row in made
    ]  # fmt: skip
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *cells))


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})" if values else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.5, help="of the updates in the recipes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, of one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/tubevit"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_job(Job(**json.loads(options.job)), options.out)
        return
    make(options.out / "data")
    wanted = stages(options.seeds, options.share)
    for stage in track(wanted, description="stages", console=Console(stderr=True)):
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda job: launch(__file__, arguments(job, options.out)), stage))
    made = rows([job for stage in wanted for job in stage], options.out)
    joint, scaling = [row for row in made if row.name in JOINT], [row for row in made if row.name not in JOINT]
    text = f"{markdown('images beside videos', joint)}\n{markdown('scaling: what is trained', scaling)}"
    print(text)
    write_json(options.out / "tubevit.json", {"share": options.share, "rows": [asdict(row) for row in made]})
    (options.out / "tubevit.md").write_text(text)


if __name__ == "__main__":
    main()
