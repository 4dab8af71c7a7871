"""MTV: tubelets of several sizes side by side, each with its own encoder (Multiview Transformers, Yan et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.model import Encoder
from tubelet.models.mtv.config import BOTTLENECK, BottleneckFusion, CrossViewFusion, MLPFusion, MTVConfig
from tubelet.models.mtv.fusion import (
    BottleneckLayer,
    CrossViewLayer,
    Lateral,
    MLPLayer,
    Streams,
    TokensInTime,
)
from tubelet.nn.blocks import Block, Stack, TransformerConfig
from tubelet.nn.encoding import Pool, TokenEncoder
from tubelet.nn.features import Features
from tubelet.nn.initializers import init_attention_, lecun_normal_
from tubelet.nn.positions import Grid, LearnedPositions, grid_boxes
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer
from tubelet.specs import SpectrogramSpec


class MTV(Encoder):
    """Streams in parallel with lateral connections, then a global encoder over time.

    The features' tokens are the global encoder's; ``parts`` has each stream's, class tokens left out.
    """

    def __init__(self, config: MTVConfig) -> None:
        super().__init__(config, config.global_encoder.width)
        self.merge, self.keep_space = config.merge, config.keep_space
        self.looks_at = {name: stream.input for name, stream in config.streams.items()}
        grids = config.grids
        self.streams = nn.ModuleDict(
            {
                name: StreamEncoder(
                    stream.backbone,
                    stream.tubelet,
                    grids[name],
                    config.pool,
                    channels=config.media[stream.input].channels,
                    segments=stream.segments if isinstance(config.media[stream.input], SpectrogramSpec) else 0,
                )
                for name, stream in config.streams.items()
            }
        )
        times = [t for t, _, _ in grids.values()]
        self.laterals, self.bottleneck = _laterals(config, min(times))
        length = max(times) if config.merge == "channel" else sum(times)
        self.project = nn.ModuleDict()
        if config.merge == "time":
            self.project.update({name: nn.Linear(s.backbone.width, self.width) for name, s in config.streams.items()})
            init_attention_(*cast("Sequence[nn.Linear]", list(self.project.values())))
        self.global_encoder = TokenEncoder(config.global_encoder, (length, 1, 1), config.pool)
        if isinstance(config.fusion, CrossViewFusion):
            self._initialize_as_released(config.fusion.layers)

    def _initialize_as_released(self, layers: Sequence[int]) -> None:
        """The released code draws the self-attention beside a cross-view attention as any dense layer."""
        for stream in self._streams().values():
            for layer in layers:
                if (block := stream.block(layer)) is not None:
                    for projection in (block.attention.qkv, block.attention.out):
                        lecun_normal_(projection.weight)

    def _streams(self) -> Mapping[str, StreamEncoder]:
        return cast("Mapping[str, StreamEncoder]", dict(self.streams.items()))

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        streams = self._streams()
        places = {name: stream.tokenize(inputs[self.looks_at[name]]) for name, stream in streams.items()}
        z = {name: stream.sequence(places[name]) for name, stream in streams.items()}
        steps = min(x.shape[1] for x in z.values())
        z = self._encode(z, steps)
        parts = {name: stream.features(z[name], _grid(places[name])) for name, stream in streams.items()}
        return replace(self._globally(z, parts), parts=parts)

    def _encode(self, z: Streams, steps: int) -> Streams:
        """All layers of all streams. The frames are grouped to the ``steps`` of the shortest stream, so that a stream
        with r times more of them attends over r frames together."""
        streams = self._streams()
        x = {name: rearrange(tokens, "B (t r) n D -> (B t) r n D", t=steps) for name, tokens in z.items()}
        batch = next(iter(z.values())).shape[0]
        if self.bottleneck is not None:
            x[BOTTLENECK] = self.bottleneck(steps).repeat(batch, 1, 1)
        for layer, lateral in enumerate(self.laterals):
            found = {name: stream.block(layer) for name, stream in streams.items()}
            blocks = {name: block for name, block in found.items() if block is not None}
            x = lateral(x, blocks)
        return {name: rearrange(x[name], "(B t) r n D -> B (t r) n D", t=steps) for name in streams}

    def _globally(self, z: Streams, parts: Mapping[str, Features]) -> Features:
        """Each stream's frames, merged, through the global encoder."""
        merged = self._merge(z if self.keep_space else {n: s.frame(z[n]) for n, s in self._streams().items()})
        n = merged.shape[2]
        features = self.global_encoder(rearrange(merged, "B T n C -> (B n) T 1 1 C"))
        return Features(
            rearrange(features.tokens, "(B n) T C -> B (T n) C", n=n),
            rearrange(features.pooled, "(B n) C -> B n C", n=n).mean(1),
            self._boxes(z, parts),
        )

    def _merge(self, frames: Streams) -> Float[Tensor, "B T n C"]:
        if self.merge == "time":
            return torch.cat([self.project[name](x) for name, x in frames.items()], dim=1)
        longest = max(x.shape[1] for x in frames.values())
        return torch.cat([x.repeat(1, longest // x.shape[1], 1, 1) for x in frames.values()], dim=-1)

    def _boxes(self, z: Streams, parts: Mapping[str, Features]) -> Tensor:
        """Where the global encoder's tokens are: frames of the longest stream, or of all streams in turn."""
        times = [x.shape[1] for x in z.values()]
        if self.keep_space:
            boxes = [cast("Tensor", part.boxes) for part in parts.values()]
        else:
            boxes = [grid_boxes((t, 1, 1)) for t in times]
        return torch.cat(boxes) if self.merge == "time" else boxes[times.index(max(times))]


def _laterals(config: MTVConfig, steps: int) -> tuple[nn.ModuleList, TokensInTime | None]:
    """What happens in each layer, and the bottleneck tokens where there are any."""
    sizes = {name: stream.backbone for name, stream in config.streams.items()}
    layers = [Lateral(layer) for layer in range(max(size.depth for size in sizes.values()))]
    bottleneck = None
    reads = config.reads
    match config.fusion:
        case CrossViewFusion(width=width):
            for layer in config.fusion_layers:
                layers[layer] = CrossViewLayer(layer, sizes, reads, width)
        case MLPFusion():
            for layer in config.fusion_layers:
                pairs = {a: b for a, b in reads.items() if layer < min(sizes[a].depth, sizes[b].depth)}
                layers[layer] = MLPLayer(layer, sizes, pairs)
        case BottleneckFusion(tokens=count):
            order = (next(iter(reads.values())), *reads)
            width = sizes[order[0]].width
            bottleneck = TokensInTime(steps, count, width, std=0.02)
            for layer in sorted(config.fusion_layers):
                layers[layer] = made = BottleneckLayer(layer, sizes, order, width)
                width = made.width
        case None:
            pass
    return nn.ModuleList(layers), bottleneck


def _grid(tokens: Tensor) -> Grid:
    return tokens.shape[1], tokens.shape[2], tokens.shape[3]


class StreamEncoder(nn.Module):
    """Tubelets, a class token per time index, one table of positions for all frames, and blocks; no final norm.

    ``segments``: so many stretches of a spectrogram's time take the place of frames; 0 where there are frames.
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        tubelet: Tubelet,
        grid: Grid,
        pool: Pool,
        *,
        channels: int = 3,
        segments: int = 0,
    ) -> None:
        super().__init__()
        t, h, w = grid
        self.segments = segments
        self.tokenizer = TubeletTokenizer(tubelet, backbone.width, channels)
        self.cls = TokensInTime(t, 1, backbone.width) if pool == "token" else None
        self.positions = LearnedPositions((1, h, w), backbone.width, special=int(pool == "token"))
        self.stack = Stack(backbone)

    def block(self, layer: int) -> Block | None:
        return cast("Block", self.stack.blocks[layer]) if layer < len(self.stack.blocks) else None

    def tokenize(self, x: Tensor) -> Float[Tensor, "B t h w D"]:
        tokens = self.tokenizer(x)
        if not self.segments:
            return tokens
        rows = tokens.shape[2] // self.segments * self.segments
        return rearrange(tokens[:, :, :rows], "B 1 (t h) w D -> B t h w D", t=self.segments)

    def sequence(self, tokens: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B t n D"]:
        B, t, h, w, _ = tokens.shape
        z = tokens.flatten(2, 3)
        if self.cls is not None:
            z = torch.cat([self.cls(t).expand(B, -1, -1, -1).to(z.dtype), z], dim=2)
        return z + self.positions((1, h, w))

    def frame(self, z: Float[Tensor, "B t n D"]) -> Float[Tensor, "B t one D"]:
        """One token per time index: its class token, or the mean."""
        return z[:, :, :1] if self.cls is not None else z.mean(2, keepdim=True)

    def features(self, z: Float[Tensor, "B t n D"], grid: Grid) -> Features:
        tokens = z[:, :, int(self.cls is not None) :]
        return Features(tokens.flatten(1, 2), self.frame(z).flatten(1, 2).mean(1), grid_boxes(grid))
