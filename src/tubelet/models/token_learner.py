"""TokenLearner in a ViT or a ViViT (Ryoo et al. 2021; slides "TokenLearner" and "TokenLearner within ViT")."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.models.family import PATCH_NAME, SIZES, ModelConfig, Tower, block_modules, matched, refuse, size_letters
from tubelet.models.model import Encoder
from tubelet.models.rollout import Maps, Shares, back, sequence
from tubelet.models.vit import Representation
from tubelet.nn.attention import CrossAttention, attention_weights
from tubelet.nn.blocks import Block, Stack, Transformer, TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.initializers import init_mlp_, lecun_normal_
from tubelet.nn.positions import Grid, LearnedPositions, grid_boxes
from tubelet.nn.tokenizers import Tubelet, TubeletTokenizer, grid_of
from tubelet.specs import ImageSpec, InputSpec, RasterSpec, VideoSpec

Form = Literal["conv", "mlp", "attention"]
Over = Literal["frame", "clip"]

HIDDEN = 64  # the released code's, whatever the width


_LEARNED = r"-tl(?P<fuse>f?)(?P<tokens>\d+)@(?P<layer>\d+)(?:\+(?P<more>\d+))?"


@dataclass(frozen=True, kw_only=True)
class TokenLearnerConfig(ModelConfig):
    """An image ViT, or ViViT's Model 1 for a ``spec`` of videos, whose later layers see only learned tokens.

    ``backbone``: all layers, such as 24 + 11. ``tokens`` tokens are learned before layer ``layer`` (counted from 0) by
    ``form``: "conv" is v1.0, "mlp" v1.1; from every frame, or ``over`` the whole clip. ``fuse``: every layer from there
    on learns tokens of its own, and brings its result back to all places. There is no class token, as released.
    """

    examples = ("vit-l/14-tl16@18+11", "vivit-b/16x2-tlf8@6")
    own = ("*.learner.*", "*.fuser.*")

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

    @property
    def grid(self) -> Grid:
        """The places (t, h, w) that tokens are learned from."""
        return grid_of(self.spec.extent, self.patch)

    def build(self) -> TokenLearnerViT:
        return TokenLearnerViT(self)

    @classmethod
    def parse(cls, name: str, *, frames: int = 0, size: int = 0) -> TokenLearnerConfig | None:
        """``vit-l/16-tl16@12``: 16 tokens learned before layer 12, counted from 0 (v1.1); ``-tlf`` fuses them back,
        ``+11`` adds so many layers, and ``vivit-b/16x2-tl8@6`` learns 8 tokens from every time index."""
        image, video = rf"vit-{PATCH_NAME}{_LEARNED}", rf"vivit-{PATCH_NAME}x(?P<t>\d+){_LEARNED}"
        if (match := matched(image, name) or matched(video, name)) is None:
            return None
        t, patch, backbone = int(match.groupdict().get("t") or 0), int(match["patch"]), SIZES[match["size"]]
        if not t:
            refuse(name, "a model of images", frames=frames)
        return cls(
            backbone=replace(backbone, depth=backbone.depth + int(match["more"] or 0)),
            spec=VideoSpec.square(frames, size) if t else ImageSpec.square(size),
            patch=(t or 1, patch, patch),
            tokens=int(match["tokens"]),
            layer=int(match["layer"]),
            fuse=bool(match["fuse"]),
        )

    def spelled(self) -> str | None:
        t, patch, _ = self.patch
        size = size_letters(self.backbone)
        if size is None:
            return None
        base = f"vivit-{size}/{patch}x{t}" if self.input == "video" else f"vit-{size}/{patch}"
        more = self.backbone.depth - SIZES[size].depth
        return f"{base}-tl{'f' * self.fuse}{self.tokens}@{self.layer}{f'+{more}' if more > 0 else ''}"

    def with_inputs(self, specs: Mapping[str, InputSpec]) -> TokenLearnerConfig:
        return replace(self, spec=specs[self.input])

    def towers(self) -> tuple[Tower, ...]:
        modules = {
            "tokenizer": "tokenizer",
            "cls": "cls",
            "positions": "positions",
            **block_modules("before.blocks", self.layer),
            **block_modules("after.transformer.blocks", self.backbone.depth, first=self.layer),
            "norm": "after.transformer.norm",
        }
        return (Tower(self.input, self.spec, self.patch, self.backbone, modules),)

    def rollout(self, maps: Maps, input: str, given: tuple[str, ...] = ()) -> Shares:
        """Through the layers on learned tokens, then to the places that these are sums of, then through the layers
        before. Raises TypeError where tokens are fused back: what each place takes from them is no attention."""
        if self.fuse:
            raise TypeError(
                "attention rollout is not written for TokenLearner with fuse=True: what a place takes from learned "
                "tokens goes by a gate that no attention map holds"
            )
        layers = [weights for name, weights in maps.items() if ".blocks." in name]
        learned = maps["after.learner"]
        tokens = sequence(layers[self.layer :], learned.shape[1] * learned.shape[2])
        groups = tokens.unflatten(-1, learned.shape[1:3])
        places = einsum(groups, learned, "B g s, B g s n -> B g n").flatten(1)
        for weights in reversed(layers[: self.layer]):
            places = back(places, weights)
        return places.unflatten(-1, self.grid)


class TokenLearnerViT(Encoder):
    """Patches or tubelets and learned positions, layers on all tokens, then layers on learned tokens; their mean."""

    def __init__(self, config: TokenLearnerConfig) -> None:
        super().__init__(config, config.representation or config.backbone.width)
        self.tokenizer = TubeletTokenizer(config.patch, config.backbone.width, config.spec.channels)
        self.positions = LearnedPositions(config.grid, config.backbone.width)
        self.dropout = nn.Dropout(config.backbone.dropout)
        self.before = Stack(config.backbone, end=config.layer)
        self.after = FusedLayers(config) if config.fuse else LearnedLayers(config)
        self.representation = Representation(config.backbone.width, config.representation)

    def encode(self, inputs: Mapping[str, Tensor]) -> Features:
        ((_, x),) = inputs.items()
        tokens = self.tokenizer(x)
        grid: Grid = (tokens.shape[1], tokens.shape[2], tokens.shape[3])
        z = self.before(self.dropout(tokens.flatten(1, 3) + self.positions(grid)))
        features = self.after(z.unflatten(1, grid))
        return replace(features, pooled=self.representation(features.pooled))


class LearnedLayers(nn.Module):
    """Tokens learned once, and the remaining layers on them alone. They have no places."""

    def __init__(self, config: TokenLearnerConfig) -> None:
        super().__init__()
        self.learner = build_learner(config.backbone, config.tokens, config.form, config.over)
        self.transformer = Transformer(config.backbone, first=config.layer)

    def forward(self, x: Float[Tensor, "B t h w D"]) -> Features:
        z = self.transformer(self.learner(x).flatten(1, 2))
        return Features(z, z.mean(1))


class FusedLayers(nn.Module):
    """The remaining layers, each on tokens that it learns itself and fuses back."""

    def __init__(self, config: TokenLearnerConfig) -> None:
        super().__init__()

        def block(size: TransformerConfig, drop_rate: float) -> Block:
            return FusingBlock(size, drop_rate, build_learner(size, config.tokens, config.form, config.over))

        self.transformer = Transformer(config.backbone, block, first=config.layer)

    def forward(self, x: Float[Tensor, "B t h w D"]) -> Features:
        z = self.transformer(x).flatten(1, 3)
        return Features(z, z.mean(1), grid_boxes((x.shape[1], x.shape[2], x.shape[3])))


def build_learner(config: TransformerConfig, tokens: int, form: Form = "mlp", over: Over = "frame") -> TokenLearner:
    """``tokens`` tokens from every frame, or from the whole clip."""
    match form:
        case "conv":
            return ConvolutionLearner(config, tokens, over)
        case "mlp":
            return MLPLearner(config, tokens, over)
        case "attention":
            return AttentionLearner(config, tokens, over)


class TokenLearner(nn.Module, ABC):
    """z_i = sum_n alpha_i(LN(x))_n x_n for i = 1..S: a token is a weighted sum of the places of a frame or of the clip.

    What is summed is x itself, not its norm. Groups g below are the t frames, or one: the clip.
    """

    def __init__(self, config: TransformerConfig, tokens: int, over: Over) -> None:
        super().__init__()
        self.tokens, self.over = tokens, over
        self.norm = config.norm()

    @abstractmethod
    def weights(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B g S n"]:
        """alpha_i at every place of every group."""

    def forward(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B g S D"]:
        return self.weights(x) @ self.groups(x)

    def attention_maps(self, x: Float[Tensor, "B t h w D"]) -> dict[str, Tensor]:
        """The weights (B, g, S, n) as each token's distribution over the places."""
        weights = self.weights(x)
        return {"": weights / weights.sum(-1, keepdim=True)}

    def groups(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B g n D"]:
        """The places of each frame, or of the whole clip, in a row."""
        pattern = "B t h w D -> B t (h w) D" if self.over == "frame" else "B t h w D -> B 1 (t h w) D"
        return rearrange(x, pattern)


class ConvolutionLearner(TokenLearner):
    """v1.0: alpha by four 3x3 convolutions in each frame and a sigmoid, so the weights do not sum to one."""

    def __init__(self, config: TransformerConfig, tokens: int, over: Over) -> None:
        super().__init__(config, tokens, over)
        widths = (config.width, tokens, tokens, tokens)
        self.convolutions = nn.ModuleList(nn.Conv2d(n, tokens, 3, padding=1, bias=False) for n in widths)
        self.gelu = gelu(config)
        for convolution in self.convolutions:
            lecun_normal_(convolution.get_parameter("weight"))

    def weights(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B g S n"]:
        y = rearrange(self.norm(x), "B t h w D -> (B t) D h w")
        for i, convolution in enumerate(self.convolutions):
            y = convolution(self.gelu(y) if i else y)
        scores = self.groups(rearrange(y, "(B t) S h w -> B t h w S", t=x.shape[1]))
        return scores.transpose(-2, -1).sigmoid()


class MLPLearner(TokenLearner):
    """v1.1: alpha by an MLP at each place and a softmax over the places; works better, says the released code."""

    def __init__(self, config: TransformerConfig, tokens: int, over: Over, hidden: int = HIDDEN) -> None:
        super().__init__(config, tokens, over)
        self.mlp = masking(config, tokens, hidden)

    def weights(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B g S n"]:
        return self.mlp(self.norm(self.groups(x))).transpose(-2, -1).softmax(-1)


class AttentionLearner(TokenLearner):
    """alpha by attention from S learned queries, as a Perceiver reads its input: values and heads are projected too."""

    def __init__(self, config: TransformerConfig, tokens: int, over: Over) -> None:
        super().__init__(config, tokens, over)
        self.queries = nn.Parameter(torch.empty(tokens, config.width))
        nn.init.normal_(self.queries, std=0.02)
        self.attention = CrossAttention(
            config.width, config.width, config.width, config.heads, config.attention_dropout
        )

    def forward(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B g S D"]:
        y = self.norm(self.groups(x)).flatten(0, 1)
        return self.attention(self.queries.expand(y.shape[0], -1, -1), y).unflatten(0, (x.shape[0], -1))

    def weights(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B g S n"]:
        """The mean over the heads."""
        attention, y = self.attention, self.norm(self.groups(x)).flatten(0, 1)
        q = rearrange(attention.q(self.queries), "S (heads d) -> 1 heads S d", heads=attention.heads)
        k, _ = rearrange(attention.kv(y), "B n (two heads d) -> two B heads n d", two=2, heads=attention.heads)
        return attention_weights(q.expand(y.shape[0], -1, -1, -1), k).mean(1).unflatten(0, (x.shape[0], -1))


class TokenFuser(nn.Module):
    """Brings learned tokens back to the places: y_n = sum_i beta_i(LN(x))_n LN(W LN(z))_i.

    W mixes the tokens and starts at zero, so that y is zero at first; beta is an MLP and a sigmoid at each place.
    """

    def __init__(self, config: TransformerConfig, tokens: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.norm_learned, self.norm_mixed, self.norm_places = config.norm(), config.norm(), config.norm()
        self.mix = nn.Linear(tokens, tokens)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)
        self.mlp = masking(config, tokens, hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, learned: Float[Tensor, "... S D"], places: Float[Tensor, "... n D"]) -> Float[Tensor, "... n D"]:
        mixed = self.mix(self.norm_learned(learned).transpose(-2, -1)).transpose(-2, -1)
        beta = self.mlp(self.norm_places(places)).sigmoid()
        return self.dropout(beta @ self.norm_mixed(mixed))


class FusingBlock(Block):
    """A block on learned tokens only, whose result is added to all places: x + fuse(block(learn(x)), x)."""

    def __init__(self, config: TransformerConfig, drop_rate: float, learner: TokenLearner) -> None:
        super().__init__(config, drop_rate)
        self.learner = learner
        self.fuser = TokenFuser(config, learner.tokens)

    def forward(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B t h w D"]:
        learned = self.learner(x)
        y = super().forward(learned.flatten(1, 2)).view_as(learned)
        return x + self.fuser(y, self.learner.groups(x)).view_as(x)


def masking(config: TransformerConfig, tokens: int, hidden: int) -> nn.Sequential:
    """A number per token at every place."""
    expand, reduce = nn.Linear(config.width, hidden), nn.Linear(hidden, tokens)
    init_mlp_(expand, reduce)
    return nn.Sequential(expand, gelu(config), nn.Dropout(config.dropout), reduce, nn.Dropout(config.dropout))


def gelu(config: TransformerConfig) -> nn.GELU:
    return nn.GELU("tanh" if config.gelu == "tanh" else "none")
