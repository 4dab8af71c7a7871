"""Attention rollout where tokens are learned from others, and where modalities or streams meet."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from tubelet.inference.rollout_steps import back, moved, sequence, spread
from tubelet.models.mbt import MBTConfig
from tubelet.models.mtv import BottleneckFusion, MTVConfig, Stream
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.nn.positions import Grid
from tubelet.nn.tokenizers import grid_of

Maps = Mapping[str, Tensor]
Shares = Float[Tensor, "B t h w"]
_Parts = dict[str, Tensor]  # shares (..., n) of the tokens of each modality or stream


def token_learner(config: TokenLearnerConfig, maps: Maps) -> Shares:
    """Through the layers on learned tokens, then to the places that these are sums of, then through the layers before.

    Raises TypeError where tokens are fused back: what each place takes from them is no attention.
    """
    if config.fuse:
        raise TypeError(
            "attention rollout is not written for TokenLearner with fuse=True: what a place takes from learned tokens "
            "goes by a gate that no attention map holds"
        )
    layers = [a for name, a in maps.items() if name != "learned"]
    learned = maps["learned"]
    t, h, w = grid_of(config.spec.extent, config.patch)
    tokens = sequence(layers[config.layer :], learned.shape[1] * learned.shape[2])
    groups = tokens.unflatten(-1, learned.shape[1:3])
    places = einsum(groups, learned, "B g s, B g s n -> B g n").flatten(1)
    for weights in reversed(layers[: config.layer]):
        places = back(places, weights)
    return places.unflatten(-1, (t, h, w))


def mbt(config: MBTConfig, maps: Maps, modality: str) -> Shares:
    """The bottleneck's shares go back to all modalities in equal parts, as it is the mean of what they wrote."""
    special = int(config.pool == "token")
    grids = {name: grid_of(m.spec.extent, m.patch) for name, m in config.modalities.items()}
    counts = {name: special + math.prod(grid) for name, grid in grids.items()}
    shares, bottleneck = _mbt_result(config, maps, counts)
    for layer in reversed(range(config.backbone.depth)):
        shares, bottleneck = _mbt_layer(maps, layer, shares, bottleneck)
    places = {name: x[:, special:] for name, x in shares.items()}
    total = sum((x.sum(-1) for x in places.values()), torch.zeros(()))
    return (places[modality] / total[:, None]).unflatten(-1, grids[modality])


def _mbt_result(config: MBTConfig, maps: Maps, counts: Mapping[str, int]) -> tuple[_Parts, Tensor]:
    """The shares of the last layer's tokens: of the class tokens, or of all."""
    first = next(iter(maps.values()))
    given = [name for name in counts if any(key.startswith(f"{name}/") for key in maps)] or list(counts)
    shares = {name: first.new_zeros(len(first), counts[name]) for name in given}
    total = sum(counts[name] for name in given)
    for x in shares.values():
        if config.pool == "token":
            x[:, 0] = 1 / len(given)
        else:
            x[:] = 1 / total
    return shares, first.new_zeros(len(first), config.bottleneck_tokens)


def _mbt_layer(maps: Maps, layer: int, shares: _Parts, bottleneck: Tensor) -> tuple[_Parts, Tensor]:
    names, sizes = list(shares), [x.shape[-1] for x in shares.values()]
    if (joint := maps.get(f"joint/{layer}/attention")) is not None:
        x = back(torch.cat(list(shares.values()), -1), joint)
        return dict(zip(names, x.split(sizes, -1), strict=True)), bottleneck
    before = {name: torch.zeros_like(x) for name, x in shares.items()}
    read = torch.zeros_like(bottleneck)
    for name, x in shares.items():
        weights = maps[f"{name}/{layer}/attention"]
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


def mtv(config: MTVConfig, maps: Maps, modality: str) -> Shares:
    """On the finest grid of the streams that look at ``modality``; a coarse token's share is spread over what it reads.

    Streams that are concatenated in channels have equal shares of a frame. What MLP fusion brings is left out, as is
    all that MLPs do.
    """
    shares, bottleneck = _mtv_result(config, maps), None
    if isinstance(config.fusion, BottleneckFusion):
        some = next(iter(shares.values()))
        bottleneck = some.new_zeros(*some.shape[:2], config.fusion.tokens)
    depth = max(stream.backbone.depth for stream in config.streams.values())
    for layer in reversed(range(depth)):
        shares, bottleneck = _mtv_blocks(config, maps, layer, shares, bottleneck)
        shares = _mtv_crossings(config, maps, layer, shares)
    return _on_one_grid(config, shares, modality)


def _mtv_result(config: MTVConfig, maps: Maps) -> _Parts:
    """The shares (B, steps, r n) of the streams' tokens that the global encoder takes."""
    times = {name: t for name, (t, _, _) in config.grids.items()}
    joined = config.merge == "channel"
    frames = sequence(
        [a for name, a in maps.items() if name.startswith("global/")],
        max(times.values()) if joined else sum(times.values()),
    )
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


def _mtv_blocks(
    config: MTVConfig, maps: Maps, layer: int, shares: _Parts, bottleneck: Tensor | None
) -> tuple[_Parts, Tensor | None]:
    """Each stream's own block; where there are bottleneck tokens in it, in the reverse of the order of turns."""
    reads = config.reads
    order = [next(iter(reads.values())), *reads] if reads else list(shares)
    before = dict(shares)
    for name in reversed(order):
        if (weights := maps.get(f"{name}/{layer}/attention")) is None:
            continue
        x = shares[name]
        if bottleneck is None or weights.shape[-1] == x.shape[-1]:
            before[name] = back(x, weights)
        else:
            row = back(torch.cat([x, bottleneck], -1), weights)
            before[name], bottleneck = row.split([x.shape[-1], bottleneck.shape[-1]], -1)
    return before, bottleneck


def _mtv_crossings(config: MTVConfig, maps: Maps, layer: int, shares: _Parts) -> _Parts:
    """Half of what a stream has came from the one that it looked at; all looked at what entered the layer."""
    looked = {q: a for q, kv in config.reads.items() if (a := maps.get(f"{q}/{layer}/from {kv}")) is not None}
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
