"""Sparse tubes against the paper's counts, a convolution, and positions computed one by one."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tubelet.models.tubevit import (
    CHARADES_TUBES,
    PATCH,
    TUBES,
    SparseTubes,
    Tube,
    TubeKernel,
    TubePositions,
    center_sinusoids,
)

PAPER = (*TUBES, PATCH)


def tokens(extent: tuple[int, int, int], tubes: tuple[Tube, ...] = PAPER) -> list[int]:
    return [math.prod(tube.grid(extent)) for tube in tubes]


def test_the_papers_tubes_give_what_its_kernels_strides_and_offsets_say() -> None:
    assert tokens((32, 224, 224)) == [98, 147, 98, 196]  # 539; Sec. 4.1 prints 559
    assert sum(tokens((64, 224, 224))) == 1176  # the clips of Table 10
    assert tokens((1, 224, 224), (PATCH,)) == [196]
    assert sum(tokens((128, 224, 224))) == 2499
    assert tokens((128, 224, 224), (*CHARADES_TUBES, PATCH)) == [343, 784, 288, 784]  # larger kernels fit less often


def test_space_to_depth_keeps_the_tokens_and_divides_channels_and_strides() -> None:
    for tube in TUBES:
        plain = replace(tube, neighbors=(1, 1, 1))
        assert tokens((32, 224, 224), (tube,)) == tokens((32, 224, 224), (plain,))
    long, wide, plain = TUBES
    assert (long.result_width(768), long.step) == (384, (8, 32, 32))
    assert (wide.result_width(768), wide.step) == (192, (6, 16, 16))
    assert (plain.result_width(768), plain.step) == (768, (16, 32, 32))
    # Table 12's last column times three colors and d, space-to-depth's thinner kernels counted.
    numbers = sum(p.weight.numel() for p in SparseTubes(PAPER, 768, 3).modules() if isinstance(p, nn.Linear))
    assert numbers == 3 * (512 * 384 + 256 * 192 + 576 * 768 + 256 * 768)


def test_a_tube_is_a_valid_convolution_with_stride_and_offset() -> None:
    tube = Tube(kernel=(2, 3, 4), stride=(3, 5, 4), offset=(1, 2, 0))
    layer, video = SparseTubes((tube,), 8, 3), torch.randn(2, 9, 3, 17, 19)
    weight, bias = _convolution(layer, tube)
    expected = F.conv3d(video.transpose(1, 2)[:, :, 1:, 2:], weight, bias, stride=tube.stride)
    torch.testing.assert_close(layer(video), expected.flatten(2).transpose(1, 2))


def _convolution(layer: SparseTubes, tube: Tube) -> tuple[Tensor, Tensor]:
    kernel = layer.kernels[0]
    assert isinstance(kernel, TubeKernel)
    return kernel.projection.weight.unflatten(1, (3, *tube.kernel)), kernel.projection.bias


def test_space_to_depth_puts_neighboring_results_side_by_side() -> None:
    tube = Tube(kernel=(2, 2, 2), stride=(4, 6, 4), neighbors=(2, 1, 2))
    layer, video = SparseTubes((tube,), 8, 3), torch.randn(1, 9, 3, 13, 13)
    weight, bias = _convolution(layer, tube)
    assert weight.shape[0] == 2
    results = F.conv3d(video.transpose(1, 2), weight, bias, stride=(2, 6, 2))[0]
    n_t, n_h, n_w = tube.grid((9, 13, 13))
    expected = [
        torch.cat([results[:, 2 * t + a, h, 2 * w + c] for a in range(2) for c in range(2)])
        for t in range(n_t)
        for h in range(n_h)
        for w in range(n_w)
    ]
    torch.testing.assert_close(layer(video)[0], torch.stack(expected))


def test_space_to_depth_may_not_divide_the_stride() -> None:
    """Table 7c's fourfold in time on a stride of 6: neighbors begin after 0, 1, 3 and 4 frames."""
    tube = Tube(kernel=(2, 2, 2), stride=(6, 4, 4), neighbors=(4, 1, 1))
    layer, video = SparseTubes((tube,), 8, 3), torch.randn(1, 13, 3, 8, 8)
    weight, bias = _convolution(layer, tube)
    results = F.conv3d(video.transpose(1, 2), weight, bias, stride=(1, 4, 4))[0]
    assert tube.grid((13, 8, 8)) == (2, 2, 2)
    assert tube.grid((11, 8, 8)) == (1, 2, 2)
    expected = [
        torch.cat([results[:, 6 * t + a, h, w] for a in (0, 1, 3, 4)]) for t, h, w in product(range(2), repeat=3)
    ]
    torch.testing.assert_close(layer(video)[0], torch.stack(expected))
    assert tube.boxes((13, 8, 8))[4].tolist() == [[6, 12], [0, 2], [0, 2]]
    assert tokens((32, 224, 224), (replace(TUBES[1], neighbors=(4, 1, 1)),)) == [98]  # Table 12's reaches to frame 20


