"""ViViT: a video is a sequence of tubelets (Arnab et al. 2021). Four ways to attend over space and time (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.family import PATCH_NAME, SIZES, ModelConfig, Tower, matched, size_letters
from tubelet.models.model import Encoder
from tubelet.models.rollout import Maps, Shares, below, plain, sequence
from tubelet.models.vit import Representation, encoder_modules
from tubelet.nn.attention import Attention, attend, attention_weights
from tubelet.nn.blocks import Block, Transformer, TransformerConfig
from tubelet.nn.encoding import Positions, TokenEncoder, VideoPool
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid, LearnedPositions, grid_boxes
from tubelet.nn.rotary import SpaceTimeRotaryPositions
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer, grid_of, uniform_frames
from tubelet.specs import InputSpec, VideoSpec

AttentionType = Literal["joint", "factorized_encoder", "factorized_self_attention", "factorized_dot_product"]

_SUFFIXES: dict[str, AttentionType] = {
    "": "joint",
    "-fe": "factorized_encoder",
    "-fsa": "factorized_self_attention",
    "-fdp": "factorized_dot_product",
}


@dataclass(frozen=True, kw_only=True)
class ViViTConfig(ModelConfig):
    """``attention_type``: Models 1 to 4 in the paper's order. ``tubelet`` is (t, h, w).

    ``sampled_frames`` > 0: uniform frame sampling of so many frames; the tubelet is then one frame long (Sec. 3.2).
    ``temporal_depth``: Model 2's L_t; 0 is the average-pooling baseline (Table 3). ``temporal_heads`` and
    ``temporal_mlp``: those of its temporal encoder, as released weights may have them; the backbone's, if 0.
    ``temporal_pool``: how it pools; as ``pool``, if empty. ``order``: Model 3's.
    ``temporal_start``: what Model 3's temporal attention starts from beside an image model's weights. "residual": as it
    was built, its output projection zero, so that the block is a residual connection and can learn; "copy": the image
    model's attention; "zero": all of it zero, as the paper and the released code say (no gradient but the output bias's
    ever leaves zero); "fresh": as it was built. With "residual" Model 2's temporal encoder, where it pools by the mean,
    starts as the mean over time, too.

    Of Model 1 alone: ``positions`` "sinusoids" are fixed ones (VideoMAE's), which need ``pool="mean"``; ``rotary``: the
    base of rotary positions over time, height and width (V-JEPA 2's is 10,000), which take the place of learned ones;
    learned, if 0. ``pool`` "attention": see :class:`~tubelet.nn.attention_pool.AttentionPool`; ``pool_depth`` and
    ``pool_mlp``: its blocks, and the width of its MLPs, the backbone's, if 0. ``final_norm``: whether the transformer
    ends in a layer norm of all tokens. ``norm_pooled``: the epsilon of a layer norm of the pooled features, if not 0.
    """

    examples = ("vivit-b/16x2", "vivit-b/16x2-fe", "vivit-b/16x2-fsa", "vivit-b/16x2-fdp", "vivit-l/16x2-fe")

    backbone: TransformerConfig
    tubelet: Tubelet = (2, 16, 16)
    video: VideoSpec = VideoSpec()
    attention_type: AttentionType = "joint"
    pool: VideoPool = "token"
    sampled_frames: int = 0
    temporal_depth: int = 4
    temporal_heads: int = 0
    temporal_mlp: int = 0
    temporal_pool: Literal["", "token", "mean"] = ""
    order: Literal["space_time", "time_space"] = "space_time"
    temporal_start: Literal["residual", "copy", "zero", "fresh"] = "residual"
    representation: int = 0
    positions: Positions = "learned"
    rotary: float = 0.0
    pool_depth: int = 0
    pool_mlp: int = 0
    final_norm: bool = True
    norm_pooled: float = 0.0

    def __post_init__(self) -> None:
        if self.attention_type in ("factorized_self_attention", "factorized_dot_product") and self.pool != "mean":
            raise ValueError(
                f'{self.attention_type} has no class token (Sec. 3.3): pool must be "mean", not {self.pool!r}'
            )
        if self.attention_type == "factorized_dot_product" and self.backbone.heads % 2:
            raise ValueError(
                f"half of the heads attend over time, half over space: {self.backbone.heads=} must be even"
            )
        if self.sampled_frames and self.tubelet[0] != 1:
            raise ValueError(f"uniform frame sampling embeds single frames: {self.tubelet=} must start with 1")
        plain = self.positions == "learned" and not self.rotary and self.pool != "attention" and self.final_norm
        if self.attention_type != "joint" and not plain:
            raise ValueError(
                f'{self.positions=}, {self.rotary=}, {self.pool=} and {self.final_norm=} need attention_type="joint"'
            )
        if self.temporal_pool and self.attention_type != "factorized_encoder":
            raise ValueError(f'{self.temporal_pool=} needs attention_type="factorized_encoder"')
        if self.rotary < 0:
            raise ValueError(f"{self.rotary=} must not be negative")
        if self.positions == "sinusoids" and self.pool != "mean":
            raise ValueError(f'fixed positions have none for a class token: pool must be "mean", not {self.pool!r}')
        if self.norm_pooled < 0:
            raise ValueError(f"{self.norm_pooled=} must not be negative")
        grid_of((self.clip_frames, *self.video.size), self.tubelet)
        _ = self.temporal_backbone, self.pool_backbone

    @property
    def clip_frames(self) -> int:
        """The frames that are tokenized: all of the clip, or those that uniform sampling picks."""
        if not self.sampled_frames:
            return self.video.frames
        return len(uniform_frames(self.video.frames, self.sampled_frames))

    @property
    def temporal_backbone(self) -> TransformerConfig:
        size = self.backbone
        heads, mlp = self.temporal_heads or size.heads, self.temporal_mlp or size.mlp
        return replace(size, depth=self.temporal_depth, heads=heads, mlp=mlp)

    @property
    def pool_over_time(self) -> VideoPool:
        """How Model 2's temporal encoder pools."""
        return self.temporal_pool or self.pool

    @property
    def pool_backbone(self) -> TransformerConfig:
        return replace(self.backbone, depth=self.pool_depth, mlp=self.pool_mlp or self.backbone.mlp)

    @property
    def inputs(self) -> Mapping[str, VideoSpec]:
        return {"video": self.video}

    @property
    def grid(self) -> Grid:
        """The tubelets (t, h, w) of a clip."""
        return grid_of((self.clip_frames, *self.video.size), self.tubelet)

    def build(self) -> ViViT:
        return ViViT(self)

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> ViViTConfig | None:
        """``vivit-b/16x2``: tubelets of 16x16 pixels and 2 frames, Model 1; ``-fe``, ``-fsa``, ``-fdp``: Models 2 to 4.

        Ti has three heads, which Model 4 cannot halve: there it has four.
        """
        match = matched(rf"vivit-{PATCH_NAME}x(?P<t>\d+)(?P<suffix>-fe|-fsa|-fdp|)", name)
        if match is None:
            return None
        patch, attention_type = int(match["patch"]), _SUFFIXES[match["suffix"]]
        return cls(
            backbone=_even_heads(SIZES[match["size"]]) if match["suffix"] == "-fdp" else SIZES[match["size"]],
            tubelet=(int(match["t"]), patch, patch),
            video=VideoSpec.square(frames, size),
            attention_type=attention_type,
            pool="token" if attention_type in ("joint", "factorized_encoder") else "mean",
        )

    def spelled(self) -> str | None:
        suffix = next(suffix for suffix, kind in _SUFFIXES.items() if kind == self.attention_type)
        letters = size_letters(self.backbone) or ("ti" if self.backbone.width == SIZES["ti"].width else None)
        return f"vivit-{letters}/{self.tubelet[1]}x{self.tubelet[0]}{suffix}"

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> ViViTConfig:
        return replace(self, video=specs["video"])

    def towers(self) -> tuple[Tower, ...]:
        """Model 2's is that of its spatial encoder. A norm of the pooled features is the tower's, where no other is."""
        encoder = "encoder.spatial" if self.attention_type == "factorized_encoder" else "encoder"
        modules = encoder_modules(self.backbone.depth, encoder)
        if not self.final_norm:
            modules["norm"] = "representation.norm"
        if self.rotary:
            del modules["positions"]
        if self.pool == "attention":
            modules["attention_pool"] = f"{encoder}.attention_pool"
        pool = "token" if self.pool == "token" else "mean"
        return (Tower("video", self.video, self.tubelet, self.backbone, modules, pool=pool),)

    @property
    def variant(self) -> str:
        return f"{self.kind} ({self.attention_type})"

    @property
    def is_plain(self) -> bool:
        return self.attention_type == "joint"

    def cannot_start_from(self, source: ModelConfig) -> bool:
        if isinstance(source, ViViTConfig):
            return source.attention_type != self.attention_type and not (self.is_plain and source.is_plain)
        return not source.is_plain or not (self.is_plain or set(source.inputs) == {"image"})

    def fresh_from(self, source: ModelConfig) -> tuple[str, ...]:
        if isinstance(source, ViViTConfig) or self.is_plain:
            return ()
        if self.attention_type == "factorized_encoder":
            return ("encoder.temporal.*",)
        return "*.norm_time.*", "*.attention_time.*"

    def complete(
        self, offered: Mapping[str, Tensor], encoder: Encoder, source: Encoder, towers: tuple[tuple[Tower, Tower], ...]
    ) -> dict[str, Tensor]:
        """What Model 3's temporal attention starts from, or Model 2's temporal encoder, where the weights have none."""
        wanted = dict(encoder.named_parameters())
        if self.attention_type == "factorized_encoder":
            ends = (".attention.out.", ".mlp.3.") if self._starts_as_mean else ()
            temporal = [name for name in wanted if name.startswith("encoder.temporal.") and name not in offered]
            return {name: torch.zeros_like(wanted[name]) for name in temporal if any(end in name for end in ends)}
        names = [name for name in wanted if ".attention_time." in name and name not in offered]
        match self.temporal_start:
            case "copy":
                spatial = {name: name.replace(".attention_time.", ".attention.") for name in names}
                return {name: offered[theirs] for name, theirs in spatial.items() if theirs in offered}
            case "zero":
                return {name: torch.zeros_like(wanted[name]) for name in names}
            case "residual":
                return {name: torch.zeros_like(wanted[name]) for name in names if ".out." in name}
            case "fresh":
                return {}

    @property
    def _starts_as_mean(self) -> bool:
        return self.temporal_start == "residual" and self.pool_over_time == "mean"

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        match self.attention_type:
            case "joint":
                return plain(maps, self.grid)
            case "factorized_encoder":
                return _factorized_encoder_rollout(maps, self.grid)
            case _:
                return _space_time_rollout(maps, self.grid)


def _even_heads(backbone: TransformerConfig) -> TransformerConfig:
    return replace(backbone, heads=backbone.heads + backbone.heads % 2)


def _factorized_encoder_rollout(maps: Maps, grid: Grid) -> Shares:
    """Model 2: a time index's share in the temporal encoder, times a token's share in its index's spatial encoder."""
    t, h, w = grid
    space = sequence(below(maps, "encoder.spatial"), h * w).unflatten(0, (-1, t))
    temporal = below(maps, "encoder.temporal")
    time = sequence(temporal, t) if temporal else space.new_full(space.shape[:2], 1 / t)
    return (time[..., None] * space).unflatten(-1, (h, w))


def _space_time_rollout(maps: Maps, grid: Grid) -> Shares:
    """Model 3: attention over space and over time follow each other, each with its own residual. Model 4: half of a
    block's heads attend over space, half over time, around one residual; it names its maps "space" and "time"."""
    t, h, w = grid
    first_name, first = next(iter(maps.items()))
    batch = len(first) // (h * w if _over_time(first_name) else t)
    shares = first.new_full((batch, t, h * w), 1 / (t * h * w))
    steps = list(maps.items())[::-1]
    if first_name.rpartition(".")[2] in ("space", "time"):
        for (a, x), (b, y) in zip(steps[::2], steps[1::2], strict=True):
            shares = shares / 2 + (_moved(shares, a, x) + _moved(shares, b, y)) / 4
    else:
        for name, weights in steps:
            shares = (shares + _moved(shares, name, weights)) / 2
    return shares.unflatten(-1, (h, w))


def _over_time(name: str) -> bool:
    return name.endswith((".attention_time", ".time"))


def _moved(shares: Float[Tensor, "B t n"], name: str, weights: Tensor) -> Float[Tensor, "B t n"]:
    """One step back through attention over space ((B t), heads, n, n) or over time ((B n), heads, t, t)."""
    mean = weights.mean(1).unflatten(0, (len(shares), -1))
    if _over_time(name):
        return rearrange(einsum(shares, mean, "B t n, B n t s -> B n s"), "B n s -> B s n")
    return einsum(shares, mean, "B t n, B t n m -> B t m")


class ViViT(Encoder):
    """Tubelets of a clip, then one of the four transformers of Sec. 3.3."""

    def __init__(self, config: ViViTConfig) -> None:
        super().__init__(config, config.representation or config.backbone.width)
        self.sampled_frames = config.sampled_frames
        self.tokenizer = TubeletTokenizer(config.tubelet, config.backbone.width, config.video.channels)
        self.encoder = _transformer(config, config.grid)
        self.representation = Representation(config.backbone.width, config.representation, config.norm_pooled)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        video = inputs["video"]
        if self.sampled_frames:
            video = video[:, uniform_frames(video.shape[1], self.sampled_frames)]
        features = self.encoder(self.tokenizer(video))
        return replace(features, pooled=self.representation(features.pooled))


def _transformer(config: ViViTConfig, grid: Grid) -> nn.Module:
    match config.attention_type:
        case "joint":
            head_width = config.backbone.inner // config.backbone.heads
            return TokenEncoder(
                config.backbone,
                grid,
                config.pool,
                rotary=SpaceTimeRotaryPositions(head_width, config.rotary) if config.rotary else None,
                positions=config.positions,
                norm=config.final_norm,
                pool_config=config.pool_backbone,
            )
        case "factorized_encoder":
            return FactorizedEncoder(
                config.backbone, config.temporal_backbone, grid, config.pool, config.pool_over_time
            )
        case "factorized_self_attention":
            block = SpaceTimeBlock if config.order == "space_time" else TimeSpaceBlock
            return FactorizedTransformer(config.backbone, grid, block)
        case "factorized_dot_product":
            return FactorizedTransformer(config.backbone, grid, DotProductBlock)


class FactorizedEncoder(nn.Module):
    """Model 2: a spatial encoder per time index, then a temporal encoder over the results (Sec. 3.3, Fig. 4).

    The features' tokens are the temporal encoder's, one per time index; ``parts["spatial"]`` holds each index's own.
    """

    def __init__(
        self,
        spatial: TransformerConfig,
        temporal: TransformerConfig,
        grid: Grid,
        pool: VideoPool,
        pool_over_time: VideoPool,
    ) -> None:
        super().__init__()
        t, h, w = grid
        self.spatial = TokenEncoder(spatial, (1, h, w), pool)
        self.temporal = TokenEncoder(temporal, (t, 1, 1), pool_over_time) if temporal.depth else AveragePool()

    def forward(self, tokens: Float[Tensor, "B t h w D"]) -> Features:
        _, t, h, w, _ = tokens.shape
        x = self.spatial(rearrange(tokens, "B t h w D -> (B t) 1 h w D"))
        H_BtD = rearrange(x.pooled, "(B t) D -> B t 1 1 D", t=t)  # one vector h_i per time index
        temporal = self.temporal(H_BtD)
        spatial = Features(rearrange(x.tokens, "(B t) n D -> B (t n) D", t=t), temporal.pooled, grid_boxes((t, h, w)))
        return replace(temporal, parts={"spatial": spatial})


class AveragePool(nn.Module):
    """The average-pooling baseline: Model 2 with L_t = 0 (Table 2, last row)."""

    def forward(self, tokens: Float[Tensor, "B t 1 1 D"]) -> Features:
        tokens = tokens.flatten(1, 3)
        return Features(tokens, tokens.mean(1), grid_boxes((tokens.shape[1], 1, 1)))


class FactorizedTransformer(nn.Module):
    """Models 3 and 4: one stack of blocks that keep space and time apart, no class token, mean of all tokens."""

    def __init__(self, config: TransformerConfig, grid: Grid, block: type[Block]) -> None:
        super().__init__()
        self.positions = LearnedPositions(grid, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(config, block)

    def forward(self, tokens: Float[Tensor, "B t h w D"]) -> Features:
        _, t, h, w, _ = tokens.shape
        z = tokens.flatten(2, 3) + rearrange(self.positions((t, h, w)), "(t n) D -> t n D", t=t)
        z = self.transformer(self.dropout(z)).flatten(1, 2)
        return Features(z, z.mean(1), grid_boxes((t, h, w)))


class SpaceTimeBlock(Block):
    """Model 3: self-attention over space, then over time, then the MLP (Eq. 4-6).

    ``attention`` is the spatial one, so that an image ViT's block fits into this one name by name. Stochastic depth
    works here; the released code accepts a rate for this model and ignores it.
    """

    def __init__(self, config: TransformerConfig, drop_rate: float = 0.0) -> None:
        super().__init__(config, drop_rate)
        self.norm_time = config.norm()
        self.attention_time = Attention(config.width, config.heads, config.attention_dropout)

    def forward(self, x: Float[Tensor, "B t n D"]) -> Float[Tensor, "B t n D"]:
        return self._mlp(self._time(self._space(x)))

    def _space(self, x: Tensor) -> Tensor:
        y = self.attention(self.norm_attention(x).flatten(0, 1))
        return x + self.drop(self.dropout(rearrange(y, "(B t) n D -> B t n D", t=x.shape[1])))

    def _time(self, x: Tensor) -> Tensor:
        y = self.attention_time(rearrange(self.norm_time(x), "B t n D -> (B n) t D"))
        return x + self.drop(self.dropout(rearrange(y, "(B n) t D -> B t n D", n=x.shape[2])))

    def _mlp(self, x: Tensor) -> Tensor:
        return x + self.drop(self.mlp(self.norm_mlp(x)))


class TimeSpaceBlock(SpaceTimeBlock):
    """Model 3 in the other order: over time, then over space; the paper found no difference."""

    def forward(self, x: Float[Tensor, "B t n D"]) -> Float[Tensor, "B t n D"]:
        return self._mlp(self._space(self._time(x)))


class DotProductAttention(Attention):
    """Model 4: the first half of the heads attends over time, the second over space (Fig. 6; the order as released)."""

    def forward(self, x: Float[Tensor, "B t n D"]) -> Float[Tensor, "B t n D"]:
        _, t, n, _ = x.shape
        dropout = self.dropout if self.training else 0.0
        time, space = self.heads_by_axis(x)
        Y_t = rearrange(attend(*time, dropout), "(B n) h t d -> B t n (h d)", n=n)
        Y_s = rearrange(attend(*space, dropout), "(B t) h n d -> B t n (h d)", t=t)
        return self.out(torch.cat([Y_t, Y_s], dim=-1))

    def attention_maps(self, x: Float[Tensor, "B t n D"]) -> dict[str, Tensor]:
        """The weights over space ((B t), h/2, n, n) and over time ((B n), h/2, t, t)."""
        (q_t, k_t, _), (q_s, k_s, _) = self.heads_by_axis(x)
        return {"space": attention_weights(q_s, k_s), "time": attention_weights(q_t, k_t)}

    def heads_by_axis(self, x: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        qkv = rearrange(self.qkv(x), "B t n (three h d) -> three B t n h d", three=3, h=self.heads)
        time, space = qkv.chunk(2, dim=-2)
        q_t, k_t, v_t = rearrange(time, "three B t n h d -> three (B n) h t d").unbind(0)
        q_s, k_s, v_s = rearrange(space, "three B t n h d -> three (B t) h n d").unbind(0)
        return (q_t, k_t, v_t), (q_s, k_s, v_s)


class DotProductBlock(Block):
    """Model 4's block: Eq. 2-3 with attention factorized over the heads."""

    attention: DotProductAttention

    def __init__(self, config: TransformerConfig, drop_rate: float = 0.0) -> None:
        super().__init__(config, drop_rate)
        self.attention = DotProductAttention(config.width, config.heads, config.attention_dropout)
