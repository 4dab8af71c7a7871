"""How fast the models compute, beside a peer and beside the machine's own ceiling.

    python benchmarks/model_speed.py [--runs 5] [--frames 32] [--size 224] [--json speed.json]
    python benchmarks/model_speed.py --families [--names vivit-b/16x2 ...] [--batch 1 4] [--device cuda]
    python benchmarks/model_speed.py --before ../tubelet-before [--names vivit-b/16x2-fe ...] [--runs 3]

The first prints ViViT's Model 1 beside transformers' VivitForVideoClassification with the same weights, on the same
clip, in the same process: seconds per clip (median of runs taken in turn), the ratio peer / ours, the share of the
machine's matrix-product ceiling (measured here, in float32 and bfloat16, on the model's own largest product), and the
largest logit difference. bfloat16 is each library under ``torch.autocast``.

The second prints, for a model of each family, in float32 and, on a GPU, in bfloat16 and compiled, too: milliseconds
per clip, multiply-adds, the share of the ceiling (measured anew beside every run, for machines that others share),
ViViT's models in relation to Model 1 beside the same of the paper's Table 2 (measured there on a TPU), and how much of
TubeViT's time its tokenizer takes.

The third times a training step (forward and backward) and an inference step of each name in turn with this source and
with that of another checkout, in processes of their own, and prints the ratio before / now of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import VivitConfig, VivitForVideoClassification

from tubelet.costs.cost import cost, work
from tubelet.hardware import bfloat16_fault
from tubelet.models import Model, model_config
from tubelet.models.tubevit import TubeViT
from tubelet.models.vatt.config import VattConfig
from tubelet.nn.heads import LinearHead
from tubelet.specs import InputSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.formats import read_checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

FAMILIES = (
    "vivit-b/16x2",
    "vivit-b/16x2-fe",
    "vivit-b/16x2-fsa",
    "vivit-b/16x2-fdp",
    "vivit-b/16x2-tl8@6",
    "vit-b/16",
    "vit-l/16-tl16@12+11",
    "ast-b/16",
    "polyvit-b/16x4",
    "mtv-b/2+s/4+ti/8",
    "mbt-b/16x2",
    "tubevit-b/16",
    "vatt-bbs",
)

# ViViT, Table 2: milliseconds on a TPU.
PUBLISHED_MS = {"vivit-b/16x2": 58.9, "vivit-b/16x2-fe": 17.4, "vivit-b/16x2-fsa": 31.7, "vivit-b/16x2-fdp": 22.9}


def timed(call: Callable[[], object], device: str = "cpu") -> float:
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ceiling(dtype: torch.dtype, tokens: int, width: int, runs: int, device: str = "cpu") -> float:
    """Multiply-adds per second of the model's largest product, (tokens, width) x (width, 4 width)."""
    a = torch.randn(tokens, width, dtype=dtype, device=device)
    b = torch.randn(4 * width, width, dtype=dtype, device=device)
    times = [timed(lambda: torch.nn.functional.linear(a, b), device) for _ in range(4 * runs + 1)]
    return tokens * width * 4 * width / min(times[1:])


def random_input(spec: InputSpec, batch: int, device: str, dtype: torch.dtype) -> Tensor:
    if spec.integers:
        return torch.randint(1, 100, (batch, *spec.shape), device=device)
    return torch.randn(batch, *spec.shape, device=device, dtype=dtype)


def family(name: str, inputs: tuple[str, ...], batch: int, runs: int, device: str, mode: str) -> dict[str, Any]:
    """One line: ``mode`` is float32, bfloat16 or compiled (bfloat16, too)."""
    config = model_config(name)
    if isinstance(config, VattConfig):
        config = config.with_only(inputs)
    counted = work(config, inputs=inputs)
    encoder = config.build()
    model = Model(encoder, {"label": LinearHead(encoder.width, 400)}).eval().to(device)
    dtype = torch.float32 if mode == "float32" else torch.bfloat16
    model = model.to(dtype)
    run = torch.compile(model) if mode == "compiled" else model
    example = {i: random_input(config.inputs[i], batch, device, dtype) for i in inputs}
    width = min(1024, max(m.in_features for m in model.modules() if isinstance(m, torch.nn.Linear)))
    tokenizing = None
    with torch.inference_mode():
        run(example, "label")
        seconds, rates = list[float](), list[float]()
        for _ in range(runs):
            seconds.append(timed(lambda: run(example, "label"), device))
            rates.append(ceiling(dtype, max(1024, batch * counted.tokens), width, 1, device))
        if isinstance(encoder, TubeViT) and inputs == ("video",) and mode != "compiled":
            video = example["video"]
            cut = [timed(lambda: (encoder.patches(video), encoder.tubes(video)), device) for _ in range(4 * runs)]
            tokenizing = statistics.median(cut) / statistics.median(seconds)
    return {
        "name": name,
        "inputs": "+".join(inputs),
        "batch": batch,
        "mode": mode,
        "ms_per_clip": 1e3 * statistics.median(seconds) / batch,
        "fastest_ms": 1e3 * min(seconds) / batch,
        "slowest_ms": 1e3 * max(seconds) / batch,
        "multiply_adds_g": counted.multiply_adds / 1e9,
        "ceiling_gmacs": statistics.median(rates) / 1e9,
        "share_of_ceiling": statistics.median(
            batch * counted.multiply_adds / s / rate for s, rate in zip(seconds, rates, strict=True)
        ),
        "tokenizing": tokenizing,
    }


