"""Starting a model from another one (ViViT Sec. 3.4): what is equal, what is resized, what is told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.cards import ClassCard
from tubelet.models import Model, ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.inflation import inflate
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import save_model
from tubelet.weights.loaded import build_model
from tubelet.weights.transfer import Init, initialize

SIZE = TransformerConfig(width=16, depth=2, heads=2, mlp=32)
IMAGE = ViTConfig(backbone=SIZE, patch=(4, 4), image=ImageSpec(size=(16, 16), short_side=16))
VIDEO = ViViTConfig(backbone=SIZE, tubelet=(2, 4, 4), video=VideoSpec(frames=6, size=(16, 16), short_side=16))
MODELS = {
    "joint": VIDEO,
    "factorized_encoder": replace(VIDEO, attention_type="factorized_encoder", temporal_depth=1),
    "factorized_self_attention": replace(VIDEO, attention_type="factorized_self_attention", pool="mean"),
    "factorized_dot_product": replace(VIDEO, attention_type="factorized_dot_product", pool="mean"),
}
JUMPS = ClassCard(classes=("high", "low", "none"))


def randomized(config, tasks=None) -> Model:
    model = build_model(config, tasks or {})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return model


@pytest.fixture
def image(tmp_path) -> str:
    save_model(tmp_path / "image", randomized(IMAGE, {"label": JUMPS}), IMAGE, {"label": JUMPS})
    return str(tmp_path / "image")


def start(config, source, tasks=None, **options):
    torch.manual_seed(1)
    model = build_model(config, tasks or {})
    (report,) = initialize(model, config, [Init(source=source, **options)], tasks)
    return model, report


@torch.no_grad()
@pytest.mark.parametrize("kernel", ["central", "average"])
def test_a_still_video_through_model_2_is_the_image_at_every_time(image, kernel):
    """The spatial encoder of a video model that starts from an image model sees of a still video what that sees."""
    config = MODELS["factorized_encoder"]
    model, _ = start(config, image, kernel=kernel)
    picture = torch.randn(2, 3, 16, 16)
    video = picture[:, None].expand(-1, 6, -1, -1, -1)
    spatial = model.eval().encoder({"video": video}).parts["spatial"].tokens.unflatten(1, (3, 16))
    expected = randomized(IMAGE).eval().encoder({"image": picture}).tokens
    for t in range(3):
        torch.testing.assert_close(spatial[:, t], expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("frames", [2, 6])
def test_model_2_that_pools_by_the_mean_starts_as_the_mean_of_its_frames(image, frames):
    """Its temporal encoder adds nothing yet but the positions in time, which are set to zero here."""
    config = replace(MODELS["factorized_encoder"], tubelet=(1, 4, 4), temporal_pool="mean")
    model, report = start(config, image)
    model.encoder.encoder.temporal.positions.table.zero_()
    video = torch.randn(2, frames, 3, 16, 16)
    each = randomized(IMAGE).eval().encoder({"image": video.flatten(0, 1)}).pooled.unflatten(0, (2, frames))
    expected = torch.nn.functional.layer_norm(each, each.shape[-1:], eps=config.backbone.norm_eps).mean(1)
    found = model.eval().encoder({"video": video}, interpolate=True).pooled
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert "set to zero: encoder.temporal.transformer.blocks.*.attention.out" in str(report)


@torch.no_grad()
def test_model_3_starts_as_if_it_had_no_time(image):
    """Residual: each frame's tokens are those of the image model, whatever the other frames show."""
    config = replace(MODELS["factorized_self_attention"], tubelet=(1, 4, 4))
    model, report = start(config, image)
    frames = torch.randn(2, 6, 3, 16, 16)
    tokens = model.eval().encoder({"video": frames}).tokens.unflatten(1, (6, 16))
    single = model.encoder({"video": frames[:, 2:3]}, interpolate=True).tokens
    torch.testing.assert_close(tokens[:, 2], single, rtol=0, atol=1e-5)
    assert {name.rpartition(".out")[1] for name in report.zeroed} == {".out"}
    assert any("norm_time" in name for name in report.fresh)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_accounted_for(image, name):
    config = MODELS[name]
    model, report = start(config, image, {"motion": JUMPS})
    told = [*report.loaded, *report.zeroed, *report.fresh]
    encoder = {parameter for parameter, _ in model.encoder.named_parameters()}
    assert sorted(told) == sorted(encoder | {"heads.motion"})
    assert report.dropped[-1] == "heads.label"
    assert ("encoder.cls" in report.dropped) == (config.pool == "mean")
    assert "resized: tokenizer.projection.weight (16, 48) to (16, 96)" in str(report)


def test_the_report_takes_layers_together(image):
    _, report = start(MODELS["factorized_encoder"], image, {"motion": JUMPS})
    assert "left fresh: encoder.temporal, heads.motion\n" in str(report)
    _, report = start(MODELS["factorized_self_attention"], image)
    blocks = "encoder.transformer.blocks.*"
    assert f"set to zero: {blocks}.attention_time.out\n" in str(report)
    assert f"left fresh: {blocks}.norm_time, {blocks}.attention_time.qkv\n" in str(report)


