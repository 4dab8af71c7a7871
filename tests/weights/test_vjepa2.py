"""transformers' V-JEPA 2, with random weights: tokens, features and logits are the same here; others start from it."""

from __future__ import annotations

import json

import pytest
import torch

import tubelet
from tubelet.models import ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.rotary import SpaceTimeRotaryPositions
from tubelet.specs import ImageSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.formats import read_checkpoint

transformers = pytest.importorskip("transformers")

SIZE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "mlp_ratio": 1.7}
CLIP = {"patch_size": 8, "crop_size": 24, "frames_per_clip": 4, "num_pooler_layers": 2}
PREDICTOR = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
LABELS = {0: "run", 1: "jump", 2: "sit"}
BACKBONE = TransformerConfig(width=48, depth=2, heads=3, mlp=81)


def vjepa(kind="ForVideoClassification", **settings):
    model = getattr(transformers, f"VJEPA2{kind}")(
        transformers.VJEPA2Config(id2label=LABELS, **SIZE, **CLIP | settings, **PREDICTOR)
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
    return model.eval()


def read(theirs, **settings):
    return read_checkpoint(Checkpoint.of(theirs.state_dict(), theirs.config.to_dict() | settings))


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("frames", [4, 10])
def test_it_classifies_as_there(tmp_path, frames):
    theirs = vjepa()
    theirs.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    model = loaded.model.eval()
    x = torch.randn(2, frames, 3, 24, 24)
    features = model.encoder(x, interpolate=True)
    assert loaded.tasks["label"].classes == ("run", "jump", "sit")
    assert_same(features.tokens, theirs.vjepa2(x, skip_predictor=True).last_hidden_state)
    assert_same(features.pooled, theirs.pooler(features.tokens))
    assert_same(model.heads["label"](features), theirs(x).logits)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_an_encoder_gives_the_same_tokens(tmp_path, bias):
    theirs = vjepa("Model", qkv_bias=bias, frames_per_clip=6)
    theirs.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    x = torch.randn(1, 6, 3, 24, 24)
    features = loaded.model.eval().forward_features(x)
    hidden = theirs(x, skip_predictor=True).last_hidden_state
    assert not loaded.tasks
    assert_same(features.tokens, hidden)
    assert_same(features.pooled, hidden.mean(1))
    assert loaded.dropped
    assert all(name.startswith("predictor.") for name in loaded.dropped)


@torch.no_grad()
def test_pictures_of_another_size_have_their_own_places():
    theirs = vjepa("Model")
    loaded, larger = read(theirs), vjepa("Model", crop_size=40)
    larger.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 4, 3, 40, 40)
    features = loaded.model.eval().encoder(x, interpolate=True)
    assert_same(features.tokens, larger(x, skip_predictor=True).last_hidden_state)


@pytest.mark.parametrize(("frames", "step"), [(64, (1, 4.0)), (32, (2, 0.0)), (16, (4, 0.0))])
def test_clips_are_as_far_apart_as_in_its_trainings(tmp_path, frames, step):
    vjepa("Model", frames_per_clip=frames).save_pretrained(tmp_path)
    processor = {"size": {"shortest_edge": 292}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(processor | {"image_mean": [0.4] * 3}))
    video = load_model(tmp_path).config.video
    assert (video.frames, (video.stride, video.fps)) == (frames, step)
    assert (video.size, video.short_side, video.mean) == ((24, 24), 292, (0.4,) * 3)


def test_a_pooler_without_blocks_is_refused():
    with pytest.raises(WeightsError, match="num_pooler_layers=0 is not read"):
        read(vjepa(num_pooler_layers=0))


@torch.no_grad()
def test_its_rollout_begins_at_the_pools_query():
    loaded = read(vjepa())
    with tubelet.capture_attention(loaded.model.encoder) as maps:
        loaded.model.eval().encoder(torch.randn(2, 4, 3, 24, 24))
    query = list(maps.values())[-1]
    assert query.shape == (2, 3, 1, 18)
    shares = loaded.config.rollout(maps, "video")
    torch.testing.assert_close(shares.sum((1, 2, 3)), torch.ones(2))
    blind = {name: torch.eye(18).expand(2, 3, 18, 18) for name in list(maps)[:-1]} | {"query": query}
    torch.testing.assert_close(loaded.config.rollout(blind, "video").flatten(1), query.mean((1, 2)))


# Starting others -----------------------------------------------------------------------------------------------------


def saved(folder):
    vjepa().save_pretrained(folder)
    return load_model(folder).config


def test_it_starts_plain_models(tmp_path):
    video = saved(tmp_path).video
    started = tubelet.create_model(ViViTConfig(backbone=BACKBONE, tubelet=(2, 8, 8), video=video), weights=tmp_path)
    theirs = load_model(tmp_path).model.encoder
    last = "encoder.transformer.blocks.1.mlp.3.weight"
    assert torch.equal(started.encoder.get_parameter(last), theirs.get_parameter(last))


def test_an_image_model_starts_it(tmp_path):
    image = tubelet.create_model(
        ViTConfig(backbone=BACKBONE, patch=(8, 8), image=ImageSpec(size=(24, 24), short_side=24))
    )
    image.save(tmp_path / "image")
    started = tubelet.create_model(saved(tmp_path / "jepa"), weights=tmp_path / "image")
    last = "encoder.transformer.blocks.1.mlp.3.weight"
    assert torch.equal(started.encoder.get_parameter(last), image.encoder.get_parameter(last))


def test_it_trains_and_is_saved(tmp_path):
    saved(tmp_path / "jepa")
    model = tubelet.load(tmp_path / "jepa")
    x = torch.randn(2, 4, 3, 24, 24)
    model.train()(x).logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not any("rotary" in name or "positions" in name for name in model.state_dict())
    model.save(tmp_path / "ours")
    assert_same(tubelet.load(tmp_path / "ours").eval()(x), model.eval()(x))


def test_rotary_positions_and_the_pool_are_of_model_1_alone():
    for options in ({"rotary": 100.0}, {"pool": "attention"}):
        with pytest.raises(ValueError, match='need attention_type="joint"'):
            ViViTConfig(backbone=BACKBONE, attention_type="factorized_encoder", **options)


# Rotary positions over space and time --------------------------------------------------------------------------------


def test_places_are_counted_along_each_axis():
    """Time, height and width have a third each; what is left over is not turned."""
    cos, sin = SpaceTimeRotaryPositions(22)((2, 3, 4))
    angles = torch.atan2(sin, cos)
    assert not angles[:, 18:].any()
    one, low = angles[[12, 4, 1]], 10_000 ** (-1 / 3)
    for axis in range(3):
        expected = torch.zeros(18)
        expected[6 * axis : 6 * axis + 6] = torch.tensor([1, low, low**2]).tile(2)
        torch.testing.assert_close(one[axis, :18], expected)


def test_a_head_too_narrow_for_three_axes_is_refused():
    with pytest.raises(ValueError, match="head_width=4 must be at least 6"):
        SpaceTimeRotaryPositions(4)
