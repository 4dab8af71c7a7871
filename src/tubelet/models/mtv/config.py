"""MTV's config: streams, what they tell each other, and how they are merged (Multiview Transformers, Yan et al. 2022).

The paper calls a tubelet size with its encoder a view; here it is a stream, since a view is also a clip or a crop of
testing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from tubelet.models.family import (
    SIZES,
    ModelConfig,
    Tower,
    block_modules,
    matched,
    size_letters,
)
from tubelet.models.mtv.rollout import rollout
from tubelet.models.rollout import Maps, Shares
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.encoding import Pool
from tubelet.nn.positions import Grid
from tubelet.nn.tokenizers import Tubelet, grid_of
from tubelet.specs import InputSpec, SpectrogramSpec, VideoSpec

if TYPE_CHECKING:
    from tubelet.models.mtv.encoder import MTV

BOTTLENECK = "bottleneck"
"""Between the streams' own tokens, the name of those that all of them share."""

Towards = Literal["coarse", "fine"]


@dataclass(frozen=True, kw_only=True)
class CrossViewFusion:
    """Cross-view attention (CVA) before the blocks ``layers``, counted from 0: each stream looks at the next finer one.

    ``width``: of queries, keys and values, and the number of heads: those of the stream that asks, as released, or of
    the one it looks at, which the printed costs fit. ``towards`` "fine": each looks at the next coarser one.
    """

    layers: tuple[int, ...]
    width: Literal["query", "source"] = "query"
    towards: Towards = "coarse"


@dataclass(frozen=True, kw_only=True)
class BottleneckFusion:
    """``tokens`` bottleneck tokens per time step, that the streams read and write one after the other in ``layers``."""

    layers: tuple[int, ...]
    tokens: int = 4
    towards: Towards = "coarse"


@dataclass(frozen=True, kw_only=True)
class MLPFusion:
    """The MLPs of ``layers`` also read the next finer stream; in every layer where both have one, if empty."""

    layers: tuple[int, ...] = ()


Fusion = CrossViewFusion | BottleneckFusion | MLPFusion


_FUSIONS: dict[str, Callable[[tuple[int, ...]], Fusion | None]] = {
    "": lambda layers: CrossViewFusion(layers=layers),
    "-late": lambda layers: None,
    "-mlp": lambda layers: MLPFusion(),
    "-bottleneck": lambda layers: BottleneckFusion(layers=layers),
}
_SIZE = r"(?:ti|s|b|l|h)/[1-9]\d*"
_NAME = rf"mtv-(?P<streams>{_SIZE}(?:\+{_SIZE})*)(?P<fusion>-late|-mlp|-bottleneck|)"


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

    examples = ("mtv-b/2+s/4+ti/8", "mtv-l/2+b/4+s/8+ti/16-late")
    own = ("global_encoder.*", "project.*", "laterals.*", "bottleneck.*")

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
        fine = isinstance(self.fusion, CrossViewFusion | BottleneckFusion) and self.fusion.towards == "fine"
        return {b: a for a, b in pairwise(self.streams if fine else reversed(self.streams))}

    @property
    def bottleneck_tokens(self) -> int:
        """Per time step; 0 where nothing goes through bottleneck tokens."""
        return self.fusion.tokens if isinstance(self.fusion, BottleneckFusion) else 0

    def build(self) -> MTV:
        from tubelet.models.mtv.encoder import MTV

        return MTV(self)

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> MTVConfig | None:
        """``mtv-b/2+s/4+ti/8``: streams of tubelets of 2, 4 and 8 frames, in any order, and cross-view attention in the
        middle and last layer, as released; ``-late``, ``-mlp`` and ``-bottleneck`` name the other fusions.

        Patches of 16 pixels (14 of Huge), and the released global encoder, whose MLP has 3072 units whatever its width.
        Raises ValueError for two streams of one tubelet length.
        """
        if (match := matched(_NAME, name)) is None:
            return None
        pairs = sorted((pair.split("/") for pair in match["streams"].split("+")), key=lambda pair: -int(pair[1]))
        if len({t for _, t in pairs}) < len(pairs):
            raise ValueError(f"{name!r}: two streams have one tubelet length; give each its own")
        if match["fusion"] and len(pairs) == 1:
            return None
        streams = {f"{letters}{t}": _stream(letters, int(t)) for letters, t in pairs}
        depth = max(stream.backbone.depth for stream in streams.values())
        width = sum(stream.backbone.width for stream in streams.values())
        return cls(
            streams=streams,
            media={"video": VideoSpec.square(frames, size)},
            global_encoder=TransformerConfig(width=width, depth=12, heads=8, mlp=3072),
            fusion=_FUSIONS[match["fusion"]]((depth // 2 - 1, depth - 1)) if len(pairs) > 1 else None,
        )

    def spelled(self) -> str | None:
        """The largest streams first, and of one size the finest."""
        fusion = next((suffix for suffix, kind in _FUSIONS.items() if type(kind((0,))) is type(self.fusion)), "")
        parts = sorted((-s.backbone.width, s.tubelet[0], size_letters(s.backbone)) for s in self.streams.values())
        lengths = {t for _, t, _ in parts}
        if len(lengths) < len(parts) or list(self.streams) != sorted(self.streams, key=self._coarseness):
            return None
        joined = "+".join(f"{size}/{t}" for _, t, size in parts)
        return f"mtv-{joined}{fusion if len(parts) > 1 else ''}"

    def _coarseness(self, stream: str) -> int:
        return -self.streams[stream].tubelet[0]

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> MTVConfig:
        return replace(self, media={name: specs[name] for name in self.media})

    def towers(self) -> tuple[Tower, ...]:
        """A tower for each stream: a class token per time index, and no final norm."""
        return tuple(
            Tower(name, self.media[s.input], s.tubelet, s.backbone, _modules(name, s.backbone.depth), stream_of=s.input)
            for name, s in self.streams.items()
        )

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        """On the finest grid of the streams that look at ``input``; a coarse token's share is spread over what it
        reads.

        Streams that are concatenated in channels have equal shares of a frame. What MLP fusion brings is left out, as
        is all that MLPs do.
        """
        return rollout(self, maps, input)


def _modules(name: str, depth: int) -> dict[str, str]:
    stream = f"streams.{name}"
    return {
        "tokenizer": f"{stream}.tokenizer",
        "cls": f"{stream}.cls.table",
        "positions": f"{stream}.positions",
        **block_modules(f"{stream}.stack.blocks", depth),
    }


def _stream(size: str, t: int) -> Stream:
    side = 14 if size == "h" else 16
    return Stream(backbone=SIZES[size], tubelet=(t, side, side))


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
