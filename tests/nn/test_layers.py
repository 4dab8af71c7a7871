"""The layers, against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tubelet.nn.attention import Attention, CrossAttention, attend, attend_in_chunks, attention_weights
from tubelet.nn.blocks import Block, TransformerConfig
from tubelet.nn.depth import StochasticDepth, depth_rates
from tubelet.nn.features import Features
from tubelet.nn.heads import LinearHead, MultiHead, build_head
from tubelet.nn.initializers import lecun_normal_
from tubelet.nn.positions import FixedPositions, LearnedPositions, grid_boxes, interpolate_grid
from tubelet.nn.tokenizers import TubeletTokenizer, grid_of, uniform_frames

SIZE = TransformerConfig(width=16, depth=2, heads=4, mlp=32)


def test_attention_equals_torchs_own() -> None:
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.out.weight.data, ours.out.bias.data
    x = torch.randn(2, 7, 16)
    expected, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours.attention_maps(x)[""], weights)


def test_attention_drops_in_training_only() -> None:
    attention, x = Attention(16, 4, dropout=0.5), torch.randn(2, 7, 16)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_bfloat16_attention_on_a_cpu_agrees_with_float32() -> None:
    q, k, v = (torch.randn(1, 2, 1500, 16) for _ in range(3))
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend_in_chunks(q, k, v), expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for attention in (attend, attend_in_chunks):
            ours = attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
            assert ours.dtype == torch.bfloat16
            torch.testing.assert_close(ours.float(), expected, atol=0.01, rtol=0.05)


def test_cross_attention_reads_the_source() -> None:
    attention = CrossAttention(16, 24, 32, 4)
    x, source = torch.randn(2, 5, 16), torch.randn(2, 9, 24)
    assert attention(x, source).shape == (2, 5, 16)
    assert torch.allclose(attention(x, source), attention(x, source.flip(1)), atol=1e-6)
    assert not torch.allclose(attention(x, source), attention(x, source * 2))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"width=16 must be a multiple of heads=3"):
        Attention(16, 3)


def test_weights_and_attend_agree() -> None:
    q, k, v = (torch.randn(2, 3, 6, 8) for _ in range(3))
    torch.testing.assert_close(attention_weights(q, k) @ v, attend(q, k, v))


@given(
    tubelet=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)),
    stride=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
)
@settings(max_examples=40, deadline=None)
def test_tubelets_equal_the_valid_convolution(
    tubelet: tuple[int, int, int], extra: tuple[int, int, int], stride: tuple[int, int, int] | None
) -> None:
    t, h, w = (size + more for size, more in zip(tubelet, extra, strict=True))
    tokenizer = TubeletTokenizer(tubelet, width=5, stride=stride)
    video = torch.randn(2, t, 3, h, w)
    kernel = tokenizer.projection.weight.view(5, 3, *tubelet)
    expected = F.conv3d(video.transpose(1, 2), kernel, tokenizer.projection.bias, stride=stride or tubelet)
    torch.testing.assert_close(tokenizer(video), expected.permute(0, 2, 3, 4, 1), atol=1e-5, rtol=1e-4)
    assert grid_of((t, h, w), tubelet, stride) == tuple(expected.shape[2:])


@pytest.mark.parametrize(("theirs", "ours"), [(3, 1), (1, 3)])
def test_what_is_the_same_in_all_channels_stays_the_same_token(theirs: int, ours: int) -> None:
    source, target = TubeletTokenizer((1, 4, 4), 5, theirs), TubeletTokenizer((1, 4, 4), 5, ours)
    with torch.no_grad():
        target.projection.weight.copy_(
            target.resample("projection.weight", source.projection.weight, source, "central")
        )
        target.projection.bias.copy_(source.projection.bias)
    sound = torch.randn(2, 12, 8)
    torch.testing.assert_close(target(sound), source(sound))


def test_fixed_positions_are_exact_far_along_and_take_nothing_from_others() -> None:
    fixed, learned = FixedPositions((8, 14, 14), 16), LearnedPositions((1, 4, 4), 16)
    places = np.arange(8 * 14 * 14)[:, None] / 10_000 ** (np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(fixed.table[:, 0::2], np.sin(places), atol=1e-7)
    np.testing.assert_allclose(fixed.table[:, 1::2], np.cos(places), atol=1e-7)
    assert not fixed.table.requires_grad
    assert fixed.resample("table", learned.table, learned, "central") is fixed.table
    assert learned.resample("table", fixed.table, fixed, "central").shape == learned.table.shape


def test_a_clip_smaller_than_a_tubelet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 16, 16\).*\(2, 16, 16\)"):
        grid_of((1, 16, 16), (2, 16, 16))


def test_uniform_frames_spread_over_the_clip() -> None:
    assert uniform_frames(32, 8) == sorted(set(uniform_frames(32, 8)))
    assert uniform_frames(4, 9) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="count=0"):
        uniform_frames(8, 0)


def test_positions_are_the_table_at_its_own_size_and_linear_elsewhere() -> None:
    positions = LearnedPositions((2, 3, 4), width=3, special=1)
    assert torch.equal(positions((2, 3, 4)), positions.table)
    ramp = torch.stack(torch.meshgrid(*(torch.linspace(0, 1, n) for n in (2, 3, 4)), indexing="ij"), -1).view(-1, 3)
    positions.table.data[1:] = ramp
    grid = (5, 2, 7)
    expected = torch.stack(torch.meshgrid(*(torch.linspace(0, 1, n) for n in grid), indexing="ij"), -1).view(-1, 3)
    torch.testing.assert_close(positions(grid)[1:], expected)
    assert torch.equal(positions(grid)[0], positions.table[0])


@given(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)))
@settings(max_examples=20, deadline=None)
def test_interpolation_to_the_same_size_changes_nothing(grid: tuple[int, int, int]) -> None:
    table = torch.randn(math.prod(grid), 3)
    torch.testing.assert_close(interpolate_grid(table, grid, grid), table)


def test_boxes_tile_the_clip() -> None:
    boxes = grid_boxes((2, 3, 4))
    volume = (boxes[..., 1] - boxes[..., 0]).prod(-1).sum()
    torch.testing.assert_close(volume, torch.tensor(1.0))
    torch.testing.assert_close(boxes[0], torch.tensor([[0, 1 / 2], [0, 1 / 3], [0, 1 / 4]]))
    torch.testing.assert_close(boxes[-1, :, 1], torch.ones(3))


def test_depth_rates_grow_from_nothing_to_the_full_rate() -> None:
    assert depth_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert depth_rates(0.3, 1) == [0.0]


@pytest.mark.parametrize("rescale", [False, True])
def test_stochastic_depth_drops_whole_examples_at_its_rate(rescale: bool) -> None:
    torch.manual_seed(0)
    drop = StochasticDepth(0.25, rescale).train()
    out = drop(torch.ones(4000, 2, 3))
    kept = out[:, 0, 0] > 0
    assert (out.flatten(1) == out[:, :1, 0]).all()
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert out[kept][0, 0, 0].item() == pytest.approx(1 / 0.75 if rescale else 1.0)
    assert torch.equal(drop.eval()(torch.ones(2, 2, 3)), torch.ones(2, 2, 3))


def test_exact_gelu_and_norm_eps_are_the_backbones() -> None:
    torch.manual_seed(0)
    tanh = Block(SIZE)
    exact = Block(TransformerConfig(width=16, depth=2, heads=4, mlp=32, gelu="exact", norm_eps=1e-12))
    exact.load_state_dict(tanh.state_dict())
    x = 3 * torch.randn(2, 5, 16)
    difference = (tanh(x) - exact(x)).abs().max()
    assert 1e-6 < difference < 1e-2
    assert exact.norm_mlp.eps == 1e-12


def test_lecun_normal_has_its_variance_and_is_cut() -> None:
    torch.manual_seed(0)
    weight = lecun_normal_(torch.empty(400, 256))
    assert weight.std().item() == pytest.approx(1 / 16, rel=0.02)
    assert weight.abs().max().item() <= 2 / 16 / 0.8796


def test_attention_starts_xavier_per_projection() -> None:
    torch.manual_seed(0)
    bound = math.sqrt(6 / (64 + 64))
    for part in Attention(64, 4).qkv.weight.chunk(3):
        assert bound * 0.95 < part.abs().max().item() <= bound


def test_heads_start_from_zero_with_their_bias() -> None:
    features = Features(torch.randn(2, 3, 8), torch.randn(2, 8))
    assert torch.equal(LinearHead(8, 4, bias=-2.0)(features), torch.full((2, 4), -2.0))
    assert LinearHead(8, 4, init="lecun")(features).std() > 0


def test_glorot_normal_has_its_variance_and_is_cut() -> None:
    weight = LinearHead(256, 128, init="glorot_normal").projection.weight
    std = math.sqrt(2 / (256 + 128))
    assert weight.std().item() == pytest.approx(std, rel=0.02)
    assert weight.abs().max().item() <= 2 * std / 0.8796


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_heads_drop_features_in_training_only(hidden: tuple[int, ...]) -> None:
    head = build_head(8, 4, "lecun", dropout=0.5, hidden=hidden)
    assert head.state_dict().keys() == build_head(8, 4, hidden=hidden).state_dict().keys()
    features = Features(torch.rand(2, 3, 8), torch.rand(2, 8))
    torch.manual_seed(0)
    first, second = head(features), head(features)
    assert not torch.equal(first, second)
    assert torch.equal(head.eval()(features), head(features))
    both = MultiHead({"verb": LinearHead(8, 3), "noun": LinearHead(8, 5)})(features)
    assert {name: x.shape for name, x in both.items()} == {"verb": (2, 3), "noun": (2, 5)}
