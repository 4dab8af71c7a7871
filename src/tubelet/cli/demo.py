"""``tubelet demo``: train on the data that the library makes itself."""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tubelet.cli.command import Status
from tubelet.cli.terminal import print_results, print_tables


def demo(
    which: Annotated[
        Positional[Literal["polyvit", "vatt"]],
        arg(help="polyvit: three tasks with labels; vatt: video, sound and captions without any"),
    ] = "polyvit",
    *,
    out: Annotated[str, arg(help="the run's folder; runs/demo, or runs/demo_vatt, if empty")] = "",
    compare: Annotated[bool, arg(help="polyvit: train a model for each task alone, too, and compare")] = False,
) -> Status:
    """Train a small PolyViT, or VATT, on pictures, videos and sounds that are made on the spot, and write a report."""
    if which == "vatt":
        _vatt(out or "runs/demo_vatt")
    else:
        _polyvit(out or "runs/demo", compare)


def _polyvit(out: str, compare: bool) -> None:
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


def _vatt(out: str) -> None:
    from tubelet.inference.predictor import load
    from tubelet.recipes.demo import unseen
    from tubelet.recipes.vatt_demo import run_vatt_demo, table

    shown = run_vatt_demo(out)
    print("\nNo label was used. Captions of unseen writers look for their videos; then a linear classifier reads the")
    print("frozen features of the towers. Talking Digits is small, its motion and its voices are synthetic.\n")
    print_tables(table(shown))
    model, record = load(f"{out}/all"), unseen()["motion"]
    asked = (record.text, "a blue zero moves slowly to the left")
    print(f"\n{record.path}")
    for sentence in asked:
        print(f"  similarity {model.similarity(record.path, text=sentence):+.2f} with: {sentence}")
    print(f"Look at {out}/half/report.html. Your own videos: tubelet train vatt.folder FOLDER")
