"""What a long job must survive: damaged and large files, strangers' models, kills, full disks, two starts.

    python benchmarks/reliability.py [mutated opens large folders kills starts checkpoints] [--quick]

Everything is made here from fixed seeds and done in processes that are watched. Prints one table, then what failed,
and writes OUT/reliability.json; the files that failed stay in OUT. ``--quick`` does a tenth of the counts, but
half of the opens, as fewer do not show what memory grows by. The full disk is a small tmpfs, which needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from claims import Claim, show
from media_reliability import large, mutated, opens
from run_reliability import checkpoints, kills, starts

Part = Callable[[argparse.Namespace, Path], list[Claim]]


def _folders(asked: argparse.Namespace, folder: Path) -> list[Claim]:
    from folder_reliability import folders  # with its hostile folders, which no other part needs

    return folders(folder, asked.folders, asked.seed, asked.workers)


PARTS: dict[str, Part] = {
    "mutated": lambda asked, folder: mutated(folder, asked.files, asked.seed, asked.workers),
    "opens": lambda asked, folder: opens(folder, asked.opens, asked.seed),
    "large": lambda asked, folder: large(folder),
    "folders": _folders,
    "kills": lambda asked, folder: kills(folder, asked.kills, asked.seed, asked.workers),
    "starts": lambda asked, folder: starts(folder),
    "checkpoints": lambda asked, folder: checkpoints(folder, asked.seed),
}


def prepared(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--files", type=int, default=5000, help="damaged files")
    parser.add_argument("--opens", type=int, default=10_000)
    parser.add_argument("--folders", type=int, default=200, help="hostile model folders")
    parser.add_argument("--kills", type=int, default=20, help="at random moments, and while checkpoints are written")
    parser.add_argument("--quick", action="store_true", help="a tenth of these counts; half of the opens")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/reliability"))
    asked = parser.parse_args()
    if asked.quick:
        asked.opens //= 2
        for count in ("files", "folders", "kills"):
            setattr(asked, count, max(1, getattr(asked, count) // 10))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    claims: list[Claim] = []
    for part in asked.parts or PARTS:
        began = time.perf_counter()
        claims += PARTS[part](asked, prepared((asked.out / part).resolve()))
        print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
    show(claims)
    found = {"torch": torch.__version__, "seed": asked.seed, "claims": [asdict(claim) for claim in claims]}
    (asked.out / "reliability.json").write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(claim.holds is False for claim in claims) else 0


if __name__ == "__main__":
    sys.exit(main())
