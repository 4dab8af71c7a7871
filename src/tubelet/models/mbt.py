"""MBT: Multimodal Bottleneck Transformer (Nagrani et al. 2021): video and sound meet in a few shared tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.family import (
    PATCH_NAME,
    SIZES,
    ModelConfig,
    Tower,
    all_subsets,
    block_modules,
    matched,
    size_letters,
)
from tubelet.models.model import MASK, Encoder
from tubelet.models.polyvit import Modality, with_specs
from tubelet.models.rollout import Maps, Shares, back
from tubelet.models.vit import Representation
from tubelet.nn.blocks import Block, Stack, TransformerConfig
from tubelet.nn.encoding import Pool, TokenSequence
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid, LearnedPositions
from tubelet.nn.tokenizers import TubeletTokenizer
from tubelet.specs import InputSpec, SpectrogramSpec, VideoSpec


@dataclass(frozen=True, kw_only=True)
class MBTConfig(ModelConfig):
    """``modalities``: by the name of the input. ``backbone``: every modality's transformer.

    From layer ``fusion_layer`` on, counted from 0, they exchange information: 0 is early fusion, the depth late fusion.
    ``fusion`` "bottleneck": through ``bottlenecks`` tokens and, as the released code has it, one more where ``pool`` is
    "token"; "concatenate": each sees all tokens. ``shared``: one transformer for all modalities. ``fused_at_test``
    False leaves the bottlenecks out at test. ``bottleneck_start``: what the bottleneck tokens start from beside an
    image model's weights. "fresh": as they were built; "positions": the source's table of positions resized to so many
    places, as the released code does. ``representation``: see ViT.
    """

    examples = ("mbt-b/16x2",)
    own = ("bottleneck",)
    keep_apart = "build the model with shared=False, or start it from one modality by Init.into"

    backbone: TransformerConfig
    modalities: dict[str, Modality]
    fusion_layer: int = 8
    fusion: Literal["bottleneck", "concatenate"] = "bottleneck"
    bottlenecks: int = 4
    shared: bool = False
    pool: Pool = "token"
    fused_at_test: bool = True
    bottleneck_start: Literal["fresh", "positions"] = "fresh"
    representation: int = 0

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("modalities must name at least one")
        _ = self.input_sets
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
        return all_subsets(self.modalities)

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

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> MBTConfig | None:
        """``mbt-b/16x2``: video and 8 s of its sound, which meet from two thirds of the layers on, as for AudioSet."""
        if (match := matched(rf"mbt-{PATCH_NAME}x(?P<t>\d+)", name)) is None:
            return None
        backbone, patch = SIZES[match["size"]], int(match["patch"])
        modalities = {
            "video": Modality(spec=VideoSpec.square(frames, size), patch=(int(match["t"]), patch, patch)),
            "audio": Modality(spec=SpectrogramSpec(), patch=(1, patch, patch)),
        }
        return cls(backbone=backbone, modalities=modalities, fusion_layer=backbone.depth * 2 // 3)

    def spelled(self) -> str | None:
        video = self.modalities.get("video")
        return f"mbt-{size_letters(self.backbone)}/{video.patch[1]}x{video.patch[0]}" if video else None

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> MBTConfig:
        return replace(self, modalities=with_specs(self.modalities, specs))

    def with_only(self, inputs: Iterable[str]) -> MBTConfig:
        kept = set(inputs)
        return replace(self, modalities={name: m for name, m in self.modalities.items() if name in kept})

    def towers(self) -> tuple[Tower, ...]:
        return tuple(
            Tower(name, m.spec, m.patch, self.backbone, self._modules(f"modalities.{name}"))
            for name, m in self.modalities.items()
        )

    def _modules(self, modality: str) -> dict[str, str]:
        return {
            "tokenizer": f"{modality}.tokenizer",
            "cls": f"{modality}.cls",
            "positions": f"{modality}.positions",
            **block_modules("shared.blocks" if self.shared else f"{modality}.stack.blocks", self.backbone.depth),
            "norm": "norm",
        }

    def complete(
        self, offered: Mapping[str, Tensor], encoder: Encoder, source: Encoder, towers: tuple[tuple[Tower, Tower], ...]
    ) -> dict[str, Tensor]:
        """The bottleneck tokens, where they start from the positions that the first modality starts from."""
        if self.bottleneck_start == "fresh" or "bottleneck" in offered or not self.bottleneck_tokens:
            return {}
        positions = source.get_submodule(towers[0][0].modules["positions"])
        if not isinstance(positions, LearnedPositions):
            raise ValueError(f"{self.bottleneck_start=} needs weights that have learned positions")
        grid = _square_grid(self.bottleneck_tokens - positions.special)
        target = LearnedPositions(grid, self.backbone.width, positions.special)
        return {"bottleneck": target.resample("table", positions.table, positions, "central")}

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        """The bottleneck's shares go back to all modalities in equal parts, as it is the mean of what they wrote."""
        names = tuple(name for name in self.modalities if name in (given or (input,)))
        special = int(self.pool == "token")
        counts = {name: special + math.prod(self.modalities[name].grid) for name in names}
        shares, bottleneck = _result_shares(self, next(iter(maps.values())), counts)
        for layer in reversed(range(self.backbone.depth)):
            shares, bottleneck = _layer_rollout(self, maps, layer, shares, bottleneck)
        places = {name: x[:, special:] for name, x in shares.items()}
        total = sum((x.sum(-1) for x in places.values()), torch.zeros(()))
        return (places[input] / total[:, None]).unflatten(-1, self.modalities[input].grid)


