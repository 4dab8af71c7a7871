"""X-ViT: space-time mixing attention (Bulat et al. 2021, "Space-time Mixing Attention for Video Transformer"), as a
family of models in one file outside the library.

    tubelet --plugin xvit.py cost xvit-b/16
    tubelet --plugin xvit.py train folder DIR --model xvit-s/16 --init hf:timm/vit_small_patch16_224...

Every frame attends within itself, but a part of the channels of its keys and values is that of the frames before and
after: time costs no multiply-add, and each layer sees one frame further. A transformer of one layer then reads the
class tokens of the frames. ``xvit-b/16`` looks at 16 frames of 224x224 pixels. Differences from the released code: the
classifier is one linear layer (there: an MLP), and at the ends of a clip the frame itself stands in for the neighbor
that is missing, so that a model started from an image ViT sees a still video as that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.configs import register
from tubelet.models.family import PATCH_NAME, SIZES, ModelConfig, Tower, block_modules, matched, size_letters
from tubelet.models.model import Encoder
from tubelet.models.rollout import Maps, Shares, below, moved, sequence
from tubelet.nn.attention import Attention, attend, attention_weights
from tubelet.nn.blocks import Block, Transformer, TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid, LearnedPositions, grid_boxes
from tubelet.nn.tokenizers import TubeletTokenizer, grid_of
from tubelet.specs import InputSpec, VideoSpec


@dataclass(frozen=True, kw_only=True)
class XViTConfig(ModelConfig):
    """``mixed``: the share of the channels of a head's keys and values that other frames give, half of it by the frame
    before and half by the one after; the released configurations have a quarter. ``temporal_depth``: the layers of the
    transformer over class tokens.
    """

    examples = ("xvit-b/16",)
    own = ("time.*", "temporal.*", "temporal_cls")

    backbone: TransformerConfig
    patch: tuple[int, int] = (16, 16)
    video: VideoSpec = VideoSpec(frames=16, stride=16)
    mixed: float = 0.25
    temporal_depth: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.mixed <= 1:
            raise ValueError(f"{self.mixed=} is a share: it must be between 0 and 1")
        grid_of(self.video.extent, (1, *self.patch))

    @property
    def inputs(self) -> Mapping[str, VideoSpec]:
        return {"video": self.video}

    @property
    def grid(self) -> Grid:
        return grid_of(self.video.extent, (1, *self.patch))

    @property
    def mixed_channels(self) -> int:
        """The channels of a head that come from each of the two neighbors."""
        return round(self.mixed * self.backbone.inner / self.backbone.heads / 2)

    def build(self) -> XViT:
        return XViT(self)

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> XViTConfig | None:
        if (match := matched(rf"xvit-{PATCH_NAME}", name)) is None:
            return None
        patch = int(match["patch"])
        video = replace(VideoSpec.square(frames or 16, size), stride=16)
        return cls(backbone=SIZES[match["size"]], patch=(patch, patch), video=video)

    def spelled(self) -> str | None:
        return f"xvit-{size_letters(self.backbone)}/{self.patch[0]}"

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> XViTConfig:
        return replace(self, video=specs["video"])

    def towers(self) -> tuple[Tower, ...]:
        modules = {
            "tokenizer": "tokenizer",
            "cls": "cls",
            "positions": "positions",
            **block_modules("transformer.blocks", self.backbone.depth),
            "norm": "transformer.norm",
        }
        return (Tower("video", self.video, (1, *self.patch), self.backbone, modules),)

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        """Back from the class token over time, then through each frame's attention, whose values come from three."""
        t, h, w = self.grid
        layers, temporal = below(maps, "transformer"), below(maps, "temporal")
        shares = layers[0].new_zeros(len(layers[0]) // t, t, 1 + h * w)
        shares[:, :, 0] = sequence(temporal, t) if temporal else 1 / t
        here = 1 - 2 * self.mixed_channels * self.backbone.heads / self.backbone.inner
        for weights in reversed(layers):
            given_by = moved(shares, weights.unflatten(0, (-1, t)))
            before, after = torch.zeros_like(given_by), torch.zeros_like(given_by)
            before.index_add_(1, _neighbors(t, -1, given_by.device), given_by)
            after.index_add_(1, _neighbors(t, 1, given_by.device), given_by)
            shares = (shares + here * given_by + (1 - here) / 2 * (before + after)) / 2
        tokens = shares[:, :, 1:].unflatten(-1, (h, w))
        return tokens / tokens.sum((1, 2, 3), keepdim=True)


class XViT(Encoder):
    """Patches and a class token of every frame, positions in space and in time, blocks of space-time mixing attention,
    and a transformer over the frames' class tokens."""

    def __init__(self, config: XViTConfig) -> None:
        super().__init__(config, config.backbone.width)
        width, (t, h, w) = config.backbone.width, config.grid
        self.tokenizer = TubeletTokenizer((1, *config.patch), width, config.video.channels)
        self.cls = nn.Parameter(torch.zeros(1, width))
        self.positions = LearnedPositions((1, h, w), width, special=1)
        self.time = LearnedPositions((t, 1, 1), width)
        self.dropout = nn.Dropout(config.backbone.dropout)
        self.transformer = Transformer(
            config.backbone, lambda backbone, rate: MixingBlock(backbone, rate, config.mixed_channels)
        )
        self.temporal_cls = nn.Parameter(torch.zeros(1, width))
        self.temporal = Transformer(replace(config.backbone, depth=config.temporal_depth))

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        tokens = self.tokenizer(inputs["video"])
        B, t, h, w, _ = tokens.shape
        z = torch.cat([self.cls.expand(B, t, -1, -1), tokens.flatten(2, 3)], dim=2) + self.positions((1, h, w))
        z = self.transformer(self.dropout(z) + self.time((t, 1, 1))[:, None])
        frames = torch.cat([self.temporal_cls.expand(B, -1, -1), z[:, :, 0]], dim=1)
        return Features(z[:, :, 1:].flatten(1, 2), self.temporal(frames)[:, 0], grid_boxes((t, h, w)))


class MixingAttention(Attention):
    """Attention within each frame, with keys and values of which ``mixed`` channels per head come from the frame before
    and as many from the frame after."""

    def __init__(self, config: TransformerConfig, mixed: int) -> None:
        super().__init__(config.width, config.heads, config.attention_dropout, inner=config.inner)
        self.mixed = mixed

    def forward(self, x: Float[Tensor, "B t m D"]) -> Float[Tensor, "B t m D"]:
        y = attend(*self.mixed_frames(x), self.dropout if self.training else 0.0)
        return self.out(rearrange(y, "(B t) h m d -> B t m (h d)", t=x.shape[1]))

    def attention_maps(self, x: Float[Tensor, "B t m D"]) -> dict[str, Tensor]:
        """The weights ((B t), h, m, m)."""
        q, k, _ = self.mixed_frames(x)
        return {"": attention_weights(q, k)}

    def mixed_frames(self, x: Float[Tensor, "B t m D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of each frame, keys and values of three: ((B t), h, m, d) each."""
        q, k, v = rearrange(self.qkv(x), "B t m (three h d) -> three B t h m d", three=3, h=self.heads).unbind(0)
        return q.flatten(0, 1), self._mix(k).flatten(0, 1), self._mix(v).flatten(0, 1)

    def _mix(self, x: Float[Tensor, "B t h m d"]) -> Float[Tensor, "B t h m d"]:
        n, frames = self.mixed, x.shape[1]
        before, after = (x[:, _neighbors(frames, step, x.device)] for step in (-1, 1))
        return torch.cat([before[..., :n], after[..., n : 2 * n], x[..., 2 * n :]], dim=-1)


def _neighbors(frames: int, step: int, device: torch.device) -> Tensor:
    """The place of each frame's neighbor; at the ends, its own."""
    return (torch.arange(frames, device=device) + step).clamp(0, frames - 1)


class MixingBlock(Block):
    """A block with space-time mixing attention."""

    def __init__(self, config: TransformerConfig, drop_rate: float, mixed: int) -> None:
        super().__init__(config, drop_rate)
        self.attention = MixingAttention(config, mixed)


register(ModelConfig, "xvit", XViTConfig)
