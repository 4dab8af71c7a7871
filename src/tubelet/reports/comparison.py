"""Models that solve the same tasks, side by side as in PolyViT's Table 2: their number, parameters and scores."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from safetensors import safe_open

from tubelet.configs import from_json, to_json
from tubelet.evaluation.results import RESULTS, headline
from tubelet.training.logger import LOG
from tubelet.weights.folder import WEIGHTS
from tubelet.writing import write_json

COMPARISON = "comparison.json"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A model, or the ``models`` that replace it together, with one or several tasks each.

    ``parameters`` and ``updates``: the sums over these models, heads included. ``seconds``: the time of the updates
    with their data, without evaluation and saving. ``scores``: by task, fractions in [0, 1].
    """

    model: str
    models: int
    parameters: int
    updates: int
    seconds: float
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Models side by side. The first row is the baseline for the others, such as one model per task.

    ``metrics``: the metric of each task's score, such as "top1", in the order of the columns. ``note``: a sentence that
    says what was kept equal.
    """

    rows: tuple[Compared, ...]
    metrics: dict[str, str]
    note: str = ""

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("a comparison needs at least one row, the baseline")
        for row in self.rows:
            if unknown := set(row.scores) - set(self.metrics):
                raise ValueError(f"row {row.model!r} has scores of {sorted(unknown)}, of which no metric is known")

    def parameter_share(self, row: Compared) -> float:
        """``row``'s parameters as a share of the baseline's."""
        return row.parameters / self.rows[0].parameters

    def score_shares(self, row: Compared) -> dict[str, float]:
        """``row``'s scores as shares of the baseline's, for the tasks on which both have one and the baseline's is
        above 0.
        """
        baseline = self.rows[0].scores
        both = [task for task in self.metrics if task in row.scores and baseline.get(task)]
        return {task: row.scores[task] / baseline[task] for task in both}

    def as_json(self) -> dict[str, Any]:
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> Comparison:
        """The comparison that ``data`` describes. Raises ConfigError, which names the key."""
        return from_json(cls, data)

    def write(self, folder: str | Path) -> Path:
        """Write ``comparison.json`` into a run's folder, where the report looks for it."""
        path = Path(folder, COMPARISON)
        write_json(path, self.as_json())
        return path


def read_comparison(folder: str | Path) -> Comparison | None:
    """The comparison in a run's folder; None if it has none."""
    path = Path(folder, COMPARISON)
    return Comparison.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def compare(rows: Mapping[str, Sequence[str | Path]], *, note: str = "") -> Comparison:
    """Make a row for each name from the folders of its finished and evaluated runs; the first row is the baseline.

    The score of a task is the metric that its results name first. Raises FileNotFoundError where a folder is no such
    run, and ValueError where two runs of a row have the same task.
    """
    metrics: dict[str, str] = {}
    made: list[Compared] = []
    for name, folders in rows.items():
        runs = [Path(folder) for folder in folders]
        scores: dict[str, float] = {}
        for run in runs:
            tasks = json.loads((run / RESULTS).read_text(encoding="utf-8"))["tasks"]
            for task, result in tasks.items():
                if task in scores:
                    raise ValueError(f"{run}: task {task!r} has a score from another run of {name!r}")
                metric = metrics.setdefault(task, headline(result["metrics"]))
                scores[task] = result["metrics"][metric]
        times = [_training(run / LOG) for run in runs]
        made.append(
            Compared(
                model=name,
                models=len(runs),
                parameters=sum(_parameters(run / "model" / WEIGHTS) for run in runs),
                updates=sum(updates for updates, _ in times),
                seconds=sum(seconds for _, seconds in times),
                scores=scores,
            )
        )
    return Comparison(rows=tuple(made), metrics=metrics, note=note)


def comparison_table(comparison: Comparison) -> Table:
    """The comparison as a table for the terminal."""
    header, *rows = comparison_cells(comparison)
    note = escape(comparison.note) or None
    table = Table(box=None, header_style="bold", pad_edge=False, caption=note, caption_justify="left")
    for place, column in enumerate(header):
        table.add_column(escape(column), justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def comparison_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """The columns' names, then the rows: the text of the tables in the terminal and in the report."""
    tasks = [f"{task} {metric}" for task, metric in comparison.metrics.items()]
    cells = [("model", "models", "parameters", *tasks, "updates", "time", "share of parameters", "share of each score")]
    for row in comparison.rows:
        scores = [f"{row.scores[task]:.1%}" if task in row.scores else "-" for task in comparison.metrics]
        shares = [f"{share:.1%}" for share in comparison.score_shares(row).values()]
        cells.append(
            (
                row.model, str(row.models), _count(row.parameters), *scores, f"{row.updates:,}", _span(row.seconds),
                f"{comparison.parameter_share(row):.1%}", ", ".join(shares) or "-",
            )
        )  # fmt: skip
    return cells


def _parameters(weights: Path) -> int:
    """The number of parameters in a file of weights, read from its header."""
    with safe_open(weights, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def _training(log: Path) -> tuple[int, float]:
    """The updates of a run, and the seconds that they took, over all its sessions."""
    done, seconds = 0, 0.0
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if "updates_per_second" in line:
            seconds += (line["step"] - done) / line["updates_per_second"]
            done = line["step"]
    return done, seconds


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters < 1e7 else f"{parameters / 1e6:,.0f} M"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