def test_of_a_concatenation_wider_than_the_model_the_first_channels_are_taken() -> None:
    wide = Tube(kernel=(1, 2, 2), stride=(1, 4, 4), neighbors=(1, 2, 2), channels=3)
    layer, video = SparseTubes((wide,), 10, 3), torch.randn(1, 1, 3, 8, 8)
    whole = SparseTubes((wide,), 12, 3)
    whole.load_state_dict(layer.state_dict())
    assert torch.equal(layer(video), whole(video)[..., :10])


@pytest.mark.parametrize("tube", [*TUBES, *CHARADES_TUBES[:1], PATCH])
def test_a_token_reads_its_box_and_nothing_else(tube: Tube) -> None:
    video = torch.randn(1, 40, 1, 64, 80, requires_grad=True)
    layer = SparseTubes((tube,), 48, 1)
    index = math.prod(tube.grid((40, 64, 80))) - 1
    layer(video)[0, index].sum().backward()
    assert video.grad is not None
    read = video.grad[0, :, 0].nonzero()
    (frames, rows, columns) = tube.boxes((40, 64, 80))[index].int().tolist()
    assert read.min(0).values.tolist() == [frames[0], rows[0], columns[0]]
    assert (read.max(0).values + 1).tolist() == [frames[1], rows[1], columns[1]]


def test_pixels_under_no_tube_may_be_anything() -> None:
    tube = Tube(kernel=(4, 12, 12), stride=(16, 32, 32), offset=(0, 16, 16))
    layer, video = SparseTubes((tube,), 16, 3), torch.full((1, 32, 3, 64, 64), math.nan)
    for t, h, w in product((0, 16), (16, 48), (16, 48)):
        video[:, t : t + 4, :, h : h + 12, w : w + 12] = torch.randn(1, 4, 3, 12, 12)
    assert layer(video).isfinite().all()


sizes = st.integers(1, 20)


@given(shape=st.tuples(sizes, sizes, sizes))
def test_the_answer_to_a_constant_does_not_depend_on_the_kernels_shape(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    kernel = TubeKernel((8, 8, 8), channels=3, width=5)
    color = torch.randn(3)
    answers = []
    for tube in (Tube(kernel=(8, 8, 8), stride=(1, 1, 1)), Tube(kernel=shape, stride=(1, 1, 1))):
        t, h, w = tube.kernel
        answers.append(kernel(color.view(1, 1, 3, 1, 1).expand(1, t, 3, h, w), tube))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(4, 16, 16), (32, 4, 4), (16, 4, 4), (4, 12, 12), (16, 16, 16), (32, 8, 8)])
