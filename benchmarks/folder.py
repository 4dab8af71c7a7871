"""What ``tubelet train folder DIR`` reaches on real data that it was not made for, beside simple classifiers.

    python benchmarks/folder.py --root data/folder --out runs/folder           # all data sets of folder_data.py
    python benchmarks/folder.py handwritten spoken --seeds 3
    python benchmarks/folder.py stamps --init WEIGHTS                          # started from weights, as --init is
    python benchmarks/folder.py --table                                        # the table of what has been run
    python benchmarks/folder.py motion --before ../tubelet-before --limit 12   # another checkout, stopped after 12 min

Every data set is prepared from packages and trained with no flag but --out (a second seed adds --seed). One at a time:
the recipe plans for the whole machine. What has run is not run again, so that an interrupted benchmark goes on. The
table has the model's top-1 and mean class accuracy, the best simple classifier's on the same test files, whether the
model beats it, ties (within one standard error) or loses, and the time that was said before the start and was taken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from folder_data import DATA_SETS, prepare

from tubelet.reports.verdict import verdict

_BEFORE = "before"


def run(name: str, root: Path, out: Path, seed: int, init: str = "") -> dict[str, Any]:
    """Train on a data set as a person would, and what came of it."""
    called = f"{name}-{seed}{'-started' if init else ''}"
    record = out / f"{called}.json"
    if record.exists():
        return json.loads(record.read_text())
    data, folder = prepare(name, root), out / called
    command = [sys.executable, "-m", "tubelet", "train", "folder", str(data), "--out", str(folder)]
    command += [*(["--seed", str(seed)] if seed else []), *(["--init", init] if init else [])]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    config = json.loads((folder / "config.json").read_text())["experiment"]
    (task,) = json.loads((folder / "results.json").read_text())["tasks"].values()
    provenance = json.loads((folder / "model" / "tubelet.json").read_text())["provenance"]
    found = {
        "name": name,
        "seed": seed,
        "init": init,
        "task": task,
        "said": [config["chosen"].get("least_seconds", config["chosen"]["seconds"]), config["chosen"]["seconds"]],
        "took": seconds,
        "size": config["chosen"]["size"],
        "epochs": config["chosen"]["epochs"],
        "updates": [provenance["updates"], config["tasks"]["folder"]["length"]["steps"]],
        "validation": provenance.get("validation"),
    }
    record.write_text(json.dumps(found, indent=2) + "\n")
    return found


def run_before(name: str, root: Path, out: Path, checkout: Path, limit: float) -> dict[str, Any]:
    """The same with another checkout's source, stopped after ``limit`` minutes: how far it came, or its result."""
    record = out / f"{name}-{_BEFORE}.json"
    if record.exists():
        return json.loads(record.read_text())
    data, folder = prepare(name, root), out / f"{name}-{_BEFORE}"
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-m", "tubelet", "train", "folder", str(data), "--out", str(folder)]
    began = time.monotonic()
    try:
        subprocess.run(command, env=environment, capture_output=True, timeout=60 * limit, check=True)
        (task,) = json.loads((folder / "results.json").read_text())["tasks"].values()
        found = {"name": name, "task": task, "took": time.monotonic() - began}
    except subprocess.TimeoutExpired:
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines() if line.endswith("}")]
        config = json.loads((folder / "config.json").read_text())
        updates = sum(data["updates"] for data in config["data"].values())
        found = {"name": name, "task": None, "took": 60 * limit, "done": lines[-1]["step"] / updates if lines else 0.0}
    record.write_text(json.dumps(found, indent=2) + "\n")
    return found


def table(out: Path) -> str:
    """The table of what has been run, in Markdown."""
    before = {path.name.partition("-" + _BEFORE)[0]: json.loads(path.read_text()) for path in out.glob("*-before.json")}
    records = [json.loads(p.read_text()) for p in sorted(out.glob("*.json")) if not p.stem.endswith(_BEFORE)]
    order = {name: i for i, name in enumerate(DATA_SETS)}
    lines = [
        "| data set | test | model: top-1, mean class | best simple classifier | | before | said, took |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in sorted(records, key=lambda r: (order[r["name"]], r["seed"], r["init"])):
        task, said = record["task"], verdict(record["task"])
        assert said is not None, record["name"]
        metrics, baseline, rival = task["metrics"], task["baseline"], task["baseline"]["metrics"]
        seed = f" (seed {record['seed']})" if record["seed"] else ""
        started = f", --init {Path(record['init']).name}" if record["init"] else ""
        old = before.get(record["name"]) if not (seed or started) else None
        lines.append(
            f"| {record['name']}{seed}{started} | {task['coverage']['scored']} of {task['coverage']['expected']} "
            f"| {metrics['top1']:.1%}, {metrics['mean_class_accuracy']:.1%} "
            f"| {rival['top1']:.1%}, {rival['mean_class_accuracy']:.1%}: {baseline['name']} "
            f"| {said.outcome} (±{100 * said.error:.1f}) | {_before(old)} "
            f"| {_time(record)} |"
        )
    return "\n".join(lines)


def _time(record: dict[str, Any]) -> str:
    """The minutes that were announced, those taken, and how far off the nearest announced minute is."""
    said, took = record["said"], record["took"]
    least, most = said if isinstance(said, list) else (said, said)
    off = took / least if took < least else took / most if took > most else 1.0
    announced = f"{least / 60:.1f} to {most / 60:.1f}" if least != most else f"{most / 60:.1f}"
    return f"{announced}, {took / 60:.1f} min ({off:.2f})"


def _before(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    if record["task"] is None:
        return f"not done in {record['took'] / 60:.0f} min ({record['done']:.0%} of its updates)"
    return f"{record['task']['metrics']['top1']:.1%} in {record['took'] / 60:.1f} min"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(DATA_SETS), metavar="NAME", help=", ".join(DATA_SETS))
    parser.add_argument("--root", type=Path, default=Path("data/folder"), help="where the data are prepared")
    parser.add_argument("--out", type=Path, default=Path("runs/folder"), help="where runs and results are kept")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each data set")
    parser.add_argument("--init", default="", help="weights to start from")
    parser.add_argument("--before", type=Path, help="a checkout of another version, to run instead")
    parser.add_argument("--limit", type=float, default=12.0, help="minutes after which --before is stopped")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in () if asked.table else asked.names:
        if asked.before:
            print(run_before(name, asked.root, asked.out, asked.before.resolve(), asked.limit), flush=True)
            continue
        for seed in range(asked.seeds):
            found = run(name, asked.root, asked.out, seed, asked.init)
            print(f"{name}, seed {seed}: {verdict(found['task'])} {found['took'] / 60:.1f} min", flush=True)
    print(table(asked.out))


if __name__ == "__main__":
    main()
