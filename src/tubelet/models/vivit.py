"""ViViT: a video is a sequence of tubelets (Arnab et al. 2021). Four ways to attend over space and time (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.model import Encoder, ModelConfig
from tubelet.models.vit import Representation
from tubelet.nn.attention import Attention, attend, attention_weights
from tubelet.nn.blocks import Block, Transformer, TransformerConfig
from tubelet.nn.encoding import Pool, TokenEncoder
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid, LearnedPositions, grid_boxes
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer, grid_of, uniform_frames
from tubelet.specs import VideoSpec

AttentionType = Literal["joint", "factorized_encoder", "factorized_self_attention", "factorized_dot_product"]


@dataclass(frozen=True, kw_only=True)
class ViViTConfig(ModelConfig):
    """``attends``: Models 1 to 4 in the paper's order. ``tubelet`` is (t, h, w).

    ``sampled_frames`` > 0: uniform frame sampling of so many frames; the tubelet is then one frame long (Sec. 3.2).
    ``temporal_depth``: Model 2's L_t; 0 is the average-pooling baseline (Table 3). ``order``: Model 3's.
    """

    backbone: TransformerConfig
    tubelet: Tubelet = (2, 16, 16)
    video: VideoSpec = VideoSpec()
    attention_type: AttentionType = "joint"
    pool: Pool = "token"
    sampled_frames: int = 0
    temporal_depth: int = 4
    order: Literal["space_time", "time_space"] = "space_time"
    representation: int = 0

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
        grid_of((self.clip_frames, *self.video.size), self.tubelet)

    @property
    def clip_frames(self) -> int:
        """The frames that are tokenized: all of the clip, or those that uniform sampling picks."""
        if not self.sampled_frames:
            return self.video.frames
        return len(uniform_frames(self.video.frames, self.sampled_frames))

    @property
    def temporal_backbone(self) -> TransformerConfig:
        return replace(self.backbone, depth=self.temporal_depth)

    @property
    def inputs(self) -> Mapping[str, VideoSpec]:
        return {"video": self.video}

    def build(self) -> ViViT:
        return ViViT(self)


class ViViT(Encoder):
    """Tubelets of a clip, then one of the four transformers of Sec. 3.3."""

    def __init__(self, config: ViViTConfig) -> None:
        super().__init__()
        self.inputs, self.width = config.inputs, config.representation or config.backbone.width
        self.sampled_frames = config.sampled_frames
        self.tokenizer = TubeletTokenizer(config.tubelet, config.backbone.width, config.video.channels)
        grid = grid_of((config.clip_frames, *config.video.size), config.tubelet)
        self.encoder = _transformer(config, grid)
        self.representation = Representation(config.backbone.width, config.representation)

    def forward(self, inputs: Mapping[str, Tensor], attention: bool = False) -> Features:
        maps: dict[str, Tensor] | None = {} if attention else None
        video = inputs["video"]
        if self.sampled_frames:
            video = video[:, uniform_frames(video.shape[1], self.sampled_frames)]
        features = self.encoder(self.tokenizer(video), maps)
        return replace(features, pooled=self.representation(features.pooled), attention=maps or {})


def _transformer(config: ViViTConfig, grid: Grid) -> nn.Module:
    match config.attention_type:
        case "joint":
            return TokenEncoder(config.backbone, grid, config.pool)
        case "factorized_encoder":
            return FactorizedEncoder(config.backbone, config.temporal_backbone, grid, config.pool)
        case "factorized_self_attention":
            block = SpaceTimeBlock if config.order == "space_time" else TimeSpaceBlock
            return FactorizedTransformer(config.backbone, grid, block)
        case "factorized_dot_product":
            return FactorizedTransformer(config.backbone, grid, DotProductBlock)


class FactorizedEncoder(nn.Module):
    """Model 2: a spatial encoder per time index, then a temporal encoder over the results (Sec. 3.3, Fig. 4).

    The features' tokens are the temporal encoder's, one per time index; ``parts["spatial"]`` holds each index's own.
    """

    def __init__(self, spatial: TransformerConfig, temporal: TransformerConfig, grid: Grid, pool: Pool) -> None:
        super().__init__()
        t, h, w = grid
        self.spatial = TokenEncoder(spatial, (1, h, w), pool)
        self.temporal = TokenEncoder(temporal, (t, 1, 1), pool) if temporal.depth else AveragePool()

    def forward(self, tokens: Float[Tensor, "B t h w D"], maps: dict[str, Tensor] | None = None) -> Features:
        B, t, h, w, _ = tokens.shape
        x = self.spatial(rearrange(tokens, "B t h w D -> (B t) 1 h w D"), inner := {} if maps is not None else None)
        H_BtD = rearrange(x.pooled, "(B t) D -> B t 1 1 D", B=B)  # one vector h_i per time index
        temporal = self.temporal(H_BtD, outer := {} if maps is not None else None)
        if maps is not None:
            maps |= {f"spatial/{name}": rearrange(a, "(B t) ... -> B t ...", B=B) for name, a in (inner or {}).items()}
            maps |= {f"temporal/{name}": a for name, a in (outer or {}).items()}
        spatial = Features(rearrange(x.tokens, "(B t) n D -> B (t n) D", B=B), temporal.pooled, grid_boxes((t, h, w)))
        return replace(temporal, parts={"spatial": spatial})


class AveragePool(nn.Module):
    """The average-pooling baseline: Model 2 with L_t = 0 (Table 2, last row)."""

    def forward(self, tokens: Float[Tensor, "B t 1 1 D"], maps: dict[str, Tensor] | None = None) -> Features:
        tokens = tokens.flatten(1, 3)
        return Features(tokens, tokens.mean(1), grid_boxes((tokens.shape[1], 1, 1)))


class FactorizedTransformer(nn.Module):
    """Models 3 and 4: one stack of blocks that keep space and time apart, no class token, mean of all tokens."""

    def __init__(self, config: TransformerConfig, grid: Grid, block: type[Block]) -> None:
        super().__init__()
        self.positions = LearnedPositions(grid, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(config, block)

    def forward(self, tokens: Float[Tensor, "B t h w D"], maps: dict[str, Tensor] | None = None) -> Features:
        _, t, h, w, _ = tokens.shape
        z = tokens.flatten(2, 3) + rearrange(self.positions((t, h, w)), "(t n) D -> t n D", t=t)
        z = self.transformer(self.dropout(z), maps).flatten(1, 2)
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
        y = self.attention(self.norm_attention(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        return x + self.drop(self.dropout(y))

    def _time(self, x: Tensor) -> Tensor:
        y = self.attention_time(rearrange(self.norm_time(x), "B t n D -> (B n) t D"))
        return x + self.drop(self.dropout(rearrange(y, "(B n) t D -> B t n D", B=len(x))))

    def _mlp(self, x: Tensor) -> Tensor:
        return x + self.drop(self.mlp(self.norm_mlp(x)))

    def attention_maps(self, x: Float[Tensor, "B t n D"]) -> dict[str, Tensor]:
        """Weights over space (B, t, h, n, n) and over time (B, n, h, t, t)."""
        return {"space": self._space_weights(x), "time": self._time_weights(self._space(x))}

    def _space_weights(self, x: Tensor) -> Tensor:
        return self.attention.weights(self.norm_attention(x).flatten(0, 1)).unflatten(0, x.shape[:2])

    def _time_weights(self, x: Tensor) -> Tensor:
        weights = self.attention_time.weights(rearrange(self.norm_time(x), "B t n D -> (B n) t D"))
        return weights.unflatten(0, (len(x), -1))


class TimeSpaceBlock(SpaceTimeBlock):
    """Model 3 in the other order: over time, then over space; the paper found no difference."""

    def forward(self, x: Float[Tensor, "B t n D"]) -> Float[Tensor, "B t n D"]:
        return self._mlp(self._space(self._time(x)))

    def attention_maps(self, x: Float[Tensor, "B t n D"]) -> dict[str, Tensor]:
        return {"time": self._time_weights(x), "space": self._space_weights(self._time(x))}


class DotProductAttention(Attention):
    """Model 4: the first half of the heads attends over time, the second over space (Fig. 6; the order as released)."""

    def forward(self, x: Float[Tensor, "B t n D"]) -> Float[Tensor, "B t n D"]:
        _, t, n, _ = x.shape
        dropout = self.dropout if self.training else 0.0
        time, space = self.heads_by_axis(x)
        Y_t = rearrange(attend(*time, dropout), "(B n) h t d -> B t n (h d)", n=n)
        Y_s = rearrange(attend(*space, dropout), "(B t) h n d -> B t n (h d)", t=t)
        return self.out(torch.cat([Y_t, Y_s], dim=-1))

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

    def attention_maps(self, x: Float[Tensor, "B t n D"]) -> dict[str, Tensor]:
        """Weights over space (B, t, h/2, n, n) and over time (B, n, h/2, t, t)."""
        (q_t, k_t, _), (q_s, k_s, _) = self.attention.heads_by_axis(self.norm_attention(x))
        time, space = attention_weights(q_t, k_t), attention_weights(q_s, k_s)
        return {"space": space.unflatten(0, x.shape[:2]), "time": time.unflatten(0, (len(x), -1))}
