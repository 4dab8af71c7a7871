"""The demo of learning without labels: a small VATT on Talking Digits, and what its features are worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic

from rich.table import Table

from tubelet.data.talking_digits import make
from tubelet.data.views import Views
from tubelet.evaluation.run import evaluator
from tubelet.probing.probe import probe
from tubelet.probing.training import ProbeOptions
from tubelet.recipes.demo import DATA
from tubelet.recipes.run import draw
from tubelet.recipes.vatt import talking
from tubelet.reports.report import write_report
from tubelet.training.experiment import Experiment
from tubelet.training.outcome import cards
from tubelet.training.resolve import resolve
from tubelet.training.run import MODEL, initial_model, train
from tubelet.weights.folder import save_model
from tubelet.writing import write_json

UNTRAINED = "untrained"
_PROBED = "motion", "spoken"
_KEPT = {"DropToken 50 %": ("half", 0.5), "all tokens": ("all", 1.0)}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a model reached: ``minutes`` of training and testing, R@1 and the median rank of finding one of ``pool``
    unseen videos by its caption, and top-1 of a linear classifier on the frozen features of each tower."""

    name: str
    minutes: float | None
    r1: float | None
    median_rank: float | None
    pool: int
    probes: dict[str, float]


def run_vatt_demo(
    out: str | Path, *, data: str | Path = DATA, seed: int = 0, updates: int = 0, progress: bool = True
) -> list[Shown]:
    """Make the data, pre-train with and without DropToken, and probe the towers beside those of no training.

    ``updates``: of each training; the recipe's if 0. Writes ``demo.json`` and a report of each run into ``out``.
    """
    make(data)
    out = Path(out)

    def experiment(keep: float) -> Experiment:
        made = replace(talking(str(data), keep), seed=seed)
        if not updates:
            return made
        task = made.tasks["talking"]
        return replace(made, tasks={"talking": replace(task, length=replace(task.length, steps=updates))})

    fresh = resolve(experiment(1.0)).resolved.experiment
    save_model(out / UNTRAINED, initial_model(fresh), fresh.model, cards(fresh, {}), {})
    shown = [_shown("untrained", out / UNTRAINED, data, seed, None, {})]
    for name, (folder, keep) in _KEPT.items():
        began = monotonic()
        run = out / folder
        result = train(experiment(keep), run, evaluate=evaluator(run, progress=progress), progress=progress)
        minutes = (monotonic() - began) / 60
        draw(run, progress=progress)
        write_report(run)
        metrics = result.results["tasks"]["talking"]["metrics"]
        shown.append(_shown(name, run / MODEL, data, seed, minutes, metrics))
    write_json(out / "demo.json", {one.name: asdict(one) for one in shown})
    return shown


def _shown(
    name: str, model: Path, data: str | Path, seed: int, minutes: float | None, metrics: dict[str, float]
) -> Shown:
    probes: dict[str, float] = {}
    for task in _PROBED:
        options = ProbeOptions(fast=True, seed=seed, views=Views(clips=1))
        found = probe(model, f"{data}/{task}.csv", model.parent / f"probe_{model.name}_{task}", options=options)
        probes[task] = found.rows[0].value
    return Shown(
        name=name,
        minutes=minutes,
        r1=metrics.get("text_to_video_r1"),
        median_rank=metrics.get("text_to_video_median_rank"),
        pool=int(metrics.get("text_to_video_pool", 0)),
        probes=probes,
    )


def table(shown: list[Shown]) -> Table:
    """What the demo prints."""
    pool = max(one.pool for one in shown)
    made = Table(box=None, header_style="bold", pad_edge=False)
    columns = ("", "minutes", f"caption finds its video, of {pool}", "median rank", "probe: motion", "probe: spoken")
    for column in columns:
        made.add_column(column, justify="left" if not column else "right")
    made.add_row("chance", "", f"{1 / pool:.1%}", f"{(pool + 1) / 2:g}", "12.5%", "10.0%")
    for one in shown:
        probes = (f"{one.probes[task]:.1%}" for task in _PROBED)
        found = ((one.minutes, ".1f"), (one.r1, ".1%"), (one.median_rank, "g"))
        made.add_row(one.name, *("" if value is None else format(value, form) for value, form in found), *probes)
    return made