def test_a_later_frame_count_and_size_interpolate_positions(tmp_path):
    """Kinetics to EPIC: a video model starts one with more frames and pixels; linear tables stay linear."""
    small = randomized(VIDEO)
    table = small.encoder.encoder.positions.table
    t, h, w = torch.meshgrid(*(torch.linspace(0, 1, n) for n in (3, 4, 4)), indexing="ij")
    with torch.no_grad():
        table[1:] = (t + 10 * h + 100 * w).flatten()[:, None]
    save_model(tmp_path / "small", small, VIDEO, {})
    config = replace(VIDEO, video=VideoSpec(frames=10, size=(16, 24), short_side=16))
    model, report = start(config, str(tmp_path / "small"))
    ours = model.encoder.encoder.positions.table
    t, h, w = torch.meshgrid(*(torch.linspace(0, 1, n) for n in (5, 4, 6)), indexing="ij")
    torch.testing.assert_close(ours[1:, 0], (t + 10 * h + 100 * w).flatten(), rtol=0, atol=1e-4)
    torch.testing.assert_close(ours[0], table[0])
    assert report.resized == ("encoder.positions.table (49, 16) to (121, 16)",)
    assert not report.fresh


@pytest.mark.parametrize(("classes", "loaded"), [(JUMPS.classes, True), (("high", "low", "sideways"), False)])
def test_a_head_is_kept_only_for_the_same_classes(tmp_path, classes, loaded):
    source = randomized(VIDEO, {"jumps": JUMPS})
    save_model(tmp_path / "source", source, VIDEO, {"jumps": JUMPS})
    model, report = start(VIDEO, str(tmp_path / "source"), {"jumps": ClassCard(classes=classes)})
    theirs, ours = source.heads["jumps"].projection.weight, model.heads["jumps"].projection.weight
    assert torch.equal(theirs, ours) == loaded
    assert ("heads.jumps" in report.loaded, "heads.jumps" in report.dropped) == (loaded, not loaded)


def test_fresh_and_random_leave_parameters_as_they_were_built(image):
    torch.manual_seed(1)
    built = build_model(VIDEO, {}).state_dict()
    model, report = start(
        VIDEO, image, kernel="random", fresh=("encoder.positions.*", "encoder.transformer.blocks.1.*")
    )
    kept = {name for name, x in model.state_dict().items() if torch.equal(x, built[name])}
    assert {name.removeprefix("encoder.") for name in kept} == {*report.fresh}
    assert "tokenizer.projection.weight" in report.fresh
    assert "encoder.positions.table" in report.fresh
    assert "encoder.transformer.blocks.0.attention.qkv.weight" in report.loaded


def test_what_does_not_fit_names_keys_and_shapes_and_changes_nothing(image):
    wide = replace(VIDEO, backbone=replace(SIZE, mlp=48))
    with pytest.raises(WeightsError, match=r"blocks.0.mlp.0.weight is \(32, 16\) in the source and \(48, 16\) in the"):
        start(wide, image)
    deep = replace(VIDEO, backbone=replace(SIZE, depth=3))
    with pytest.raises(WeightsError, match=r"blocks.2.norm_attention.weight \(16,\) of the model has nothing to start"):
        start(deep, image)
    deep_3 = replace(deep, attention_type="factorized_self_attention", pool="mean")
    with pytest.raises(WeightsError, match=r"blocks.2.norm_attention.weight \(16,\) of the model has nothing to start"):
        start(replace(deep_3, temporal_start="copy"), image)
    with pytest.raises(WeightsError, match=r"blocks.1.norm_attention.weight \(16,\) of the source has no place"):
        start(replace(VIDEO, backbone=replace(SIZE, depth=1)), image)
    model = build_model(deep, {})
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(WeightsError):
        initialize(model, deep, [Init(source=image)])
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_heads_that_differ_are_an_error_and_activations_a_note(image):
    with pytest.raises(WeightsError, match="attention has 2 heads, the model's 4"):
        start(replace(VIDEO, backbone=replace(SIZE, heads=4)), image)
    _, report = start(replace(VIDEO, backbone=replace(SIZE, gelu="exact")), image)
    assert report.notes == ("the source was trained with gelu tanh, the model has exact",)
    _, report = start(replace(VIDEO, video=replace(VIDEO.video, std=(0.2, 0.2, 0.2))), image)
    assert report.notes == ("the source was trained with pixel std (0.5, 0.5, 0.5), the model has (0.2, 0.2, 0.2)",)


def test_kinds_that_do_not_fit_are_refused(tmp_path):
    save_model(tmp_path / "video", randomized(VIDEO), VIDEO, {})
    with pytest.raises(WeightsError, match=r"holds a ViViT \(joint\), which cannot start a ViViT \(factorized_encoder"):
        start(MODELS["factorized_encoder"], str(tmp_path / "video"))


def test_a_pattern_that_matches_nothing_is_an_error(image):
    with pytest.raises(WeightsError, match=r"'encoder.position.\*' of Init.fresh matches no parameter"):
        start(VIDEO, image, fresh=("encoder.position.*",))


def test_inflated_kernels_see_a_still_video_as_the_image():
    kernel = torch.randn(4, 3, 2, 2)
    for how in ("central", "average"):
        torch.testing.assert_close(inflate(kernel, 4, how).sum(2), kernel)
    ranked = inflate(kernel, 4, "rank").sum(2)
    np.testing.assert_allclose(ranked, 0 * kernel, atol=1e-6)  # rank pooling answers to change alone