def test_the_papers_shapes_are_the_trilinear_kernel_by_the_ratio_of_volumes(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    kernel = TubeKernel((8, 8, 8), channels=2, width=3)
    learned = kernel.projection.weight.unflatten(1, (2, 8, 8, 8))
    expected = F.interpolate(learned, size=shape, mode="trilinear") * (512 / math.prod(shape))
    torch.testing.assert_close(kernel.weight(shape), expected.flatten(1))


def test_one_kernel_serves_all_tubes() -> None:
    """Table 7e: those of space-to-depth, which have fewer channels each, take its first ones."""
    layer, video = SparseTubes(TUBES, 16, 3, learned=((8, 8, 8),)), torch.randn(1, 64, 3, 64, 64)
    assert [tuple(p.shape) for p in layer.parameters()] == [(16, 3 * 512), (16,)]
    found = layer(video)
    assert found.shape == (1, sum(tokens((64, 64, 64), TUBES)), 16)
    kernel = layer.kernels[0]
    assert isinstance(kernel, TubeKernel)
    alone = SparseTubes((replace(TUBES[0], channels=8),), 16, 3)
    alone.load_state_dict(
        {
            "kernels.0.projection.weight": kernel.projection.weight[:8],
            "kernels.0.projection.bias": kernel.projection.bias[:8],
        }
    )
    torch.testing.assert_close(found[:, : math.prod(TUBES[0].grid((64, 64, 64)))], alone(video))
    with pytest.raises(ValueError, match="2 shapes of learned kernels for 3 tubes"):
        SparseTubes(TUBES, 16, 3, learned=((8, 8, 8), (8, 8, 8)))


def test_positions_are_the_sinusoids_of_each_tokens_center() -> None:
    """Eq. 3-7 one by one; the center of space-to-depth's token is that of all that it reads."""
    width, extent = 26, (32, 64, 96)
    positions = TubePositions((PATCH, *TUBES), width, extent)
    table, boxes = positions(extent)
    centers = [
        (o_t + t * s_t + span_t / 2, o_w + w * s_w + span_w / 2, o_h + h * s_h + span_h / 2)
        for (s_t, s_h, s_w), (o_t, o_h, o_w), (span_t, span_h, span_w), (n_t, n_h, n_w) in (
            ((32, 16, 16), (0, 0, 0), (1, 16, 16), (1, 4, 6)),
            ((16, 32, 32), (0, 0, 0), (16, 8, 8), (2, 2, 3)),
            ((6, 32, 32), (4, 8, 8), (16, 20, 20), (3, 2, 3)),
            ((16, 32, 32), (0, 16, 16), (4, 12, 12), (2, 2, 3)),
        )
        for t in range(n_t)
        for h in range(n_h)
        for w in range(n_w)
    ]
    expected = torch.zeros(len(centers), width)
    for row, center in enumerate(centers):
        for j in range(width // 6):
            omega = 10_000 ** (-j / (width // 6))
            for axis, place in enumerate(center):
                expected[row, 6 * j + 2 * axis] = math.sin(place * omega)
                expected[row, 6 * j + 2 * axis + 1] = math.cos(place * omega)
    torch.testing.assert_close(table, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(boxes[0], torch.tensor([[0, 1 / 32], [0, 1 / 4], [0, 1 / 6]]))
    assert ((boxes >= 0) & (boxes <= 1)).all()


def test_positions_of_another_extent_are_those_made_for_it() -> None:
    made, other = (TubePositions(PAPER, 24, extent) for extent in ((32, 64, 64), (64, 96, 64)))
    for ours, theirs in zip(made((64, 96, 64)), other((64, 96, 64)), strict=True):
        assert torch.equal(ours, theirs)


def test_the_slowest_waves_still_tell_places_apart() -> None:
    """With the printed 1 / tau^j they would be the same everywhere from the third frequency on."""
    table = center_sinusoids(torch.tensor([[0.5, 8.0, 8.0], [100.0, 200.0, 200.0]]), 768)
    slowest = table[:, -6::2]
    assert ((slowest[1] - slowest[0]) > 0.01).all()


def test_impossible_tubes_are_refused_with_the_value() -> None:
    with pytest.raises(ValueError, match="positive kernel"):
        Tube(kernel=(0, 8, 8), stride=(1, 1, 1))
    with pytest.raises(ValueError, match=r"self.neighbors=\(4, 1, 1\) must be at most self.stride"):
        Tube(kernel=(8, 8, 8), stride=(3, 1, 1), neighbors=(4, 1, 1))
    with pytest.raises(ValueError, match=r"\(16, 224, 224\) is too small for one token"):
        TUBES[1].grid((16, 224, 224))
    with pytest.raises(ValueError, match="multiple of the 4 neighbors"):
        TUBES[1].result_width(18)
    with pytest.raises(ValueError, match="4 neighbors of 5 channels do not fill width=24"):
        replace(TUBES[1], channels=5).result_width(24)
    with pytest.raises(ValueError, match="at least 6"):
        center_sinusoids(torch.zeros(1, 3), 4)
