"""ViViT's Model 1 beside transformers' VivitForVideoClassification: same weights, same clip, same process.

    python benchmarks/model_speed.py [--runs 5] [--frames 32] [--size 224] [--json speed.json]

Prints seconds per clip (median of runs taken in turn), the ratio peer / ours, the share of the machine's matrix-product
ceiling (measured here, in float32 and bfloat16, on the model's own largest product), and the largest logit difference.
bfloat16 is each library under ``torch.autocast``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import VivitConfig, VivitForVideoClassification

from tubelet.evaluation.cost import cost
from tubelet.hardware import bfloat16_fault
from tubelet.weights.huggingface import from_state

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ceiling(dtype: torch.dtype, tokens: int, width: int, runs: int) -> float:
    """Multiply-adds per second of the model's largest product, (tokens, width) x (width, 4 width)."""
    a, b = torch.randn(tokens, width, dtype=dtype), torch.randn(4 * width, width, dtype=dtype)
    times = [timed(lambda: torch.nn.functional.linear(a, b)) for _ in range(4 * runs + 1)]
    return tokens * width * 4 * width / min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if bfloat16_fault() and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        print(bfloat16_fault(), "(done for this run)", flush=True)
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"})

    torch.manual_seed(0)
    peer_config = VivitConfig(num_frames=options.frames, image_size=options.size, num_labels=400)
    peer = VivitForVideoClassification(peer_config).eval()
    torch.nn.init.normal_(peer.classifier.weight, std=0.05)
    loaded = from_state(peer.config.to_dict(), peer.state_dict())
    ours = loaded.model.eval()
    counted = cost(loaded.config)
    clip = torch.randn(1, options.frames, 3, options.size, options.size)

    rows: list[dict[str, object]] = []
    for name, dtype in DTYPES.items():
        with torch.inference_mode(), torch.autocast("cpu", dtype) if name != "float32" else nullcontext():
            calls: dict[str, Callable[[], Tensor]] = {
                "tubelet": lambda: ours({"video": clip}, "label"),
                "transformers": lambda: peer(pixel_values=clip).logits,
            }
            difference = (calls["tubelet"]().float() - calls["transformers"]().float()).abs().max().item()
            times: dict[str, list[float]] = {library: [] for library in calls}
            for _ in range(options.runs):
                for library, call in calls.items():
                    times[library].append(timed(call))
            rate = ceiling(dtype, counted.tokens, loaded.config.backbone.width, options.runs)
        seconds = {library: statistics.median(values) for library, values in times.items()}
        rows.append(
            {
                "dtype": name,
                "seconds": seconds,
                "spread": {library: (min(values), max(values)) for library, values in times.items()},
                "ratio": statistics.median(b / a for a, b in zip(times["tubelet"], times["transformers"], strict=True)),
                "ceiling_gmacs": rate / 1e9,
                "share_of_ceiling": counted.multiply_adds / seconds["tubelet"] / rate,
                "largest_logit_difference": difference,
            }
        )
    report(rows, counted.multiply_adds, options)


def report(rows: list[dict[str, object]], multiply_adds: int, options: argparse.Namespace) -> None:
    about = {
        "model": f"ViViT-B/16x2 Model 1, {options.frames}x{options.size}x{options.size}, batch 1, random weights",
        "multiply_adds_g": multiply_adds / 1e9,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": platform.processor() or platform.machine(),
        "runs": options.runs,
    }
    table = Table(title="{model}; {multiply_adds_g:.1f} G multiply-adds, {threads} threads".format(**about))
    for column in (
        "",
        "tubelet s",
        "transformers s",
        "ratio",
        "ceiling GMAC/s",
        "share of ceiling",
        "logit difference",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        seconds, spread = row["seconds"], row["spread"]
        cells = [f"{seconds[k]:.2f} ({spread[k][0]:.2f}-{spread[k][1]:.2f})" for k in ("tubelet", "transformers")]
        table.add_row(
            row["dtype"],
            *cells,
            f"{row['ratio']:.2f}x",
            f"{row['ceiling_gmacs']:.0f}",
            f"{row['share_of_ceiling']:.0%}",
            f"{row['largest_logit_difference']:.1e}",
        )
    Console(width=140).print(table)
    if options.json:
        options.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
