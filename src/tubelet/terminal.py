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
    from tubelet.data.manifest import Manifest
    from tubelet.doctor import Finding
    from tubelet.evaluation.cost import Cost
    from tubelet.evaluation.published import PublishedRow

_PIPE_WIDTH = 200  # columns where the output goes to a file or another program
_COLOURS = {"ok": "green", "note": "yellow", "missing": "red"}


def speaks() -> bool:
    """Whether this process prints: it is alone, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def complain(message: str) -> None:
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
    print_tables(_results_table(results))
    for name, task in results["tasks"].items():
        for warning in task["warnings"]:
            complain(f"{name}: {warning}")
        for error in task["errors"]:
            complain(f"{name}: not scored: {error['path']}: {error['reason']}")


def _results_table(results: Mapping[str, Any]) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, task in results["tasks"].items():
        coverage = f"{task['coverage']['scored']} / {task['coverage']['expected']}"
        for part in (task, task.get("single_view", {"metrics": {}})):
            rows += [
                (name, metric, f"{value:.2%}", part["views"], coverage) for metric, value in part["metrics"].items()
            ]
    return table(("task", "metric", "value", "views", "scored"), rows, numbers=(2, 4))


def findings_table(findings: Sequence[Finding]) -> Table:
    made = Table(box=None, pad_edge=False, show_header=False)
    for f in findings:
        colour = _COLOURS[f.state]
        text = escape(f.found) + (
            f"\n[{colour if f.state != 'ok' else 'dim'}]{escape(f.advice)}[/]" if f.advice else ""
        )
        made.add_row(f"[{colour}]{f.state}[/]", f.topic, f.name, text)
    return made


def cost_tables(cost: Cost) -> tuple[Table, Table]:
    """The model as a whole, and its parts."""
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in cost.inputs.items())
    whole = [
        ("input", shapes),
        ("tokens", f"{cost.tokens:,}"),
        ("parameters", f"{cost.parameters / 1e6:.3f} M"),
        ("multiply-adds", f"{cost.multiply_adds / 1e9:.2f} G"),
        ("activations, float32", f"{cost.activation_bytes / 2**20:,.0f} MiB a training example"),
        ("weights, float32", f"{cost.parameter_bytes / 2**20:,.0f} MiB"),
    ]
    parts = [(p.name, f"{p.parameters / 1e6:.3f}", f"{p.multiply_adds / 1e9:.3f}") for p in cost.parts]
    return table(("", ""), whole), table(("part", "parameters M", "multiply-adds G"), parts, numbers=(1, 2))


def published_table(rows: Sequence[PublishedRow]) -> Table:
    """A line per printed figure."""
    lines = [
        (row.source, row.model, row.input, name, f"{value:g}", f"{row.ours[name]:.5g}", f"{row.ratio[name]:.4f}")
        for row in rows
        for name, value in row.published.items()
    ]
    return table(("source", "model", "input", "quantity", "published", "ours", "ratio"), lines, numbers=(4, 5, 6))


def described(manifest: Manifest) -> str:
    """How many examples of how many classes a manifest has, by split."""
    counts = ", ".join(f"{len(manifest.split(name)):,} {name or 'in no split'}" for name in manifest.splits)
    sets = [
        f"{len(manifest.classes(name)):,} classes{'' if name == 'label' else f' of {name}'}"
        for name in manifest.label_sets
    ]
    return f"{counts}; {', '.join(sets) or 'no labels'}"
