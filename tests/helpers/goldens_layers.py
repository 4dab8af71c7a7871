"""Goldens of single layers and of the small functions beside them."""

from __future__ import annotations

import re

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from goldens_golden import Golden, close
from tubelet.nn.attention import Attention, CrossAttention
from tubelet.nn.blocks import MLP, Block, TransformerConfig
from tubelet.nn.positions import sinusoid_1d, sinusoids
from tubelet.nn.tokenizers import TubeletTokenizer, uniform_frames
from tubelet.weights.formats import scenic
from tubelet.weights.formats.tree import gather
from tubelet.weights.loaded import load_state


@torch.no_grad()
def check_attention(golden: Golden) -> None:
    """Self-attention, and cross-attention whose queries, keys and values have a width of their own."""
    queries, source = golden.tensor("input/q"), golden.tensor("input/kv")
    for name in {key.split("/")[0] for key in golden.under("param/")}:
        tree = golden.tree(f"param/{name}/")
        heads, width = tree.shape("query/bias")
        parts = {"self": {"qkv": ["query", "key", "value"]}}.get(name, {"q": ["query"], "kv": ["key", "value"]})
        if name == "self":
            attention: nn.Module = Attention(queries.shape[-1], heads)
        else:
            attention = CrossAttention(queries.shape[-1], source.shape[-1], heads * width, heads)
        load_state(attention, gather(parts | {"out": ["out"]}, scenic.leaf(tree)), tree.origin)
        ours = attention(queries) if name == "self" else attention(queries, source)
        (expected,) = [x for key, x in golden.under("output/").items() if key.partition("(")[0] == name]
        close(ours, expected, what=name)


@torch.no_grad()
def check_conv3d(golden: Golden) -> None:
    """The linear map over unfolded tubelets is the valid convolution; what fills no tubelet is left out."""
    tree = scenic.as_tree({f"embedding/{n}": x for n, x in golden.under("param/").items()}, golden.path.name)
    kernel = golden.arrays["param/kernel"].shape
    t, h, w = golden.config.get("kernel_thw", kernel[:3])
    tokenizer = TubeletTokenizer((t, h, w), width=kernel[-1], channels=kernel[-2])
    state = {name.removeprefix("tokenizer."): x for name, x in scenic.tokenizer(tree).items()}
    load_state(tokenizer, state, tree.origin)
    close(tokenizer(rearrange(golden.tensor("input/x"), "B T H W C -> B T C H W")), golden.arrays["output/y"])


@torch.no_grad()
def check_layernorm_gelu(golden: Golden) -> None:
    width = len(golden.arrays["param/scale"])
    sizes = {gelu: TransformerConfig(width=width, depth=1, heads=1, mlp=1, gelu=gelu) for gelu in ("tanh", "exact")}
    norm = sizes["tanh"].norm()
    load_state(norm, {"weight": golden.tensor("param/scale"), "bias": golden.tensor("param/bias")}, golden.path.name)
    close(norm(golden.tensor("input/ln")), golden.arrays["output/ln"], what="layer norm")
    for gelu, key in {"tanh": "output/gelu", "exact": "output/gelu_exact_for_contrast"}.items():
        close(MLP(sizes[gelu])[1](golden.tensor("input/gelu")), golden.arrays[key], what=gelu)


def check_rescaled_depth(golden: Golden) -> None:
    """MTV's and TokenLearner's stochastic depth: kept branches are divided by 1 - p."""
    masks = [golden.tensor(f"input/keep_mask_{branch}") for branch in ("attn", "mlp")]
    check_block(golden, golden.config["rate"], True, masks)


def check_unscaled_depth(golden: Golden) -> None:
    """ViViT's, MBT's and PolyViT's stochastic depth: branches are dropped, and nothing is scaled."""
    masks = [~golden.tensor(f"input/drop_mask_{branch}(1=drop)") for branch in ("attn", "mlp")]
    check_block(golden, golden.config["droplayer_p"], False, masks)


@torch.no_grad()
def check_block(golden: Golden, rate: float, rescale: bool, keep: list[Tensor]) -> None:
    tree = golden.tree("param/")
    heads, _ = tree.shape("MultiHeadDotProductAttention_0/query/bias")
    width, mlp = tree.shape("MlpBlock_0/Dense_0/kernel")
    block = Block(TransformerConfig(width=width, depth=1, heads=heads, mlp=mlp, rescale_depth=rescale), rate)
    load_state(block, gather(scenic.BLOCK, scenic.leaf(tree)), tree.origin)
    x = golden.tensor("input/x")
    close(block.eval()(x), golden.arrays["output/eval"], what="eval")
    with pytest.MonkeyPatch.context() as patch:
        draws = iter(keep)  # 1, never below a rate, where the branch is kept; 0 where it is dropped
        patch.setattr("torch.rand", lambda shape, **_: next(draws).float().reshape(shape))
        close(block.train()(x), golden.arrays["output/train"], what="train")
    assert next(draws, None) is None, "one draw for the attention, one for the MLP"


def check_sinusoids(golden: Golden) -> None:
    for name, expected in golden.under("output/").items():
        kind, shape = name.partition("(")[0], [int(n) for n in re.findall(r"\d+", name.partition("(")[2])]
        *axes, width = shape[1:]
        places = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in axes), indexing="ij"), dim=-1)
        ours = {
            "sinusoidal1d": lambda n=axes[0], d=width: sinusoid_1d(n, d),
            "sincos2d": lambda p=places, d=width: sinusoids(p.flatten(0, -2)[:, [1, 0]], d),
            "sincos3d": lambda p=places, d=width: sinusoids(p.flatten(0, -2)[:, [0, 2, 1]], d),
        }[kind]()
        close(ours.reshape(shape), expected, what=name)


def check_uniform_frames(golden: Golden) -> None:
    """The released rounding is ours too, one frame more than asked for (8, 2) and a few others included: checkpoints
    have tables of positions of that length."""
    for name, expected in golden.under("output/").items():
        frames, count = map(int, re.fullmatch(r"T(\d+)_n(\d+)", name).groups())
        assert uniform_frames(frames, count) == expected.tolist(), name
