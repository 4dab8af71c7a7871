"""The released codes' initializers (scenic ``nn.initializers``), in place on torch parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# The standard deviation of a unit normal truncated at two sigma: what a truncated draw is divided by.
_TRUNCATED_STD = 0.87962566103423978


@torch.no_grad()
def lecun_normal_(weight: Tensor) -> Tensor:
    """Truncated normal (two sigma) of variance 1 / fan_in; rows are outputs, all else is fan-in."""
    std = math.sqrt(1.0 / weight[0].numel())
    return nn.init.trunc_normal_(
        weight, std=std / _TRUNCATED_STD, a=-2 * std / _TRUNCATED_STD, b=2 * std / _TRUNCATED_STD
    )


@torch.no_grad()
def glorot_normal_(weight: Tensor) -> Tensor:
    """Keras' draw: truncated normal (two sigma) of variance 2 / (fan_in + fan_out)."""
    std = math.sqrt(2.0 / sum(weight.shape)) / _TRUNCATED_STD
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


@torch.no_grad()
def init_attention_(*projections: nn.Linear, parts: int = 1) -> None:
    """Xavier uniform, drawn separately for each of the ``parts`` projections fused in one matrix; biases zero."""
    for projection in projections:
        for block in projection.weight.chunk(parts):
            nn.init.xavier_uniform_(block)
        if projection.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            nn.init.zeros_(projection.bias)


@torch.no_grad()
def mimetic_attention_(qkv: nn.Linear, out: nn.Linear, heads: int) -> None:
    """Projections whose products look like a trained model's (Trockman and Kolter 2023, "Mimetic initialization").

    For each head W_q^T W_k = 0.7 Z + 0.7 I, cut to the head's rank, so that tokens attend to those like themselves;
    over all heads W_out W_v = 0.4 Z - 0.4 I; Z is normal with variance 1 / D, drawn anew each time. Biases stay.
    """
    if out.weight.is_meta:  # a singular value decomposition per head is seconds, also where nothing is written
        return
    width = out.out_features
    eye, channels = torch.eye(width), width // heads
    query, key, value = qkv.weight.chunk(3)
    for rows in torch.arange(width).split(channels):
        left, scales, right = torch.linalg.svd(0.7 * torch.randn(width, width) / math.sqrt(width) + 0.7 * eye)
        root = scales[:channels, None].sqrt()
        query[rows] = left.T[:channels] * root
        key[rows] = right[:channels] * root
    left, scales, right = torch.linalg.svd(0.4 * torch.randn(width, width) / math.sqrt(width) - 0.4 * eye)
    out.weight.copy_(left * scales.sqrt())
    value.copy_(right * scales.sqrt()[:, None])


@torch.no_grad()
def init_mlp_(*layers: nn.Linear) -> None:
    """Xavier uniform kernels, biases N(0, 1e-6)."""
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            nn.init.normal_(layer.bias, std=1e-6)


@torch.no_grad()
def init_dense_(layer: nn.Linear) -> None:
    """A convolution or a plain dense layer: lecun normal, bias zero."""
    lecun_normal_(layer.weight)
    nn.init.zeros_(layer.bias)


@torch.no_grad()
def init_kernel_(layer: nn.Linear, channels: int) -> None:
    """Keras' draw of a convolution's kernel: uniform, with fan_out = D times the kernel's volume; bias zero."""
    volume = layer.in_features // channels
    bound = math.sqrt(6 / (layer.in_features + volume * layer.out_features))
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)


@torch.no_grad()
def init_aggregator_(token: nn.Parameter) -> nn.Parameter:
    """Keras' glorot_normal of a vector: truncated normal (two sigma) of variance 1 / D."""
    std = 1 / math.sqrt(token.shape[-1]) / _TRUNCATED_STD
    nn.init.trunc_normal_(token, std=std, a=-2 * std, b=2 * std)
    return token


@torch.no_grad()
def zero_biases_(module: nn.Module) -> None:
    """Zero biases of all linear layers, as Keras starts them."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            nn.init.zeros_(layer.bias)
