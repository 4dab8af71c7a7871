"""TimeSformer: divided space-time attention (Bertasius et al. 2021, "Is Space-Time Attention All You Need for Video
Understanding?").

Differences from the paper: none are known in the forward pass. The linear layer after the temporal attention starts at
zero, so that a model which starts from an image ViT begins as that image model on every frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.family import PATCH_NAME, SIZES, ModelConfig, Tower, block_modules, matched, size_letters
from tubelet.models.model import Encoder
from tubelet.models.rollout import Maps, Shares, back
from tubelet.nn.attention import Attention
from tubelet.nn.blocks import Block, Transformer, TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid, LearnedPositions, grid_boxes
from tubelet.nn.tokenizers import TubeletTokenizer, grid_of
from tubelet.specs import InputSpec, VideoSpec


@dataclass(frozen=True, kw_only=True)
class TimeSformerConfig(ModelConfig):
    """``patch``: height and width of a patch of one frame. The defaults are the paper's: 8 frames, 32 apart."""

    examples = ("timesformer-b/16",)
    own = ("time.*", "*.norm_time.*", "*.attention_time.*", "*.project_time.*")

    backbone: TransformerConfig
    patch: tuple[int, int] = (16, 16)
    video: VideoSpec = VideoSpec(frames=8, stride=32)

    def __post_init__(self) -> None:
        grid_of(self.video.extent, (1, *self.patch))

    @property
    def inputs(self) -> Mapping[str, VideoSpec]:
        return {"video": self.video}

    @property
    def grid(self) -> Grid:
        return grid_of(self.video.extent, (1, *self.patch))

    def build(self) -> TimeSformer:
        return TimeSformer(self)

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> TimeSformerConfig | None:
        """``timesformer-b/16``: patches of 16x16 pixels of single frames, 8 of them."""
        if (match := matched(rf"timesformer-{PATCH_NAME}", name)) is None:
            return None
        patch = int(match["patch"])
        video = replace(VideoSpec.square(frames or 8, size), stride=32)
        return cls(backbone=SIZES[match["size"]], patch=(patch, patch), video=video)

    def spelled(self) -> str | None:
        return f"timesformer-{size_letters(self.backbone)}/{self.patch[0]}"

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> TimeSformerConfig:
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

    def complete(
        self, offered: Mapping[str, Tensor], encoder: Encoder, source: Encoder, towers: tuple[tuple[Tower, Tower], ...]
    ) -> dict[str, Tensor]:
        """The temporal attention and its norm start as copies of the spatial ones (Sec. 4, from an image model)."""
        names = [name for name, _ in encoder.named_parameters() if "_time." in name and name not in offered]
        spatial = {n: n.replace("attention_time", "attention").replace("norm_time", "norm_attention") for n in names}
        return {name: offered[theirs] for name, theirs in spatial.items() if theirs in offered}

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        """Back through each block: space, where all frames share the class token, then time."""
        t, h, w = self.grid
        layers = list(maps.values())
        shares = layers[0].new_zeros(len(layers[0]) // (h * w), t, 1 + h * w)
        shares[:, :, 0] = 1 / t
        for time, space in zip(layers[-2::-2], layers[::-2], strict=True):
            shares = back(shares, space.unflatten(0, (-1, t)))
            shares[:, :, 0] = shares[:, :, 0].mean(1, keepdim=True)
            tokens = back(rearrange(shares[:, :, 1:], "B t n -> B n t"), time.unflatten(0, (-1, h * w)))
            shares = torch.cat([shares[:, :, :1], rearrange(tokens, "B n t -> B t n")], -1)
        tokens = shares[:, :, 1:].unflatten(-1, (h, w))
        return tokens / tokens.sum((1, 2, 3), keepdim=True)


class TimeSformer(Encoder):
    """Patches of every frame; a class token; positions in space and in time; blocks of divided attention (Sec. 3)."""

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__(config, config.backbone.width)
        width, (t, h, w) = config.backbone.width, config.grid
        self.tokenizer = TubeletTokenizer((1, *config.patch), width, config.video.channels)
        self.cls = nn.Parameter(torch.zeros(1, width))
        self.positions = LearnedPositions((1, h, w), width, special=1)
        self.time = LearnedPositions((t, 1, 1), width)
        self.dropout = nn.Dropout(config.backbone.dropout)
        self.transformer = Transformer(config.backbone, DividedBlock)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        tokens = self.tokenizer(inputs["video"])
        B, t, h, w, _ = tokens.shape
        cls = self.cls.expand(B, t, -1, -1)
        z = torch.cat([cls, tokens.flatten(2, 3)], dim=2) + self.positions((1, h, w))
        z = torch.cat([z[:, :, :1], z[:, :, 1:] + self.time((t, 1, 1))[:, None]], dim=2)
        z = self.transformer(self.dropout(z))
        return Features(z[:, :, 1:].flatten(1, 2), z[:, :, 0].mean(1), grid_boxes((t, h, w)))


class DividedBlock(Block):
    """Attention over time at each place, then over space in each frame, then the MLP.

    Every frame has a copy of the one class token, which takes no part in the attention over time; after that over
    space, the copies are averaged.
    """

    def __init__(self, config: TransformerConfig, drop_rate: float = 0.0) -> None:
        super().__init__(config, drop_rate)
        self.norm_time = config.norm()
        self.attention_time = Attention(config.width, config.heads, config.attention_dropout)
        self.project_time = nn.Linear(config.width, config.width)
        nn.init.zeros_(self.project_time.weight)
        nn.init.zeros_(self.project_time.bias)

    def forward(self, x: Float[Tensor, "B t m D"]) -> Float[Tensor, "B t m D"]:
        t, places = x.shape[1], x.shape[2] - 1
        cls, tokens = x[:, :, :1], x[:, :, 1:]
        y = self.attention_time(rearrange(self.norm_time(tokens), "B t n D -> (B n) t D"))
        y = self.project_time(rearrange(y, "(B n) t D -> B t n D", n=places))
        x = torch.cat([cls, tokens + self.drop(self.dropout(y))], dim=2)
        y = self.attention(self.norm_attention(x).flatten(0, 1))
        x = x + self.drop(self.dropout(rearrange(y, "(B t) m D -> B t m D", t=t)))
        x = torch.cat([x[:, :, :1].mean(1, keepdim=True).expand(-1, t, -1, -1), x[:, :, 1:]], dim=2)
        return x + self.drop(self.mlp(self.norm_mlp(x)))
