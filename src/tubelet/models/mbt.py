"""MBT: Multimodal Bottleneck Transformer (Nagrani et al. 2021): video and sound meet in a few shared tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.model import Encoder, ModelConfig
from tubelet.models.polyvit import Modality
from tubelet.models.vit import Representation
from tubelet.nn.blocks import Block, Stack, TransformerConfig
from tubelet.nn.encoding import Pool, TokenSequence
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid
from tubelet.nn.tokenizers import TubeletTokenizer, grid_of
from tubelet.specs import InputSpec


@dataclass(frozen=True, kw_only=True)
class MBTConfig(ModelConfig):
    """``modalities``: by the name of the input. ``backbone``: every modality's transformer.

    From layer ``fusion_layer`` on, counted from 0, they exchange information: 0 is early fusion, the depth late fusion.
    ``fusion`` "bottleneck": through ``bottlenecks`` tokens and, as the released code has it, one more where ``pool`` is
    "token"; "concatenate": each sees all tokens. ``shared``: one transformer for all modalities. ``fused_at_test``
    False leaves the bottlenecks out at test. ``representation``: see ViT.
    """

    backbone: TransformerConfig
    modalities: dict[str, Modality]
    fusion_layer: int = 8
    fusion: Literal["bottleneck", "concatenate"] = "bottleneck"
    bottlenecks: int = 4
    shared: bool = False
    pool: Pool = "token"
    fused_at_test: bool = True
    representation: int = 0

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("modalities must name at least one")
        if not 0 <= self.fusion_layer <= self.backbone.depth:
            raise ValueError(f"{self.fusion_layer=} must be between 0 and {self.backbone.depth=}, late fusion")
        if self.bottlenecks < 1:
            raise ValueError(f"{self.bottlenecks=} must be at least 1")
        if self.fusion == "concatenate" and not self.fused_at_test:
            raise ValueError(
                'only bottlenecks can be left out at test: with fusion="concatenate", fused_at_test is True'
            )

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return {name: modality.spec for name, modality in self.modalities.items()}

    @property
    def input_sets(self) -> tuple[tuple[str, ...], ...]:
        """All modalities, and, as any may be missing, all smaller sets."""
        names = tuple(self.modalities)
        return tuple(chosen for count in range(len(names), 0, -1) for chosen in combinations(names, count))

    @property
    def may_miss(self) -> bool:
        return len(self.modalities) > 1 and not self.concatenates

    @property
    def concatenates(self) -> bool:
        return self._fused and self.fusion == "concatenate"

    @property
    def bottleneck_tokens(self) -> int:
        """How many there are; 0 where nothing goes through bottlenecks."""
        return self.bottlenecks + (self.pool == "token") if self._fused and self.fusion == "bottleneck" else 0

    @property
    def _fused(self) -> bool:
        return len(self.modalities) > 1 and self.fusion_layer < self.backbone.depth

    def build(self) -> MBT:
        return MBT(self)


class MBT(Encoder):
    """A transformer per modality, which from a middle layer on meet in bottleneck tokens.

    A modality may be missing: from all of a minibatch, where its input is left out, or from some examples, where a
    (B,) input such as "audio_mask" is zero; each example must have one at least. Nothing of a missing one reaches the
    others. ``parts`` has the features of each modality that was given, so that a caller can tell.

    With class tokens every modality answers: ``pooled`` is (modalities, B, D) in training, where the loss is the mean
    of the modalities' losses, and at test the mean (B, D), from which a linear head computes the mean of their logits.
    In place of a missing modality stands the mean of those present. Without class tokens it is the mean of all tokens.
    """

    bottleneck: nn.Parameter | None

    def __init__(self, config: MBTConfig) -> None:
        super().__init__()
        self.inputs, self.width = config.inputs, config.representation or config.backbone.width
        self.depth, self.fusion_layer = config.backbone.depth, config.fusion_layer
        self.pool, self.fused_at_test = config.pool, config.fused_at_test
        self._concatenates, self.may_miss = config.concatenates, config.may_miss
        self.modalities = nn.ModuleDict({name: ModalityStack(m, config) for name, m in config.modalities.items()})
        self.shared = Stack(config.backbone) if config.shared else None
        self.bottleneck = None
        if config.bottleneck_tokens:
            self.bottleneck = nn.Parameter(torch.empty(config.bottleneck_tokens, config.backbone.width))
            nn.init.normal_(self.bottleneck, std=0.02)
        self.norm = config.backbone.norm()
        self.representation = Representation(config.backbone.width, config.representation)

    def forward(self, inputs: Mapping[str, Tensor], attention: bool = False) -> Features:
        stacks = {n: cast("ModalityStack", stack) for n, stack in self.modalities.items() if n in inputs}
        if not stacks:
            raise ValueError(
                f"MBT takes {', '.join(self.modalities)}, or some of them, not {', '.join(inputs) or 'none'}"
            )
        maps: dict[str, Tensor] | None = {} if attention else None
        tokens = {name: stack.tokenizer(inputs[name]) for name, stack in stacks.items()}
        present = self._present(inputs, tuple(stacks))
        x = self._encode({name: stack.sequence(tokens[name]) for name, stack in stacks.items()}, present, maps)
        parts: dict[str, Features] = {}
        for i, (name, stack) in enumerate(stacks.items()):
            _, t, h, w, _ = tokens[name].shape
            part = stack.features(self.norm(x[name]), (t, h, w))
            if present is not None:
                part = replace(part, tokens=part.tokens * present[i, :, None, None])
            parts[name] = replace(part, pooled=self.representation(part.pooled))
        return Features(
            torch.cat([part.tokens for part in parts.values()], dim=1),
            self._pooled(list(parts.values()), present),
            torch.cat([cast("Tensor", part.boxes) for part in parts.values()]),
            parts,
            maps or {},
        )

    def _present(self, inputs: Mapping[str, Tensor], names: Sequence[str]) -> Float[Tensor, "M B"] | None:
        """1 where an example has the modality, else 0; None where all have all."""
        if not any(f"{name}_mask" in inputs for name in names):
            return None
        if self._concatenates:
            raise ValueError("masks need bottleneck or late fusion; here, leave out the input of a missing modality")
        whole = torch.ones(len(inputs[names[0]]), dtype=self.norm.weight.dtype, device=self.norm.weight.device)
        return torch.stack([(inputs.get(f"{name}_mask", whole) != 0).to(whole) for name in names])

    def _encode(
        self, x: dict[str, Tensor], present: Tensor | None, maps: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        bottleneck = None
        if self.bottleneck is not None and (self.training or self.fused_at_test):
            bottleneck = self.bottleneck.expand(len(next(iter(x.values()))), -1, -1)
        for layer in range(self.depth):
            blocks = {name: self._block(name, layer) for name in x}
            if layer < self.fusion_layer or (bottleneck is None and not self._concatenates):
                x = {name: _look(block, x[name], f"{name}/{layer}", maps) for name, block in blocks.items()}
            elif bottleneck is not None:
                x, bottleneck = _through_bottleneck(blocks, x, bottleneck, present, layer, maps)
            elif self.shared is not None:
                joint = _look(blocks[next(iter(x))], torch.cat(list(x.values()), dim=1), f"joint/{layer}", maps)
                x = dict(zip(x, joint.split([tokens.shape[1] for tokens in x.values()], dim=1), strict=True))
            else:
                x = _with_context(blocks, x, layer, maps)
        return x

    def _block(self, name: str, layer: int) -> Block:
        stack = self.shared if self.shared is not None else cast("ModalityStack", self.modalities[name]).stack
        return cast("Block", cast("Stack", stack).blocks[layer])

    def _pooled(self, parts: Sequence[Features], present: Tensor | None) -> Tensor:
        if self.pool == "mean":
            counts = torch.tensor([part.tokens.shape[1] for part in parts], device=parts[0].tokens.device)
            weights = counts[:, None] * (present if present is not None else 1)
            return _mean(torch.stack([part.pooled for part in parts]), weights.to(parts[0].pooled))
        answers = torch.stack([part.pooled for part in parts])
        if present is not None:
            answers = torch.where(present[..., None] > 0, answers, _mean(answers, present))
        return answers if self.training and len(parts) > 1 else answers.mean(0)


class ModalityStack(TokenSequence):
    """Tubelets or patches, class token and positions of one modality, and its blocks where it has its own."""

    def __init__(self, modality: Modality, config: MBTConfig) -> None:
        # The released code has no dropout between positions and blocks.
        super().__init__(replace(config.backbone, dropout=0.0), _grid(modality), config.pool)
        self.tokenizer = TubeletTokenizer(modality.patch, config.backbone.width, modality.spec.channels)
        self.stack = None if config.shared else Stack(config.backbone)


def _grid(modality: Modality) -> Grid:
    return grid_of(modality.spec.extent, modality.patch)


def _through_bottleneck(
    blocks: Mapping[str, Block],
    x: Mapping[str, Tensor],
    bottleneck: Float[Tensor, "B n D"],
    present: Float[Tensor, "M B"] | None,
    layer: int,
    maps: dict[str, Tensor] | None,
) -> tuple[dict[str, Tensor], Tensor]:
    """[x_m, z_fsn] through each modality's block; the new bottleneck is the mean of what the modalities made of it."""
    y: dict[str, Tensor] = {}
    written: list[Tensor] = []
    for name, block in blocks.items():
        out = _look(block, torch.cat([x[name], bottleneck], dim=1), f"{name}/{layer}", maps)
        y[name], bottleneck_m = out.split([x[name].shape[1], bottleneck.shape[1]], dim=1)
        written.append(bottleneck_m)
    weights = present if present is not None else bottleneck.new_ones(len(written), 1)
    return y, _mean(torch.stack(written), weights)


def _with_context(
    blocks: Mapping[str, Block], x: Mapping[str, Tensor], layer: int, maps: dict[str, Tensor] | None
) -> dict[str, Tensor]:
    """Each modality's block on the others' tokens and its own; the results for its own are kept."""
    y: dict[str, Tensor] = {}
    for name, block in blocks.items():
        others = [tokens for other, tokens in x.items() if other != name]
        y[name] = _look(block, torch.cat([*others, x[name]], dim=1), f"{name}/{layer}", maps)[:, -x[name].shape[1] :]
    return y


def _look(block: Block, tokens: Tensor, name: str, maps: dict[str, Tensor] | None) -> Tensor:
    if maps is not None:
        maps |= {f"{name}/{what}": weights for what, weights in block.attention_maps(tokens).items()}
    return block(tokens)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of (M, B, ...) over modalities by their weights (M, B), or (M, 1)."""
    shares = (weights / weights.sum(0)).view(*weights.shape, *[1] * (values.ndim - 2))
    return (values * shares).sum(0)
