"""The papers' printed costs beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import cast

from tubelet.evaluation.cost import cost
from tubelet.models.model import ModelConfig
from tubelet.models.names import model_config
from tubelet.models.vivit import ViViTConfig

Quantities = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A printed row: ``published``, ``ours`` and ``ratio`` (ours / published) by quantity.

    Quantities: ``gflops`` (1e9 multiply-adds, one view), ``params_m`` (1e6), ``tokens``.
    """

    source: str
    model: str
    input: str
    published: Quantities
    ours: Quantities
    ratio: Quantities


def _named(name: str) -> Callable[[int, int], ModelConfig]:
    return lambda frames, size: model_config(name, frames=frames, size=size)


def _average_pool(frames: int, size: int) -> ModelConfig:
    config = cast("ViViTConfig", model_config("vivit-b/16x2-fe", frames=frames, size=size))
    return replace(config, temporal_depth=0)


# What the library builds for a printed row, by its (source, model): a config from the clip's frames and pixels.
_BUILDERS: Mapping[tuple[str, str], Callable[[int, int], ModelConfig]] = {
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 1 spatio-temporal"): _named("vivit-b/16x2"),
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 2 factorised encoder, L_t=4"): _named("vivit-b/16x2-fe"),
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 3 factorised self-attention"): _named("vivit-b/16x2-fsa"),
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 4 factorised dot-product"): _named("vivit-b/16x2-fdp"),
    ("ViViT Tab. 2", "ViViT-B/16x2 Model 2 average-pool baseline, L_t=0"): _average_pool,
    ("ViViT Tab. 5", "ViViT-L/16x2 Model 1"): _named("vivit-l/16x2"),
}


def published_rows() -> tuple[list[PublishedRow], list[str]]:
    """Every printed row that the library can build, ours beside it; and the names of the rows that it cannot yet."""
    text = files("tubelet.evaluation").joinpath("published_costs.json").read_text()
    rows, waiting = [], []
    for row in json.loads(text)["rows"]:
        builder = _BUILDERS.get((row["source"], row["model"]))
        if builder is None:
            waiting.append(f"{row['source']}: {row['model']}")
            continue
        frames, height, _ = (int(n) for n in row["input"].split("x"))
        counted = _ours(builder(frames, height), row["classes"])
        published = {name: float(row[name]) for name in ("gflops", "params_m", "tokens") if name in row}
        ours = {name: counted[name] for name in published}
        ratio = {name: ours[name] / published[name] for name in published}
        rows.append(
            PublishedRow(
                source=row["source"],
                model=row["model"],
                input=row["input"],
                published=published,
                ours=ours,
                ratio=ratio,
            )
        )
    return rows, waiting


@cache
def _ours(config: ModelConfig, classes: int) -> Quantities:
    counted = cost(config, classes)
    return {
        "gflops": counted.multiply_adds / 1e9,
        "params_m": counted.parameters / 1e6,
        "tokens": float(counted.tokens),
    }
