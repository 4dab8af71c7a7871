"""A model of videos and captions that knows colors by their names: what it finds is known without training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from colors import SPEC
from tubelet.cards import RetrievalCard
from tubelet.configs import register
from tubelet.evaluation.run import evaluate_run
from tubelet.models import Encoder, Model, ModelConfig
from tubelet.models.family import all_subsets
from tubelet.nn.common_space import CommonSpace
from tubelet.nn.features import Features
from tubelet.specs import InputSpec, TextSpec
from tubelet.weights.folder import save_model
from tubelet.weights.loaded import LoadedModel

WORDS = ("red", "green", "blue")
TEXT = TextSpec(captions=2, words=5, ids=8, vocabulary="<pad> <unk> a video of red green blue", seconds=0.0)
CARD = RetrievalCard(inputs=("video", "text"), audio_width=3, text_width=3, views="2x1")


@dataclass(frozen=True, kw_only=True)
class TellerConfig(ModelConfig):
    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return {"video": SPEC, "text": TEXT}

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        return all_subsets(self.inputs)

    @property
    def may_miss(self) -> bool:
        return True

    def build(self) -> Teller:
        return Teller(self, 3)


register(ModelConfig, "teller", TellerConfig)


class Teller(Encoder):
    """Of a video the mean red, green and blue; of a caption how often it names each."""

    def __init__(self, config: TellerConfig, width: int) -> None:
        super().__init__(config, width)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        pooled: dict[str, Tensor] = {}
        if "video" in inputs:
            pooled["video"] = inputs["video"].movedim(2, 1).flatten(2).mean(2)
        if "text" in inputs:
            pooled["text"] = (inputs["text"][..., None] == torch.arange(5, 8)).sum(-2).float()
        parts = {name: Features(x[:, None], self.scale * x) for name, x in pooled.items()}
        first = next(iter(parts.values()))
        return Features(first.tokens, first.pooled, parts=parts)


def teller() -> LoadedModel:
    """All maps of its common space are the identity."""
    config = TellerConfig()
    encoder = config.build()
    head = CARD.head(encoder)
    assert isinstance(head, CommonSpace)
    with torch.no_grad():
        for linear in (head.video_in, head.video_audio, head.video_text, *head.others.values()):
            nn.init.eye_(linear.get_parameter("weight"))
    return LoadedModel(Model(encoder, {"clips": head}).eval(), config, {"clips": CARD})


def save_teller(folder: Path) -> Path:
    loaded = teller()
    save_model(folder, loaded.model, loaded.config, loaded.tasks, {})
    return folder


def evaluate_on_rank(rank: int, world: int, port: int, options: Mapping[str, Any], out: Path) -> None:
    """One process of a group: evaluates and leaves the results in ``out``."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    results = evaluate_run(**options)
    torch.save({name: result.as_json() for name, result in results.items()}, out)
