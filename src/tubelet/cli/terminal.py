"""What the commands print: JSON, tables, progress, and lines of complaint on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

if TYPE_CHECKING:
    from tubelet.costs.cost import Cost
    from tubelet.costs.published import PublishedRow
    from tubelet.data.manifest import Manifest
    from tubelet.doctor import Finding

_PIPE_WIDTH = 200  # columns where the output goes to a file or another program
_COLORS = {"ok": "green", "note": "yellow", "missing": "red"}


def is_main_process() -> bool:
    """Whether this process prints: it is alone, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def warn(message: str) -> None:
    """A line on stderr."""
    print(f"tubelet: {message}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_tables(*tables: Table) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for table in tables:
        console.print(table)


@contextmanager
def progress(what: str) -> Generator[Callable[[int, int], None]]:
    """A bar on stderr, moved by calling it with what is done and how much there is."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        line = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> Table:
    """A plain table; the columns at the positions ``numbers`` stand to the right."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    return made


def print_results(results: Mapping[str, Any]) -> None:
    """What results.json holds: every number with its views and coverage; what is doubtful or missing on stderr."""
    from tubelet.evaluation.verdict import verdict

    for name, task in results["tasks"].items():
        if said := verdict(task):
            print(f"{name}: {said}" if len(results["tasks"]) > 1 else said)
            for advice in said.advice():
                print(f"  - {advice}")
    print_tables(_results_table(results))
    for name, task in results["tasks"].items():
        for warning in task["warnings"]:
            warn(f"{name}: {warning}")
        for error in task["errors"]:
            warn(f"{name}: not scored: {error['path']}: {error['reason']}")


def _results_table(results: Mapping[str, Any]) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, task in results["tasks"].items():
        coverage = f"{task['coverage']['scored']} / {task['coverage']['expected']}"
        modality = " + ".join(task.get("inputs", ()))
        for part in (task, task.get("single_view", {"metrics": {}})):
            rows += [
                (name, modality, metric, f"{value:.2%}", part["views"], coverage)
                for metric, value in part["metrics"].items()
            ]
    return table(("task", "modality", "metric", "value", "views", "scored"), rows, numbers=(3, 5))


def findings_table(findings: Sequence[Finding]) -> Table:
    made = Table(box=None, pad_edge=False, show_header=False)
    for f in findings:
        color = _COLORS[f.state]
        text = escape(f.found) + (f"\n[{color if f.state != 'ok' else 'dim'}]{escape(f.advice)}[/]" if f.advice else "")
        made.add_row(f"[{color}]{f.state}[/]", f.topic, f.name, text)
    return made


def cost_tables(costs: Sequence[Cost]) -> tuple[Table, Table]:
    """The model as a whole, by modality where it takes one at a time (activations of a training example, float32); and
    its parts."""
    return _whole(costs[0]) if len(costs) == 1 else _by_modality(costs), _parts(costs)


def _whole(cost: Cost) -> Table:
    rows = [
        ("input", _shapes(cost)),
        ("tokens", f"{cost.tokens:,}"),
        ("parameters", f"{cost.parameters / 1e6:.3f} M"),
        ("multiply-adds", f"{cost.multiply_adds / 1e9:.2f} G"),
        ("activations, float32", f"{cost.activation_bytes / 2**20:,.0f} MiB a training example"),
        ("weights, float32", f"{cost.parameter_bytes / 2**20:,.0f} MiB"),
    ]
    return table(("", ""), rows)


def _by_modality(costs: Sequence[Cost]) -> Table:
    rows = [
        (
            _shapes(cost),
            f"{cost.tokens:,}",
            f"{cost.used_parameters / 1e6:.3f}",
            f"{cost.multiply_adds / 1e9:.2f}",
            f"{cost.activation_bytes / 2**20:,.0f}",
        )
        for cost in costs
    ]
    rows.append(("all of the model", "", f"{costs[0].parameters / 1e6:.3f}", "", ""))
    columns = ("input", "tokens", "parameters M", "multiply-adds G", "activations MiB")
    return table(columns, rows, numbers=(1, 2, 3, 4))


def _shapes(cost: Cost) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in cost.inputs.items())


def _parts(costs: Sequence[Cost]) -> Table:
    """A column of multiply-adds for each modality; the parts that all of them use come last."""
    sizes = {part.name: part.parameters for cost in costs for part in cost.parts}
    work = [{part.name: f"{part.multiply_adds / 1e9:.3f}" for part in cost.parts} for cost in costs]
    names = sorted(sizes, key=lambda name: all(name in column for column in work))
    rows = [(name, f"{sizes[name] / 1e6:.3f}", *(column.get(name, "") for column in work)) for name in names]
    several = [f"{' and '.join(cost.inputs)}, G" for cost in costs]
    columns = ("part", "parameters M", *(several if len(costs) > 1 else ["multiply-adds G"]))
    return table(columns, rows, numbers=range(1, len(columns)))


def published_table(rows: Sequence[PublishedRow]) -> Table:
    """A line per printed figure; below, a line for each that cannot be met."""
    lines = [
        (row.source, row.model, row.input, name, f"{value:g}", f"{row.ours[name]:.5g}", f"{row.ratio[name]:.4f}")
        for row in rows
        for name, value in row.published.items()
    ]
    made = table(("source", "model", "input", "quantity", "published", "ours", "ratio"), lines, numbers=(4, 5, 6))
    reasons = [f"{row.source}, {row.model}: cannot be met, {row.reason}" for row in rows if row.reason]
    made.caption, made.caption_justify = escape("\n".join(reasons)), "left"
    return made


def described(manifest: Manifest) -> str:
    """How many examples of how many classes a manifest has, by split."""
    counts = ", ".join(f"{len(manifest.split(name)):,} {name or 'in no split'}" for name in manifest.splits)
    sets = [
        f"{len(manifest.classes(name)):,} classes{'' if name == 'label' else f' of {name}'}"
        for name in manifest.label_sets
    ]
    return f"{counts}; {', '.join(sets) or 'no labels'}"
