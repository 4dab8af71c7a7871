"""TokenLearner in a ViT or a ViViT (Ryoo et al. 2021; slides "TokenLearner within ViT")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.model import Encoder, ModelConfig
from tubelet.models.vit import Representation
from tubelet.nn.blocks import Block, Stack, Transformer, TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.positions import Grid, LearnedPositions, grid_boxes
from tubelet.nn.token_learner import Form, FusingBlock, Over, build_learner
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer, grid_of
from tubelet.specs import ImageSpec, RasterSpec, VideoSpec


@dataclass(frozen=True, kw_only=True)
class TokenLearnerConfig(ModelConfig):
    """An image ViT, or ViViT's Model 1 for a ``spec`` of videos, whose later layers see only learned tokens.

    ``backbone``: all layers, such as 24 + 11. ``tokens`` tokens are learned before layer ``layer`` (counted from 0) by
    ``form``: "conv" is v1.0, "mlp" v1.1; from every frame, or ``over`` the whole clip. ``fuse``: every layer from there
    on learns tokens of its own, and brings its result back to all places. There is no class token, as released.
    """

    backbone: TransformerConfig
    spec: RasterSpec = ImageSpec()
    patch: Tubelet = (1, 16, 16)
    tokens: int = 8
    layer: int = 6
    form: Form = "mlp"
    over: Over = "frame"
    fuse: bool = False
    representation: int = 0

    def __post_init__(self) -> None:
        grid_of(self.spec.extent, self.patch)
        if self.tokens < 1:
            raise ValueError(f"{self.tokens=} must be at least 1")
        if not 0 <= self.layer < self.backbone.depth:
            raise ValueError(f"{self.layer=} must be one of the {self.backbone.depth=} layers, counted from 0")

    @property
    def input(self) -> str:
        return "video" if isinstance(self.spec, VideoSpec) else "image"

    @property
    def inputs(self) -> Mapping[str, RasterSpec]:
        return {self.input: self.spec}

    def build(self) -> TokenLearnerViT:
        return TokenLearnerViT(self)


class TokenLearnerViT(Encoder):
    """Patches or tubelets and learned positions, layers on all tokens, then layers on learned tokens; their mean."""

    def __init__(self, config: TokenLearnerConfig) -> None:
        super().__init__()
        self.inputs, self.width = config.inputs, config.representation or config.backbone.width
        self.tokenizer = TubeletTokenizer(config.patch, config.backbone.width, config.spec.channels)
        self.positions = LearnedPositions(grid_of(config.spec.extent, config.patch), config.backbone.width)
        self.dropout = nn.Dropout(config.backbone.dropout)
        self.before = Stack(config.backbone, end=config.layer)
        self.after = FusedLayers(config) if config.fuse else LearnedLayers(config)
        self.representation = Representation(config.backbone.width, config.representation)

    def forward(self, inputs: Mapping[str, Tensor], attention: bool = False) -> Features:
        ((_, x),) = inputs.items()
        maps: dict[str, Tensor] | None = {} if attention else None
        tokens = self.tokenizer(x)
        grid: Grid = (tokens.shape[1], tokens.shape[2], tokens.shape[3])
        z = self.before(self.dropout(tokens.flatten(1, 3) + self.positions(grid)), maps)
        features = self.after(z.unflatten(1, grid), maps)
        return replace(features, pooled=self.representation(features.pooled), attention=maps or {})


class LearnedLayers(nn.Module):
    """Tokens learned once, and the remaining layers on them alone. They have no places."""

    def __init__(self, config: TokenLearnerConfig) -> None:
        super().__init__()
        self.learner = build_learner(config.backbone, config.tokens, config.form, config.over)
        self.transformer = Transformer(config.backbone, first=config.layer)

    def forward(self, x: Float[Tensor, "B t h w D"], maps: dict[str, Tensor] | None = None) -> Features:
        if maps is not None:
            maps["learned"] = self.learner.shares(x)
        z = self.transformer(self.learner(x).flatten(1, 2), maps)
        return Features(z, z.mean(1))


class FusedLayers(nn.Module):
    """The remaining layers, each on tokens that it learns itself and fuses back."""

    def __init__(self, config: TokenLearnerConfig) -> None:
        super().__init__()

        def block(size: TransformerConfig, drop_rate: float) -> Block:
            return FusingBlock(size, drop_rate, build_learner(size, config.tokens, config.form, config.over))

        self.transformer = Transformer(config.backbone, block, first=config.layer)

    def forward(self, x: Float[Tensor, "B t h w D"], maps: dict[str, Tensor] | None = None) -> Features:
        z = self.transformer(x, maps).flatten(1, 3)
        return Features(z, z.mean(1), grid_boxes((x.shape[1], x.shape[2], x.shape[3])))
