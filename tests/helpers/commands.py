"""Commands as a person types them, and what they stand for."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from functools import cache
from io import StringIO

from tubelet.cli import main
from tubelet.configs import from_json
from tubelet.training.experiment import Experiment


@cache
def experiment_of(*words: str) -> Experiment:
    """The experiment of ``tubelet train WORDS``, which is printed and not started."""
    printed = StringIO()
    with redirect_stdout(printed):
        assert main(["train", *words, "--print-config"]) == 0, words
    return from_json(Experiment, json.loads(printed.getvalue()))
