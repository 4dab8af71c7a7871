"""Trains what a list of JSON objects on the command line says, one after the other: {"experiment", "out"}.

Under torchrun or alone. Two more keys: at update ``kill_at`` every process of the run is killed with SIGKILL, or the
one of rank ``kill_rank`` alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from functools import partial

from tubelet.configs import from_json
from tubelet.evaluation.run import validator
from tubelet.training.experiment import Experiment
from tubelet.training.ranks import Ranks
from tubelet.training.run import train


def killed(_: object, __: object, ranks: Ranks, rank: int | None) -> dict[str, object]:
    if rank is None:
        os.killpg(0, signal.SIGKILL)
    elif rank == ranks.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def main() -> None:
    for job in json.loads(sys.argv[1]):
        experiment = from_json(Experiment, job["experiment"])
        if kill_at := job.get("kill_at"):
            training = replace(experiment.training, evaluate_every=kill_at)
            train(
                replace(experiment, training=training),
                job["out"],
                evaluate=partial(killed, rank=job.get("kill_rank")),
                validate=validator(),
                progress=False,
            )
        train(experiment, job["out"], validate=validator(), progress=False)


if __name__ == "__main__":
    main()
