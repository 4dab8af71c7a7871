"""Printing for all commands: JSON, tables, progress, and warnings on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

_PIPE_WIDTH = 200  # columns where the output goes to a file or another program


def is_main_process() -> bool:
    """Whether this process prints: the only one, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def warn(message: str) -> None:
    """Print a line on stderr."""
    print(f"tubelet: {message}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_tables(*tables: Table) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for table in tables:
        console.print(table)


@contextmanager
def progress(what: str) -> Generator[Callable[[int, int], None]]:
    """A progress bar on stderr; call it with the work done and the whole work."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        line = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> Table:
    """A plain table. The columns at the positions ``numbers`` are aligned to the right."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    return made


def print_results(results: Mapping[str, Any]) -> None:
    """Print the contents of results.json: every number with its views and coverage, and warnings on stderr."""
    from tubelet.reports.verdict import verdict

    for name, task in results["tasks"].items():
        if said := verdict(task):
            print(f"{name}: {said}" if len(results["tasks"]) > 1 else said)
            for advice in said.advice():
                print(f"  - {advice}")
    print_tables(_results_table(results))
    for name, task in results["tasks"].items():
        if changed := task.get("changed"):
            print(f"\n{name}: {', '.join(f'model.{path} {text}' for path, text in changed.items())}.")
    for name, task in results["tasks"].items():
        if protocol := task.get("protocol"):
            print(f"\n{name}: {protocol}.")
    for name, task in results["tasks"].items():
        for warning in task["warnings"]:
            warn(f"{name}: {warning}")
        for error in task["errors"]:
            warn(f"{name}: not scored: {error['path']}: {error['reason']}")


def _results_table(results: Mapping[str, Any]) -> Table:
    from tubelet.metrics import written

    rows: list[tuple[str, ...]] = []
    for name, task in results["tasks"].items():
        coverage = f"{task['coverage']['scored']} / {task['coverage']['expected']}"
        modality = " + ".join(task.get("inputs", ()))
        for part in (task, task.get("single_view", {"metrics": {}})):
            rows += [
                (name, modality, metric, written(metric, value, 2), part["views"], coverage)
                for metric, value in part["metrics"].items()
            ]
    return table(("task", "modality", "metric", "value", "views", "scored"), rows, numbers=(3, 5))


def print_versions() -> None:
    """The versions of Tubelet and PyTorch, without importing the latter."""
    from importlib.metadata import PackageNotFoundError, version

    from tubelet.version import __version__

    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    print(f"tubelet {__version__}, torch {torch}")
