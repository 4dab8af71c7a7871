"""Few tokens learned from many, and brought back to them (TokenLearner, Ryoo et al. 2021; slides "TokenLearner")."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.attention import CrossAttention, attention_weights
from tubelet.nn.blocks import Block, TransformerConfig
from tubelet.nn.initializers import init_mlp_, lecun_normal_

Form = Literal["conv", "mlp", "attention"]
Over = Literal["frame", "clip"]

HIDDEN = 64  # the released code's, whatever the width


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

    def shares(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B ... S n"]:
        """The weights as each token's distribution over the places, for those who want to look at them."""
        weights = self.weights(x)
        return weights / weights.sum(-1, keepdim=True)

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
        scores = self.groups(rearrange(y, "(B t) S h w -> B t h w S", B=len(x)))
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
        return self.attention(self.queries.expand(len(y), -1, -1), y).unflatten(0, (len(x), -1))

    def weights(self, x: Float[Tensor, "B t h w D"]) -> Float[Tensor, "B g S n"]:
        """The mean over the heads."""
        attention, y = self.attention, self.norm(self.groups(x)).flatten(0, 1)
        q = rearrange(attention.q(self.queries), "S (heads d) -> 1 heads S d", heads=attention.heads)
        k, _ = rearrange(attention.kv(y), "B n (two heads d) -> two B heads n d", two=2, heads=attention.heads)
        return attention_weights(q.expand(len(y), -1, -1, -1), k).mean(1).unflatten(0, (len(x), -1))


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

    def attention_maps(self, x: Float[Tensor, "B t h w D"]) -> dict[str, Tensor]:
        return {"learned": self.learner.shares(x), **super().attention_maps(self.learner(x).flatten(1, 2))}


def masking(config: TransformerConfig, tokens: int, hidden: int) -> nn.Sequential:
    """A number per token at every place."""
    expand, reduce = nn.Linear(config.width, hidden), nn.Linear(hidden, tokens)
    init_mlp_(expand, reduce)
    return nn.Sequential(expand, gelu(config), nn.Dropout(config.dropout), reduce, nn.Dropout(config.dropout))


def gelu(config: TransformerConfig) -> nn.GELU:
    return nn.GELU("tanh" if config.gelu == "tanh" else "none")