def _square_grid(places: int) -> Grid:
    """The most square picture of so many places: 2 x 2 for 4, 2 x 3 for 6."""
    height = next(side for side in range(math.isqrt(places), 0, -1) if places % side == 0)
    return 1, height, places // height


def _result_shares(config: MBTConfig, like: Tensor, counts: Mapping[str, int]) -> tuple[dict[str, Tensor], Tensor]:
    """The shares (B, N) of the last layer's tokens of each modality: of the class tokens, or of all; none of the
    bottleneck's."""
    shares = {name: like.new_zeros(len(like), count) for name, count in counts.items()}
    for x in shares.values():
        if config.pool == "token":
            x[:, 0] = 1 / len(counts)
        else:
            x[:] = 1 / sum(counts.values())
    return shares, like.new_zeros(len(like), config.bottleneck_tokens)


def _layer_rollout(
    config: MBTConfig, maps: Maps, layer: int, shares: dict[str, Tensor], bottleneck: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    names, sizes = list(shares), [x.shape[-1] for x in shares.values()]
    shared = f"shared.blocks.{layer}.attention"
    together = config.shared and config.concatenates and layer >= config.fusion_layer
    if together and len(names) > 1:
        x = back(torch.cat(list(shares.values()), -1), maps[shared])
        return dict(zip(names, x.split(sizes, -1), strict=True)), bottleneck
    before = {name: torch.zeros_like(x) for name, x in shares.items()}
    read = torch.zeros_like(bottleneck)
    for i, (name, x) in enumerate(shares.items()):
        key = (
            (f"{shared}:{i}" if i else shared) if config.shared else f"modalities.{name}.stack.blocks.{layer}.attention"
        )
        weights = maps[key]
        extra = weights.shape[-1] - x.shape[-1]
        others = [other for other in names if other != name]
        if not extra:
            before[name] += back(x, weights)
        elif extra == bottleneck.shape[-1]:
            own, theirs = back(torch.cat([x, bottleneck / len(names)], -1), weights).split([x.shape[-1], extra], -1)
            before[name] += own
            read += theirs
        else:  # all tokens, its own last
            row = back(torch.cat([*(torch.zeros_like(shares[o]) for o in others), x], -1), weights)
            parts = row.split([*(shares[o].shape[-1] for o in others), x.shape[-1]], -1)
            for other, part in zip([*others, name], parts, strict=True):
                before[other] += part
    return before, read


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
        super().__init__(config, config.representation or config.backbone.width)
        self.depth, self.fusion_layer = config.backbone.depth, config.fusion_layer
        self.pool, self.fused_at_test = config.pool, config.fused_at_test
        self._concatenates = config.concatenates
        self.modalities = nn.ModuleDict({name: ModalityStack(m, config) for name, m in config.modalities.items()})
        self.shared = Stack(config.backbone) if config.shared else None
        self.bottleneck = None
        if config.bottleneck_tokens:
            self.bottleneck = nn.Parameter(torch.empty(config.bottleneck_tokens, config.backbone.width))
            nn.init.normal_(self.bottleneck, std=0.02)
        self.norm = config.backbone.norm()
        self.representation = Representation(config.backbone.width, config.representation)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        stacks = {n: cast("ModalityStack", stack) for n, stack in self.modalities.items() if n in inputs}
        if not stacks:
            raise ValueError(
                f"MBT takes {', '.join(self.modalities)}, or some of them, not {', '.join(inputs) or 'none'}"
            )
        tokens = {name: stack.tokenizer(inputs[name]) for name, stack in stacks.items()}
        present = self._present(inputs, tuple(stacks))
        x = self._encode({name: stack.sequence(tokens[name]) for name, stack in stacks.items()}, present)
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
        )

    def _present(self, inputs: Mapping[str, Tensor], names: Sequence[str]) -> Float[Tensor, "M B"] | None:
        """1 where an example has the modality, else 0; None where all have all."""
        if not any(name + MASK in inputs for name in names):
            return None
        if self._concatenates:
            raise ValueError("masks need bottleneck or late fusion; here, leave out the input of a missing modality")
        whole = torch.ones(inputs[names[0]].shape[0], dtype=self.norm.weight.dtype, device=self.norm.weight.device)
        return torch.stack([(inputs.get(name + MASK, whole) != 0).to(whole) for name in names])

    def _encode(self, x: dict[str, Tensor], present: Tensor | None) -> dict[str, Tensor]:
        bottleneck = None
        if self.bottleneck is not None and (self.training or self.fused_at_test):
            bottleneck = self.bottleneck.expand(next(iter(x.values())).shape[0], -1, -1)
        for layer in range(self.depth):
            blocks = {name: self._block(name, layer) for name in x}
            if layer < self.fusion_layer or (bottleneck is None and not self._concatenates):
                x = {name: block(x[name]) for name, block in blocks.items()}
            elif bottleneck is not None:
                x, bottleneck = _through_bottleneck(blocks, x, bottleneck, present)
            elif self.shared is not None:
                joint = blocks[next(iter(x))](torch.cat(list(x.values()), dim=1))
                x = dict(zip(x, joint.split([tokens.shape[1] for tokens in x.values()], dim=1), strict=True))
            else:
                x = _with_context(blocks, x)
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
        super().__init__(replace(config.backbone, dropout=0.0), modality.grid, config.pool)
        self.tokenizer = TubeletTokenizer(modality.patch, config.backbone.width, modality.spec.channels)
        self.stack = None if config.shared else Stack(config.backbone)


