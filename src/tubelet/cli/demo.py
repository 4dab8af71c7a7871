"""``tubelet demo``: train on the data that the library makes itself."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg

from tubelet.cli.command import Status
from tubelet.cli.terminal import print_results, print_tables


def demo(
    *,
    out: Annotated[str, arg(help="the run's folder")] = "runs/demo",
    compare: Annotated[bool, arg(help="train a model for each task alone, too, and compare")] = False,
) -> Status:
    """Train a small PolyViT on pictures, videos and sounds that are made on the spot, and write a report."""
    from tubelet.inference.predictor import load
    from tubelet.recipes.demo import run_comparison, run_demo, unseen
    from tubelet.reports.comparison import comparison_table

    if compare:
        print_tables(comparison_table(run_comparison(out)))
    else:
        print_results(run_demo(out).results)
    model, files = load(out), unseen()
    print("\nFiles of writers and voices that it never saw:")
    for task, record in files.items():
        print(f"  {task}, really {record.labels['label'][0]}: {model.predict(record.path, top=3, task=task)}")
    more = "" if compare else f"\nA model for each task beside it: tubelet demo --compare --out {out}"
    print(f"Look at {out}/report.html, and try: tubelet predict {out} {files['motion'].path}{more}")
