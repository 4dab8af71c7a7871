"""What DropToken saves: the time of a training step with half of the tokens, over that with all of them.

    python benchmarks/drop_token.py [--models vatt-tiny vatt-bbs] [--batch 1] [--steps 5]

Random inputs, one caption per clip, the contrastive loss, forward and backward, no optimizer and no loader. Steps of
both alternate, and medians are compared. By the paper's Table 5 the operations of MBS go down to 0.48 (375.4 of 784.8
GFLOPs).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from tubelet.data.batch import Batch
from tubelet.models import Model, model_config
from tubelet.models.vatt.config import VattConfig
from tubelet.training.contrastive import Contrastive
from tubelet.training.ranks import Ranks


def steps(config: VattConfig, batch: int, count: int) -> dict[float, list[float]]:
    """Seconds of each step, by the share of tokens kept."""
    objective, ranks = Contrastive(), Ranks(torch.device("cpu"))
    inputs = {
        name: torch.randint(1, 100, (batch, 1, spec.shape[1])) if spec.integers else torch.randn(batch, *spec.shape)
        for name, spec in config.inputs.items()
    }
    models: dict[float, Model] = {}
    for kept in (1.0, 0.5):
        encoder = replace(config, kept=kept).build()
        models[kept] = Model(encoder, {"t": objective.head(encoder)}).train()
    times: dict[float, list[float]] = {kept: [] for kept in models}
    for step in range(count + 1):
        for kept, model in models.items():
            began = time.perf_counter()
            loss, _ = objective(model, Batch("t", inputs, None, [""] * batch), ranks)
            loss.backward()
            model.zero_grad()
            if step:
                times[kept].append(time.perf_counter() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vatt-tiny", "vatt-bbs"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    table = Table("model", "clips", "all tokens, s", "half, s", "ratio", title="a training step")
    for name in given.models:
        config = model_config(name)
        assert isinstance(config, VattConfig)
        times = steps(config, given.batch, given.steps)
        whole, half = (median(times[kept]) for kept in (1.0, 0.5))
        table.add_row(name, str(given.batch), f"{whole:.3f}", f"{half:.3f}", f"{half / whole:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
