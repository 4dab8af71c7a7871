"""Attention pooling: a learned query reads all tokens (Set Transformer's pooling by attention; big_vision's head)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tubelet.nn.attention import CrossAttention
from tubelet.nn.blocks import MLP, Transformer, TransformerConfig


class AttentionPool(nn.Module):
    """y = MSA(query, tokens), pooled = y + MLP(LN(y)).

    Where ``config`` has a depth, so many blocks and a norm, which pooling alone has, are between the tokens and that
    (V-JEPA 2's classifiers have three).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.transformer = Transformer(config) if config.depth else None
        self.query = nn.Parameter(torch.empty(1, config.width))
        nn.init.xavier_uniform_(self.query)
        self.attention = CrossAttention(config.width, config.width, config.width, config.heads)
        self.norm = config.norm()
        self.mlp = MLP(config)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        if self.transformer is not None:
            tokens = self.transformer(tokens)
        query = self.query.to(tokens.dtype).expand(len(tokens), 1, -1)
        y = self.attention(query, tokens)
        return (y + self.mlp(self.norm(y)))[:, 0]