def _through_bottleneck(
    blocks: Mapping[str, Block],
    x: Mapping[str, Tensor],
    bottleneck: Float[Tensor, "B n D"],
    present: Float[Tensor, "M B"] | None,
) -> tuple[dict[str, Tensor], Tensor]:
    """[x_m, z_fsn] through each modality's block; the new bottleneck is the mean of what the modalities made of it."""
    y: dict[str, Tensor] = {}
    written: list[Tensor] = []
    for name, block in blocks.items():
        out = block(torch.cat([x[name], bottleneck], dim=1))
        y[name], bottleneck_m = out.split([x[name].shape[1], bottleneck.shape[1]], dim=1)
        written.append(bottleneck_m)
    weights = present if present is not None else bottleneck.new_ones(len(written), 1)
    return y, _mean(torch.stack(written), weights)


def _with_context(blocks: Mapping[str, Block], x: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each modality's block on the others' tokens and its own; the results for its own are kept."""
    y: dict[str, Tensor] = {}
    for name, block in blocks.items():
        others = [tokens for other, tokens in x.items() if other != name]
        y[name] = block(torch.cat([*others, x[name]], dim=1))[:, -x[name].shape[1] :]
    return y


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of (M, B, ...) over modalities by their weights (M, B), or (M, 1)."""
    shares = (weights / weights.sum(0)).view(*weights.shape, *[1] * (values.ndim - 2))
    return (values * shares).sum(0)
