"""MTV: Multiview Transformers (Yan et al. 2022). Tubelets of several sizes side by side, each with its own encoder.

The paper calls a tubelet size with its encoder a view; here it is a stream, since a view is also a clip or a crop of
testing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.model import Encoder, ModelConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool, TokenEncoder
from tubelet.nn.features import Features
from tubelet.nn.fusion import (
    BOTTLENECK,
    BottleneckFusion,
    BottleneckLayer,
    CrossViewFusion,
    CrossViewLayer,
    Fusion,
    Lateral,
    MLPFusion,
    MLPLayer,
    Streams,
    TokensInTime,
)
from tubelet.nn.initializers import init_attention_, lecun_normal_
from tubelet.nn.positions import Grid, grid_boxes
from tubelet.nn.streams import StreamEncoder
from tubelet.nn.tokenizers import Tubelet, grid_of
from tubelet.specs import InputSpec, SpectrogramSpec, VideoSpec


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A tubelet size (t, h, w) and its encoder. ``input``: what it looks at, by name.

    ``segments``: a spectrogram has no frames; so many stretches of its time take their place, each with a class token.
    """

    backbone: TransformerConfig
    tubelet: Tubelet
    input: str = "video"
    segments: int = 1

    def grid(self, spec: InputSpec) -> Grid:
        """(t, h, w): the time indices and the tokens of each."""
        t, h, w = grid_of(spec.extent, self.tubelet)
        return (self.segments, h // self.segments, w) if isinstance(spec, SpectrogramSpec) else (t, h, w)


@dataclass(frozen=True, kw_only=True)
class MTVConfig(ModelConfig):
    """``streams``: by name, from the one with the fewest tokens to the one with the most, which fusion follows.

    ``media``: the inputs, by name; all are taken together. ``fusion``: None is late fusion: the streams meet in the
    global encoder alone, whose size is ``global_encoder``. ``merge`` "channel" concatenates the streams' channels, the
    shorter streams repeated in time; its width is then the sum of theirs. "time" projects every stream to its width and
    lines them up. ``pool`` "mean" is without class tokens; ``keep_space`` then runs the global encoder for every place
    of a frame, instead of once on the frames' means.
    """

    streams: dict[str, Stream]
    global_encoder: TransformerConfig
    media: dict[str, InputSpec] = field(default_factory=lambda: {"video": VideoSpec()})
    fusion: Fusion | None = None
    merge: Literal["channel", "time"] = "channel"
    pool: Pool = "token"
    keep_space: bool = False

    def __post_init__(self) -> None:
        _check_inputs(self)
        _check_times(self)
        _check_places(self)
        if self.fusion is not None:
            _check_fusion(self, self.fusion)
        total = sum(stream.backbone.width for stream in self.streams.values())
        if self.merge == "channel" and self.global_encoder.width != total:
            raise ValueError(f"{self.global_encoder.width=} must be {total}, the sum of the streams' widths")

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        return self.media

    @property
    def grids(self) -> dict[str, Grid]:
        return {name: stream.grid(self.media[stream.input]) for name, stream in self.streams.items()}

    @property
    def fusion_layers(self) -> tuple[int, ...]:
        depths = sorted(stream.backbone.depth for stream in self.streams.values())
        match self.fusion:
            case None:
                return ()
            case MLPFusion(layers=()):
                return tuple(range(depths[-2]))
            case fusion:
                return fusion.layers

    @property
    def reads(self) -> dict[str, str]:
        """The stream that each stream takes from, in the order of the fusion."""
        coarse = getattr(self.fusion, "towards", "coarse") == "coarse"
        return {b: a for a, b in pairwise(reversed(self.streams) if coarse else self.streams)}

    def build(self) -> MTV:
        return MTV(self)


def _check_inputs(config: MTVConfig) -> None:
    if not config.streams:
        raise ValueError("streams must name at least one")
    for name, stream in config.streams.items():
        if "." in name or name in ("", BOTTLENECK, "global"):
            raise ValueError(f"{name!r} cannot name a stream: give it another name, without a full stop")
        if stream.input not in config.media:
            raise ValueError(f"stream {name!r} looks at {stream.input!r}, but media has {', '.join(config.media)}")
        spec = config.media[stream.input]
        if stream.segments != 1 and not isinstance(spec, SpectrogramSpec):
            raise ValueError(f"stream {name!r}: {stream.segments=} are of a spectrogram's time; this has frames")
        if min(stream.grid(spec)) < 1:
            raise ValueError(f"stream {name!r}: {spec.extent=} has too few tubelets for {stream.segments=}")
    if unused := config.media.keys() - {stream.input for stream in config.streams.values()}:
        raise ValueError(f"no stream looks at {', '.join(sorted(unused))} of media")


def _check_times(config: MTVConfig) -> None:
    times = {name: t for name, (t, _, _) in config.grids.items()}
    shortest, longest = min(times.values()), max(times.values())
    odd = [t for t in times.values() if t % shortest or (config.merge == "channel" and longest % t)]
    if odd:
        raise ValueError(
            f"the streams' time indices {times} must be multiples of the fewest, {shortest}, and divide the most, "
            f"{longest}: choose another tubelet length or number of frames"
        )


def _check_places(config: MTVConfig) -> None:
    same = len({grid[1:] for grid in config.grids.values()}) == 1
    if config.keep_space and (config.pool != "mean" or not same):
        raise ValueError(f'keep_space needs pool="mean" and the same places in all streams, which have {config.grids}')
    if isinstance(config.fusion, MLPFusion) and not same:
        raise ValueError(
            f"MLP fusion goes place by place: the streams' grids {config.grids} must have the same h and w"
        )


def _check_fusion(config: MTVConfig, fusion: Fusion) -> None:
    deepest = max(stream.backbone.depth for stream in config.streams.values())
    if len(config.streams) < 2:
        raise ValueError("a single stream has nothing to fuse: fusion must be None")
    if any(not 0 <= layer < deepest for layer in fusion.layers):
        raise ValueError(f"{fusion.layers=} must be among the {deepest} layers of the deepest stream, counted from 0")
    times = [t for t, _, _ in config.grids.values()]
    if isinstance(fusion, MLPFusion) and any(b % a for a, b in pairwise(times)):
        raise ValueError(f"MLP fusion: the time indices of each stream must be a multiple of the one before: {times}")


class MTV(Encoder):
    """Streams in parallel with lateral connections, then a global encoder over time.

    The features' tokens are the global encoder's; ``parts`` has each stream's, class tokens left out.
    """

    def __init__(self, config: MTVConfig) -> None:
        super().__init__()
        self.inputs, self.width = config.inputs, config.global_encoder.width
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

    def forward(self, inputs: Mapping[str, Tensor], attention: bool = False) -> Features:
        streams = self._streams()
        places = {name: stream.tokenize(inputs[self.looks_at[name]]) for name, stream in streams.items()}
        z = {name: stream.sequence(places[name]) for name, stream in streams.items()}
        steps = min(x.shape[1] for x in z.values())
        maps: dict[str, Tensor] | None = {} if attention else None
        z = self._encode(z, steps, maps)
        parts = {name: stream.features(z[name], _grid(places[name])) for name, stream in streams.items()}
        features = self._globally(z, parts, outer := {} if attention else None)
        B = len(features.pooled)
        found = {name: rearrange(a, "(B t) ... -> B t ...", B=B) for name, a in (maps or {}).items()}
        found |= {f"global/{name}": a.unflatten(0, (B, -1)) for name, a in (outer or {}).items()}
        return replace(features, parts=parts, attention=found)

    def _encode(self, z: Streams, steps: int, maps: dict[str, Tensor] | None) -> Streams:
        """All layers of all streams. The frames are grouped to the ``steps`` of the shortest stream, so that a stream
        with r times more of them attends over r frames together."""
        streams = self._streams()
        x = {name: rearrange(tokens, "B (t r) n D -> (B t) r n D", t=steps) for name, tokens in z.items()}
        batch = len(next(iter(x.values()))) // steps
        if self.bottleneck is not None:
            x[BOTTLENECK] = self.bottleneck(steps).repeat(batch, 1, 1)
        for layer, lateral in enumerate(self.laterals):
            found = {name: stream.block(layer) for name, stream in streams.items()}
            blocks = {name: block for name, block in found.items() if block is not None}
            x = lateral(x, blocks, maps)
        return {name: rearrange(x[name], "(B t) r n D -> B (t r) n D", t=steps) for name in streams}

    def _globally(self, z: Streams, parts: Mapping[str, Features], maps: dict[str, Tensor] | None) -> Features:
        """Each stream's frames, merged, through the global encoder."""
        merged = self._merge(z if self.keep_space else {n: s.frame(z[n]) for n, s in self._streams().items()})
        B, _, n, _ = merged.shape
        features = self.global_encoder(rearrange(merged, "B T n C -> (B n) T 1 1 C"), maps)
        return Features(
            rearrange(features.tokens, "(B n) T C -> B (T n) C", B=B),
            features.pooled.unflatten(0, (B, n)).mean(1),
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
