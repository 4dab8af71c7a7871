"""A model in Python: by name, called with tensors, on arrays and files, trained in a plain loop, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tubelet
from media_files import record_sound
from tubelet.media.write import write_video
from tubelet.models import ASTConfig, ViTConfig, list_models, model_config
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec
from tubelet.weights.files import WeightsError
from zoo import ZOO, example

SIZE = TransformerConfig(width=16, depth=2, heads=2, mlp=32)
IMAGE = ViTConfig(backbone=SIZE, patch=(8, 8), image=ImageSpec(size=(16, 24), short_side=16))


def frames(count: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = tubelet.create_model(ZOO["model1"], num_classes=("up", "down"))
    torch.nn.init.normal_(made.heads["label"].projection.weight)
    return made.eval()


def test_every_listed_name_has_a_config_of_that_name():
    names = list_models()
    assert len(names) == len(set(names)) > 40
    assert [model_config(name).name for name in names] == names
    assert tubelet.list_models("vivit-ti*") == [name for name in names if name.startswith("vivit-ti")]


def test_one_input_and_one_head_need_no_names(model):
    x = example(ZOO["model1"])["video"]
    assert torch.equal(model(x), model({"video": x}, "label"))
    assert model(x).shape == (2, 2)
    features = model.forward_features(x)
    assert torch.equal(model.heads["label"](features), model(x))


def test_several_inputs_or_heads_must_be_named(model):
    with pytest.raises(ValueError, match=r"takes image, or video, or audio|takes video with audio"):
        tubelet.create_model(ZOO["mbt"])(torch.zeros(1, 6, 3, 16, 24))
    with pytest.raises(ValueError, match="no task 'other': this model has heads for label"):
        model(example(ZOO["model1"]), "other")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(1, 3, 6, 16, 24), r"\(B, T, C, H, W\) = \(B, 6, 3, 16, 24\); it looks like \(B, C, T, H, W\)"),
        (torch.rand(1, 6, 16, 24, 3), r"it looks like \(B, T, H, W, C\)"),
        (torch.rand(6, 3, 16, 24), r"without the batch"),
        (torch.rand(1, 6, 3, 16, 32), r"interpolate=True"),
        (torch.zeros(1, 6, 3, 16, 24, dtype=torch.uint8), r"uint8, but an encoder takes floats; model.preprocess"),
    ],
)
def test_a_wrong_layout_is_one_line_that_names_the_right_one(model, x, message):
    for call in (model, model.forward_features, model.encoder):
        with pytest.raises(ValueError, match=message) as raised:
            call(x)
        assert "\n" not in str(raised.value)


def test_another_size_is_interpolated_on_request(model):
    assert model(torch.rand(1, 12, 3, 32, 24), interpolate=True).shape == (1, 2)


def test_arrays_tensors_and_files_are_seen_alike(model, tmp_path):
    clip = np.repeat(frames(1), 6, axis=0)  # still, so that no codec changes one frame by another
    from_array = model.preprocess(clip)
    assert from_array.shape == (1, 6, 3, 16, 24)
    assert from_array.dtype == torch.float32
    assert -1 <= from_array.min() < from_array.max() <= 1
    assert torch.equal(model.preprocess(torch.from_numpy(clip).movedim(-1, 1)), from_array)
    assert torch.equal(model.preprocess(np.stack([clip, clip]))[1], from_array[0])
    write_video(tmp_path / "still.mp4", torch.full((24, 3, 20, 30), 90, dtype=torch.uint8), fps=10)
    of_file = model.preprocess(tmp_path / "still.mp4")
    assert of_file.shape == from_array.shape
    same = model.preprocess(np.full((6, 20, 30, 3), 90, np.uint8))
    torch.testing.assert_close(of_file, same, atol=0.05, rtol=0)


def test_a_longer_video_gives_its_middle_clip(model):
    spec = ZOO["model1"].inputs["video"]
    long = np.zeros((40, 16, 24, 3), np.uint8)
    long += np.arange(40, dtype=np.uint8)[:, None, None, None]
    levels = (255 * (model.preprocess(long)[0, :, 0, 0, 0] / 2 + 0.5)).round().int().tolist()
    first = (40 - spec.frames * spec.stride) // 2
    assert levels == list(range(first, first + spec.frames * spec.stride, spec.stride))
    faster = (255 * (model.preprocess(long, fps=2.0)[0, :, 0, 0, 0] / 2 + 0.5)).round().int().tolist()
    assert faster == levels  # the spec takes every file's own rate


def test_floats_and_other_shapes_are_refused_with_a_way_out(model):
    with pytest.raises(ValueError, match=r"floats are taken as normalized already.*255 \* x"):
        model.preprocess(torch.rand(6, 3, 16, 24))
    with pytest.raises(ValueError, match=r"channels last"):
        model.preprocess(np.zeros((6, 16, 24), np.uint8))


def test_predictions_of_arrays_and_of_several_files(model, tmp_path):
    one = model.predict(frames())
    probabilities = dict(one.labels)
    assert sum(probabilities.values()) == pytest.approx(1)
    assert probabilities["up"] == pytest.approx(model(model.preprocess(frames())).softmax(-1)[0, 0].item(), abs=1e-6)
    batch = model.predict(np.stack([frames(seed=1), frames(seed=2)]))
    for seed, prediction in zip((1, 2), batch, strict=True):
        assert dict(prediction.labels) == pytest.approx(dict(model.predict(frames(seed=seed)).labels), abs=1e-6)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, torch.from_numpy(frames(12)).movedim(-1, 1), fps=10)
    several = model.predict([tmp_path / "a.mp4", tmp_path / "b.mp4"])
    assert [Path(p.path).name for p in several] == ["a.mp4", "b.mp4"]
    assert several[0].labels == model.predict(tmp_path / "a.mp4").labels


def test_a_sound_is_floats_at_the_models_rate(tmp_path):
    config = ASTConfig(backbone=SIZE, patch=(8, 8), audio=SpectrogramSpec(frames=40, bins=16))
    model = tubelet.create_model(config, num_classes=2)
    wave = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32) * 0.5
    record_sound(tmp_path / "tone.wav", wave, 16_000)
    torch.testing.assert_close(
        model.preprocess(wave, rate=16_000), model.preprocess(tmp_path / "tone.wav"), atol=2e-2, rtol=0
    )
    with pytest.raises(ValueError, match="16000 samples per second"):
        model.preprocess(wave, rate=8_000)


@torch.no_grad()
def test_intermediates_are_what_the_blocks_return(model):
    x = example(ZOO["model1"])["video"]
    found = model.forward_intermediates(x, (0, -1))["video"]
    assert list(found) == [0, 1]
    encoder = model.encoder.encoder
    last = encoder.transformer.norm(found[1])
    torch.testing.assert_close(last[:, 1:], model.forward_features(x).tokens)
    assert list(model.forward_intermediates(x)["video"]) == [0, 1]
    with pytest.raises(ValueError, match="layer=7 is none of the 2 layers"):
        model.forward_intermediates(x, (7,))


@torch.no_grad()
@pytest.mark.parametrize("name", ["model2", "model3", "mtv", "mbt", "mbt-shared-late", "tubevit", "polyvit-video"])
def test_intermediates_of_every_tower_start_with_the_batch(name):
    x = example(ZOO[name])
    found = tubelet.create_model(ZOO[name]).eval().forward_intermediates(x)
    given = [tower for tower in ZOO[name].towers() if tower.input in x]
    assert set(found) == {tower.name for tower in given}
    for tower in given:
        blocks = [part for part in tower.modules if part.startswith("blocks.")]
        assert len(found[tower.name]) == len(blocks)
        assert all(tokens.shape[0] == 2 for tokens in found[tower.name].values())


def test_shared_blocks_give_each_modality_its_own_tokens():
    x = example(ZOO["mbt-shared-late"])
    found = tubelet.create_model(ZOO["mbt-shared-late"]).eval().forward_intermediates(x)
    assert found["video"][0].shape[1] == 19
    assert found["audio"][0].shape[1] == 7


@torch.no_grad()
def test_attention_is_captured_only_inside_and_numbered_when_a_layer_runs_again(model):
    x = example(ZOO["model1"])["video"]
    with tubelet.capture_attention(model) as maps:
        model(x)
    once = dict(maps)
    model(x)
    assert maps.keys() == once.keys()
    with tubelet.capture_attention(model) as twice:
        model(x)
        model(x)
    name = next(iter(once))
    assert torch.equal(twice[name], twice[f"{name}:1"])
    assert len(twice) == 2 * len(once)


def test_a_plain_loop_trains_and_the_result_is_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model = tubelet.create_model(IMAGE, num_classes=("dark", "bright"))
    assert model.training
    pictures = torch.cat([torch.zeros(8, 3, 16, 24), torch.ones(8, 3, 16, 24)])
    targets = torch.arange(2).repeat_interleave(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(pictures), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    model.save(tmp_path / "mine")
    loaded = tubelet.load(tmp_path / "mine")
    assert not loaded.training
    assert loaded.predict(np.full((16, 24, 3), 255, np.uint8)).labels[0].label == "bright"
    assert torch.equal(loaded(pictures), model.eval()(pictures))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep me")
    with pytest.raises(WeightsError, match="is not empty"):
        model.save(tmp_path / "other")


def test_weights_start_a_model_and_the_head_is_fresh(tmp_path):
    torch.manual_seed(0)
    image = tubelet.create_model(IMAGE, num_classes=3)
    for parameter in image.parameters():
        torch.nn.init.normal_(parameter)
    image.save(tmp_path / "image")
    video = tubelet.create_model(ZOO["model1"], num_classes=5, weights=tmp_path / "image")
    assert video.started_from is not None
    assert "left fresh" not in str(video.started_from)
    block = "encoder.encoder.transformer.blocks.1.mlp.0.weight"
    assert torch.equal(video.get_parameter(block), image.get_parameter(block))
    assert not video.heads["label"].projection.weight.any()
    video.reset_classifier(0)
    assert video(example(ZOO["model1"])["video"]).shape == (2, 16)
    with pytest.raises(WeightsError, match="no such file"):
        tubelet.create_model(IMAGE, weights=tmp_path / "none")
