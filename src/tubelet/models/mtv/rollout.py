"""Attention rollout through MTV's streams, their lateral connections and the global encoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from tubelet.models.rollout import Maps, Shares, back, below, moved, sequence, spread
from tubelet.nn.positions import Grid

if TYPE_CHECKING:
    from tubelet.models.mtv.config import MTVConfig, Stream

_Parts = dict[str, Tensor]  # shares (B, steps, r n) of the tokens of each stream


def rollout(config: MTVConfig, maps: Maps, modality: str) -> Shares:
    """See :meth:`MTVConfig.rollout`."""
    shares = _result(config, maps)
    some = next(iter(shares.values()))
    count = config.bottleneck_tokens
    bottleneck = some.new_zeros(*some.shape[:2], count) if count else None
    depth = max(stream.backbone.depth for stream in config.streams.values())
    for layer in reversed(range(depth)):
        shares, bottleneck = _blocks(config, maps, layer, shares, bottleneck)
        shares = _crossings(config, maps, layer, shares)
    return _on_one_grid(config, shares, modality)


def _result(config: MTVConfig, maps: Maps) -> _Parts:
    """The shares (B, steps, r n) of the streams' tokens that the global encoder takes."""
    times = {name: t for name, (t, _, _) in config.grids.items()}
    joined = config.merge == "channel"
    steps = max(times.values()) if joined else sum(times.values())
    places = math.prod(next(iter(config.grids.values()))[1:]) if config.keep_space else 1
    frames = sequence(below(maps, "global_encoder"), steps).unflatten(0, (-1, places))
    if joined:
        parts = [frames.unflatten(-1, (-1, t)).sum(-2) / len(times) for t in times.values()]
    else:
        parts = list(frames.split(list(times.values()), -1))
    shares: _Parts = {}
    for (name, (_, h, w)), x in zip(config.grids.items(), parts, strict=True):
        by_frame = rearrange(x, "B p t -> B t p") / x.shape[1]
        if config.pool == "token":
            by_frame = torch.cat([by_frame, by_frame.new_zeros(*by_frame.shape[:2], h * w)], -1)
        elif not config.keep_space:
            by_frame = by_frame.expand(-1, -1, h * w) / (h * w)
        shares[name] = rearrange(by_frame, "B (t r) n -> B t (r n)", t=min(times.values()))
    return shares


def _blocks(
    config: MTVConfig, maps: Maps, layer: int, shares: _Parts, bottleneck: Tensor | None
) -> tuple[_Parts, Tensor | None]:
    """Each stream's own block; where there are bottleneck tokens in it, in the reverse of the order of turns."""
    reads = config.reads
    order = [next(iter(reads.values())), *reads] if reads else list(shares)
    before = dict(shares)
    for name in reversed(order):
        if (weights := _of_steps(config, maps.get(f"streams.{name}.stack.blocks.{layer}.attention"))) is None:
            continue
        x = shares[name]
        if bottleneck is None or weights.shape[-1] == x.shape[-1]:
            before[name] = back(x, weights)
        else:
            row = back(torch.cat([x, bottleneck], -1), weights)
            before[name], bottleneck = row.split([x.shape[-1], bottleneck.shape[-1]], -1)
    return before, bottleneck


def _crossings(config: MTVConfig, maps: Maps, layer: int, shares: _Parts) -> _Parts:
    """Half of what a stream has came from the one that it looked at; all looked at what entered the layer."""
    names = {query: f"laterals.{layer}.cross.{query}.attention" for query in config.reads}
    looked = {query: a for query, name in names.items() if (a := _of_steps(config, maps.get(name))) is not None}
    before = {name: x / 2 if name in looked else x for name, x in shares.items()}
    for query, weights in looked.items():
        source = config.reads[query]
        before[source] = before[source] + moved(shares[query] / 2, weights)
    return before


def _on_one_grid(config: MTVConfig, shares: _Parts, modality: str) -> Shares:
    special = int(config.pool == "token")
    places: dict[str, Tensor] = {}
    for name, (t, h, w) in config.grids.items():
        x = rearrange(shares[name], "B t (r n) -> B (t r) n", n=special + h * w)
        places[name] = x[:, :, special:].reshape(len(x), t, h, w)
    total = sum((x.flatten(1).sum(-1) for x in places.values()), torch.zeros(()))
    looking = {name: stream for name, stream in config.streams.items() if stream.input == modality}
    cell: Grid = (
        min(s.tubelet[0] for s in looking.values()),
        min(s.tubelet[1] for s in looking.values()),
        min(s.tubelet[2] for s in looking.values()),
    )
    extent = config.media[modality].extent
    grids = [_spread_over(places[name], stream, extent, cell) for name, stream in looking.items()]
    return torch.stack(grids).sum(0) / total[:, None, None, None]


def _spread_over(places: Shares, stream: Stream, extent: Grid, cell: Grid) -> Float[Tensor, "B i j k"]:
    if stream.segments > 1:  # stretches of a spectrogram's time, one after the other
        places = rearrange(places, "B t h w -> B 1 (t h) w")
    axes: list[Tensor] = []
    for count, step, size, side in zip(places.shape[1:], stream.tubelet, extent, cell, strict=True):
        starts = torch.arange(count) * step
        axes.append(spread(torch.stack([starts, starts + step], -1).float(), size // side * side, side).to(places))
    time, height, width = axes
    return einsum(places, time, height, width, "B t h w, t i, h j, w k -> B i j k")


def _of_steps(config: MTVConfig, weights: Tensor | None) -> Tensor | None:
    """((B steps), heads, N, M) as (B, steps, heads, N, M)."""
    return None if weights is None else weights.unflatten(0, (-1, min(t for t, _, _ in config.grids.values())))
