"""A run's folder whose training has not come to its end, and so has no model yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_RUN = {"experiment", "data"}  # the keys by which a run's config.json differs from transformers' and timm's


def unfinished_run(folder: Path) -> str:
    """What to tell of a run without a model: how far it is, and what to do; "" where ``folder`` is no such run."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(config, dict) or not config.keys() >= _RUN:
        return ""
    done, of = _last_checkpoint(folder / "checkpoints"), _updates(config)
    far = f"update {done:,} of {of:,}, from its last checkpoint" if of else f"update {done:,}, from its last checkpoint"
    if not done:
        far = "it has no checkpoint yet"
    return f"{folder}: this run has not finished ({far}): run the same `tubelet train` command again to finish it"


def _last_checkpoint(folder: Path) -> int:
    """The update of the newest checkpoint ``step-N``; 0 if there is none."""
    steps = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return max((int(step) for step in steps if step.isdigit()), default=0)


def _updates(config: Any) -> int:
    """The updates in all, as the run's schedule counts them; 0 where the config does not say."""
    try:
        lengths = [task["updates"] for task in config["data"].values()]
        together = config["experiment"]["schedule"]["kind"] == "Accumulated"
    except (AttributeError, KeyError, TypeError):
        return 0
    return sum(lengths) // (len(lengths) if together else 1)
