"""VATT's encoder: every modality by itself, through a transformer of its own or one that all share (Sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from tubelet.models.model import Encoder
from tubelet.models.vatt.config import LinearWords, Sense, Tokens, VattConfig
from tubelet.models.vatt.senses import SenseTower
from tubelet.models.vatt.text import LinearTower, SharedTextTower, TextTower
from tubelet.nn.blocks import BiasedBlock, Transformer
from tubelet.nn.features import Features
from tubelet.nn.initializers import zero_biases_


class VattEncoder(Encoder):
    """Video, sound and captions to features, each by itself: no modality attends to another.

    The features are those of the first modality that is given, in the order of the config, and ``parts`` has all that
    are given. A clip may have several captions: ``parts["text"]`` has pooled features (B, P, D) and tokens
    (B, P, L, D), and where captions are given alone, the features are those of the first. ``widths``: of the pooled
    features, by input.

    An input such as "audio_mask" tells the objective which examples have sound; here every example is computed.
    """

    def __init__(self, config: VattConfig) -> None:
        widths = {name: config.width_of(name) for name in config.modalities}
        super().__init__(config, next(iter(widths.values())))
        self.widths = widths
        self.modalities = nn.ModuleDict({name: tower_of(m, config) for name, m in config.modalities.items()})
        self.shared = None
        if config.shared:
            first, *_ = config.towers()
            self.shared = Transformer(first.backbone, BiasedBlock)
        zero_biases_(self)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        parts = {name: tower(inputs[name], self.shared) for name, tower in self.modalities.items() if name in inputs}
        if not parts:
            raise ValueError(f"VATT takes {', '.join(self.modalities)}, or some of them, not {', '.join(inputs)}")
        name, first = next(iter(parts.items()))
        if name == "text":
            first = replace(first, tokens=first.tokens[:, 0], pooled=first.pooled[:, 0])
        return replace(first, parts=parts)


def tower_of(modality: Tokens, config: VattConfig) -> nn.Module:
    if isinstance(modality, Sense):
        return SenseTower(modality, config)
    if isinstance(modality, LinearWords):
        return LinearTower(modality, config)
    return (SharedTextTower if config.shared else TextTower)(modality, config)
