"""Captions to features (VATT Sec. 3.2): word vectors, and a transformer of its own, a shared one, or none."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tubelet.models.vatt.config import LinearWords, VattConfig, Words
from tubelet.models.vatt.senses import dense_gelu, with_aggregator
from tubelet.nn.attention import BiasedAttention
from tubelet.nn.axial_positions import AxialPositions
from tubelet.nn.blocks import MLP, BiasedBlock, Transformer, TransformerConfig
from tubelet.nn.features import Features
from tubelet.nn.initializers import init_aggregator_
from tubelet.nn.positions import grid_boxes
from tubelet.nn.relative_bias import RelativeBias

PAD = 0
_NEVER = -1e9  # the score of a key that nothing attends to, as released

Ids = Int[Tensor, "B P L"]


class WordVectors(nn.Module):
    """A vector for every word. They are not learned unless the config says so: word2vec's are read into them.

    The released code keeps them frozen, where the paper has a learned projection of one-hot vectors.
    """

    def __init__(self, words: Words | LinearWords) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(words.spec.ids, words.vectors), requires_grad=words.learned)
        nn.init.uniform_(self.table, -0.05, 0.05)

    def forward(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        return nn.functional.embedding(ids, self.table)


class TextTower(nn.Module):
    """[x_AGG, x_1, ..., x_L] projected, then T5's encoder as the released code has it, which is not quite T5's.

    A block's first norm has neither mean nor bias, its second is an ordinary LayerNorm; no linear map has a bias; the
    scores are not scaled; the MLP has a GELU. The bias by relative position, AGG counting as the first word, is added
    in every layer. Nothing attends to padding.
    """

    def __init__(self, words: Words, config: VattConfig) -> None:
        super().__init__()
        backbone = words.backbone
        self.words = WordVectors(words)
        self.agg = init_aggregator_(nn.Parameter(torch.empty(1, words.vectors)))
        self.before = dense_gelu(words.vectors, backbone.width, bias=False)
        self.bias = RelativeBias(backbone.heads, words.buckets, words.farthest)
        self.dropout = nn.Dropout(backbone.dropout)
        self.transformer = Transformer(backbone, TextBlock)
        self.transformer.norm = RMSNorm(backbone)  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, ids: Ids, shared: Transformer | None) -> Features:
        captions = ids.flatten(0, 1)
        z = self.dropout(self.before(with_aggregator(self.agg, self.words(captions))))
        bias = self.bias(z.shape[1])
        return of_captions(self.dropout(self.transformer(z, bias + padding(captions, bias))), ids)


class TextBlock(BiasedBlock):
    """A block of the text tower; see :class:`TextTower`."""

    def __init__(self, config: TransformerConfig, drop_rate: float = 0.0) -> None:
        super().__init__(config, drop_rate)
        self.norm_attention = RMSNorm(config)  # pyright: ignore[reportAttributeAccessIssue]
        self.attention = BiasedAttention(
            config.width, config.heads, config.attention_dropout, inner=config.inner, bias=False, scale=1.0
        )
        self.mlp = MLP(config, bias=False)


class RMSNorm(nn.Module):
    """x / sqrt(mean x^2), scaled."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.eps, self.weight = config.norm_eps, nn.Parameter(torch.ones(config.width))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        wide = x.float()
        return (wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight).to(x.dtype)


class SharedTextTower(nn.Module):
    """Captions for a transformer that all modalities share: word vectors projected, with learned positions."""

    def __init__(self, words: Words, config: VattConfig) -> None:
        super().__init__()
        width = words.backbone.width
        self.words = WordVectors(words)
        self.before = dense_gelu(words.vectors, width)
        self.positions = AxialPositions({"width": words.spec.words}, width, words.backbone.norm_eps)
        self.position_dropout = nn.Dropout(config.position_dropout)
        self.agg = init_aggregator_(nn.Parameter(torch.empty(1, width)))
        self.dropout = nn.Dropout(words.backbone.dropout)
        self.after = dense_gelu(width, config.projection)

    def forward(self, ids: Ids, shared: Transformer | None) -> Features:
        captions = ids.flatten(0, 1)
        x = self.before(self.words(captions))
        z = with_aggregator(self.agg, self.position_dropout(x + self.positions([ids.shape[-1]])))
        assert shared is not None
        return of_captions(self.after(self.dropout(shared(z, padding(captions, z)))), ids)


class LinearTower(nn.Module):
    """relu(W x + b) of every word vector; a caption's feature is the maximum over its words, padding among them."""

    def __init__(self, words: LinearWords, config: VattConfig) -> None:
        super().__init__()
        self.words = WordVectors(words)
        self.projection = nn.Linear(words.vectors, words.width)
        nn.init.xavier_uniform_(self.projection.weight)

    def forward(self, ids: Ids, shared: Transformer | None) -> Features:
        x = self.projection(self.words(ids.flatten(0, 1))).relu()
        return _captions(x, x.amax(1), ids)


def padding(ids: Int[Tensor, "B L"], like: Tensor) -> Float[Tensor, "B 1 1 M"]:
    """What is added to the scores of attention so that nothing attends to padding; AGG comes first."""
    empty: Bool[Tensor, "B L"] = ids == PAD
    bias = torch.zeros(empty.shape, dtype=like.dtype, device=like.device).masked_fill(empty, _NEVER)
    return nn.functional.pad(bias, (1, 0))[:, None, None]


def of_captions(y: Float[Tensor, "captions M D"], ids: Ids) -> Features:
    """The output of AGG as each caption's features (B, P, D), and the words' (B, P, L, D)."""
    return _captions(y[:, 1:], y[:, 0], ids)


def _captions(tokens: Tensor, pooled: Tensor, ids: Ids) -> Features:
    split = partial(torch.unflatten, dim=0, sizes=(-1, ids.shape[1]))
    return Features(split(tokens), split(pooled), grid_boxes((1, 1, ids.shape[-1])))
