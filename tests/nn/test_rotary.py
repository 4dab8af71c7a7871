"""Rotary positions: what queries and keys have to do with each other depends on how far apart they are."""

import pytest
import torch

from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.rotary import RotaryBlock, RotaryPositions, rotate


@pytest.mark.parametrize("pairs", ["halves", "neighbors"])
def test_scores_depend_on_the_distance_alone(pairs):
    steps = torch.arange(6.0)[:, None] * torch.tensor([0.3, 0.7])
    angles = steps.tile(2) if pairs == "halves" else steps.repeat_interleave(2, -1)
    q, k = (rotate(torch.randn(4).expand(1, 1, 6, 4), angles.cos(), angles.sin(), pairs) for _ in range(2))
    scores = (q @ k.transpose(-2, -1))[0, 0]
    torch.testing.assert_close(scores[:-1, :-1], scores[1:, 1:])


def test_special_tokens_stay_and_lengths_do():
    cos, sin = RotaryPositions(12, axes=3)((2, 2, 3))
    x = torch.randn(1, 2, 14, 12)
    turned = rotate(x, cos, sin)
    assert torch.equal(turned[:, :, :2], x[:, :, :2])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_any_grid_covers_the_same_range():
    positions = RotaryPositions(8, axes=2)
    few, many = positions((1, 1, 1))[0], positions((1, 3, 3))[0]
    torch.testing.assert_close(few[0], many[4])


def test_a_rotary_block_has_maps_of_what_it_computes():
    block = RotaryBlock(TransformerConfig(width=16, depth=1, heads=2, mlp=8)).eval()
    cos, sin = RotaryPositions(8)((1, 2, 2))
    x = torch.randn(1, 5, 16)
    maps = block.attention.attention_maps(x, cos, sin)[""]
    value = block.attention.qkv(x)[..., 32:].unflatten(-1, (2, 8)).transpose(1, 2)
    expected = block.attention.out((maps @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(block.attention(x, cos, sin), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("width", "axes"), [(6, 2), (8, 3), (8, 4)])
def test_widths_that_the_axes_cannot_share_are_refused(width, axes):
    with pytest.raises(ValueError, match="must be a multiple of"):
        RotaryPositions(width, axes=axes)
