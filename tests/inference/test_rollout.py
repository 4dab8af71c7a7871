"""Attention rollout for each factorization, against the product of whole matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from einops import rearrange

from tubelet.inference.overlay import overlay
from tubelet.models import ModelConfig
from tubelet.models.ast import ASTConfig
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.tubevit import Tube, TubeViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.attention import capture_attention
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec

BACKBONE = TransformerConfig(width=16, depth=3, heads=2, mlp=32)
VIDEO = VideoSpec(frames=6, stride=1, size=(16, 24), short_side=16)
GRID = (3, 2, 3)


def vivit(attends: str, **changes) -> ViViTConfig:
    pool = "mean" if attends in ("factorized_self_attention", "factorized_dot_product") else "token"
    return ViViTConfig(
        **{"backbone": BACKBONE, "tubelet": (2, 8, 8), "video": VIDEO, "attention_type": attends, "pool": pool}
        | changes
    )


CONFIGS = {
    "joint": vivit("joint"),
    "joint, mean": vivit("joint", pool="mean"),
    "factorized encoder": vivit("factorized_encoder", temporal_depth=2),
    "factorized encoder, mean": vivit("factorized_encoder", pool="mean", temporal_depth=2),
    "average pooling": vivit("factorized_encoder", temporal_depth=0),
    "self-attention": vivit("factorized_self_attention"),
    "self-attention, time first": vivit("factorized_self_attention", order="time_space"),
    "dot product": vivit("factorized_dot_product"),
}


def attention_of(config: ModelConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    encoder = config.build().eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return seen(encoder, {"video": torch.randn(2, 6, 3, 16, 24)})


@torch.no_grad()
def seen(encoder, inputs) -> dict[str, torch.Tensor]:
    with capture_attention(encoder) as maps:
        encoder(inputs)
    return maps


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_shares_cover_the_grid_and_sum_to_one(config):
    shares = config.rollout(attention_of(config), "video")
    assert shares.shape == (2, *GRID)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum((1, 2, 3)), torch.ones(2))
    assert shares.std() > 0


def test_images_have_one_time_index():
    config = ViTConfig(backbone=BACKBONE, patch=(8, 8), image=ImageSpec(size=(16, 16), short_side=16))
    maps = seen(config.build().eval(), {"image": torch.randn(2, 3, 16, 16)})
    assert config.rollout(maps, "image").shape == (2, 1, 2, 2)


def test_a_tubes_share_falls_on_what_it_reads():
    tubes = (Tube(kernel=(4, 4, 8), stride=(8, 8, 8), offset=(2, 4, 0)),)
    config = TubeViTConfig(
        backbone=replace(BACKBONE, depth=1),
        image=ImageSpec(size=(16, 24), short_side=16),
        video=VIDEO,
        patch=Tube(kernel=(1, 8, 8), stride=(6, 8, 8)),
        tubes=tubes,
    )
    tokens = 6 + 6
    attention = torch.zeros(1, 2, 1 + tokens, 1 + tokens)
    attention[:, :, 0, [1 + 2, 1 + 6]] = torch.tensor([0.25, 0.75])  # the third patch, the first tube
    shares = config.rollout({"0": attention}, "video")
    expected = torch.zeros(1, 6, 2, 3)
    expected[0, 0, 0, 2] = 0.25
    expected[0, 2:6, 0, 0] = 0.75 / 4
    torch.testing.assert_close(shares, expected)
    image = config.rollout({"0": attention[..., :7, :7]}, "image")
    assert image.shape == (1, 1, 2, 3)


def test_a_spectrograms_grid_is_time_by_frequency():
    config = ASTConfig(backbone=BACKBONE, patch=(8, 16), audio=SpectrogramSpec(frames=40, bins=32))
    maps = seen(config.build().eval(), {"audio": torch.randn(2, 40, 32)})
    assert config.rollout(maps, "audio").shape == (2, 1, 5, 2)


def test_polyvits_rollout_goes_through_adaptors_and_shared_layers():
    video, image = Modality(spec=VIDEO, patch=(2, 8, 8)), Modality(spec=ImageSpec(size=(16, 16), short_side=16))
    config = PolyViTConfig(backbone=BACKBONE, adaptor_depth=2, modalities={"video": video, "image": image})
    maps = attention_of(config)
    assert len(maps) == BACKBONE.depth
    torch.testing.assert_close(config.rollout(maps, "video"), CONFIGS["joint"].rollout(maps, "video"))


def test_joint_attention_equals_the_product_of_matrices():
    config = CONFIGS["joint"]
    maps = attention_of(config)
    product = torch.eye(19).expand(2, 19, 19)
    for weights in maps.values():
        product = (weights.mean(1) + torch.eye(19)) / 2 @ product
    expected = product[:, 0, 1:] / product[:, 0, 1:].sum(-1, keepdim=True)
    torch.testing.assert_close(config.rollout(maps, "video").flatten(1), expected)


@pytest.mark.parametrize("name", ["self-attention", "self-attention, time first", "dot product"])
def test_factorized_attention_equals_joint_attention_with_the_same_zeros(name):
    config = CONFIGS[name]
    maps = attention_of(config)
    t, n = 3, 6
    eye_t, eye_n, eye = torch.eye(t), torch.eye(n), torch.eye(t * n)
    full = {}
    for key, weights in maps.items():
        mean = weights.mean(1).unflatten(0, (2, -1))
        if not key.endswith("time"):
            full[key] = torch.einsum("btnm,ts->btnsm", mean, eye_t).reshape(2, t * n, t * n)
        else:
            full[key] = torch.einsum("bnts,nm->btnsm", mean, eye_n).reshape(2, t * n, t * n)
    product = eye.expand(2, -1, -1)
    for layer in range(3):
        steps = [full[key] for key in full if f".blocks.{layer}." in key]
        if name == "dot product":
            steps = [sum(steps) / 2]
        for step in steps:
            product = (step + eye) / 2 @ product
    expected = rearrange(product.mean(1), "b (t h w) -> b t h w", t=3, h=2)
    torch.testing.assert_close(config.rollout(maps, "video"), expected)


def test_an_index_that_the_temporal_encoder_ignores_has_no_share():
    config = CONFIGS["factorized encoder"]
    maps = attention_of(config)
    for name in maps:
        if name.startswith("encoder.temporal."):
            maps[name][..., 1] = 0
    assert config.rollout(maps, "video")[:, 0].abs().max() == 0


def test_other_models_are_refused_by_name():
    class OtherConfig(ModelConfig):
        inputs = {}  # noqa: RUF012

        def build(self):
            raise NotImplementedError

    with pytest.raises(TypeError, match="not written for Other"):
        OtherConfig().rollout({}, "video")


def test_overlay_is_brightest_where_the_share_is_largest():
    shares = torch.zeros(2, 2, 2)
    shares[1, 0, 1] = 1
    frames = torch.full((4, 3, 16, 16), 60, dtype=torch.uint8)
    picture = overlay(frames, shares)
    assert picture.shape == frames.shape
    assert picture.dtype == torch.uint8
    brightness = picture.float().mean(1)
    assert brightness.argmax() == brightness.reshape(4, 16, 16)[3].argmax() + 3 * 256
    assert brightness[3, 0, 15] > 120
    assert (brightness[0, -1, 0] - 60).abs() <= 1