def inputs_of(name: str) -> tuple[tuple[str, ...], ...]:
    """What is timed together: MBT with all of its inputs, VATT's towers one by one."""
    config = model_config(name)
    if isinstance(config, VattConfig):
        return tuple((tower.name,) for tower in config.towers())
    return config.input_sets[: 1 if name.startswith("mbt") else None]


def families(options: argparse.Namespace) -> None:
    modes = ("float32",) if options.device == "cpu" else ("float32", "bfloat16", "compiled")
    rows = [
        family(name, tuple(inputs), batch, options.runs, options.device, mode)
        for mode in modes
        for batch in options.batch
        for name in track(options.names, description=f"{mode}, batch {batch}", console=Console(stderr=True))
        for inputs in inputs_of(name)
    ]
    where = f"{torch.get_num_threads()} threads" if options.device == "cpu" else torch.cuda.get_device_name()
    table = Table(title=f"milliseconds per clip, median of {options.runs} (fastest to slowest); {where}", box=None)
    for column in ("model", "input", "batch", "", "ms", "G multiply-adds", "share of ceiling", "to Model 1", "Table 2"):
        table.add_column(column, justify="left" if column in ("model", "input") else "right")
    for row in rows:
        first = next(
            (r for r in rows if r["name"] == "vivit-b/16x2" and (r["batch"], r["mode"]) == (row["batch"], row["mode"])),
            None,
        )
        published = PUBLISHED_MS.get(row["name"])
        row["to_model_1"] = row["ms_per_clip"] / first["ms_per_clip"] if first and published else None
        table.add_row(
            row["name"],
            row["inputs"],
            str(row["batch"]),
            row["mode"],
            "{ms_per_clip:.0f} ({fastest_ms:.0f}-{slowest_ms:.0f})".format(**row)
            if row["ms_per_clip"] >= 100
            else "{ms_per_clip:.1f} ({fastest_ms:.1f}-{slowest_ms:.1f})".format(**row),
            f"{row['multiply_adds_g']:.1f}",
            f"{row['share_of_ceiling']:.0%}",
            f"{row['to_model_1']:.2f}" if row["to_model_1"] else "",
            f"{published / PUBLISHED_MS['vivit-b/16x2']:.2f}" if published else "",
        )
    console = Console(width=140)
    console.print(table)
    for row in rows:
        if row["tokenizing"]:
            which = f"{row['name']}, batch {row['batch']}, {row['mode']}"
            console.print(f"{which}: {row['tokenizing']:.1%} of the time cuts patches and tubes")
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "where": where, "rows": rows}, indent=1) + "\n")


# What each of the two sources runs. It knows both names of the function that reads a model's name.
_STEPS = """
import json, sys, time, torch
try:
    from tubelet.models import model_config
except ImportError:
    from tubelet.models.names import model_config
torch.manual_seed(0)
config = model_config(sys.argv[1])
encoder, spec = config.build(), next(iter(config.inputs.values()))
name = next(iter(config.inputs))
shape = (spec.frames, spec.bins) if hasattr(spec, "bins") else (spec.channels, *spec.size)
shape = (spec.frames, *shape) if hasattr(spec, "fps") else shape
x = {name: torch.randn(1, *shape)}

def train():
    encoder.train()(x).pooled.square().mean().backward()

def test():
    with torch.no_grad():
        encoder.eval()(x)

found = {}
for step in (train, test):
    step()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    found[step.__name__] = min(times)
print(json.dumps(found))
"""


def against(before: Path, names: Sequence[str], runs: int) -> None:
    """Print how fast this source is beside another checkout's, the two measured in turn; a model at a time."""
    here = Path(__file__).resolve().parents[1]
    print(f"{'model':24}{'step':8}{'before, s':>10}{'now, s':>10}{'before / now':>14}")
    for name in names:
        times: dict[tuple[Path, str], list[float]] = {}
        for _ in range(runs):
            for source in (before.resolve(), here):
                environment = {**os.environ, "PYTHONPATH": str(source / "src")}
                command = [sys.executable, "-c", _STEPS, name]
                said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
                for step, seconds in json.loads(said).items():
                    times.setdefault((source, step), []).append(seconds)
        for step in ("train", "test"):
            old, new = (statistics.median(times[source, step]) for source in (before.resolve(), here))
            print(f"{name:24}{step:8}{old:>10.3f}{new:>10.3f}{old / new:>14.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--families", action="store_true", help="a model of every family, without the peer")
    parser.add_argument("--names", nargs="+", default=FAMILIES)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--before", type=Path, help="a checkout of another version, to measure beside this one")
    options = parser.parse_args()
    if options.before:
        against(options.before, options.names, options.runs)
        return
    if options.families:
        torch.manual_seed(0)
        families(options)
        return
    if bfloat16_fault() and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        print(bfloat16_fault(), "(done for this run)", flush=True)
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"})

    torch.manual_seed(0)
    peer_config = VivitConfig(num_frames=options.frames, image_size=options.size, num_labels=400)
    peer = VivitForVideoClassification(peer_config).eval()
    torch.nn.init.normal_(peer.classifier.weight, std=0.05)
    loaded = read_checkpoint(Checkpoint.of(peer.state_dict(), peer.config.to_dict()))
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
