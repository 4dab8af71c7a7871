"""Trains compiled blocks on three modalities in turn, each with its own batch sizes and stochastic depth.

Prints {"training": graphs, "evaluation": graphs, "compiled": losses, "eager": losses} as JSON.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import torch
from torch._dynamo.utils import counters

from training_tiny import POLYVIT_RATES, polyvit_batch, polyvit_experiment
from tubelet.training.module import TrainingModule
from tubelet.training.parallel import parallelize
from tubelet.training.ranks import Ranks
from tubelet.training.run import initial_model

torch.compile = partial(torch.compile, backend="eager")  # the graphs are the same as with the default


def learner(compiled: bool) -> torch.nn.Module:
    made = polyvit_experiment(random_layers=False, adaptor_depth=1)
    tasks = {name: replace(task, stochastic_depth=POLYVIT_RATES[name]) for name, task in made.tasks.items()}
    training = replace(made.training, compile=compiled)
    alone = Ranks(torch.device("cpu"))
    return parallelize(TrainingModule(initial_model(made), tasks, alone), training, alone)


def loss(module: torch.nn.Module, task: str, size: int) -> torch.Tensor:
    torch.manual_seed(size)
    return module(polyvit_batch(task, number=size, size=size))[0]


def main() -> None:
    compiled, eager = learner(True), learner(False)
    losses: dict[str, list[float]] = {"compiled": [], "eager": []}
    for size in (6, 4, 3, 8, 6, 5):
        for task in POLYVIT_RATES:
            for name, module in (("compiled", compiled), ("eager", eager)):
                value = loss(module, task, size)
                value.backward()
                losses[name].append(value.item())
    training = counters["stats"]["unique_graphs"]
    compiled.eval()
    with torch.no_grad():
        for size in (6, 90, 150, 260, 400):
            for task in POLYVIT_RATES:
                loss(compiled, task, size)
    print(json.dumps({"training": training, "evaluation": counters["stats"]["unique_graphs"] - training, **losses}))


if __name__ == "__main__":
    main()
