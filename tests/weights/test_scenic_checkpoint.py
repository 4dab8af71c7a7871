"""Checkpoints of the released JAX code as its trainers save them: which model each is, and its parameters."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import released
import tubelet
from flax_files import chunked, nested, packed, write_flax
from tubelet.models import (
    SIZES,
    ASTConfig,
    MBTConfig,
    Modality,
    MTVConfig,
    PolyViTConfig,
    TokenLearnerConfig,
    ViTConfig,
    ViViTConfig,
)
from tubelet.models.mtv import CrossViewFusion
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model

SIZE = TransformerConfig(width=16, depth=2, heads=2, mlp=32)
CLIP = VideoSpec(frames=4, size=(8, 8), short_side=9)
MODEL_1 = ViViTConfig(backbone=SIZE, tubelet=(2, 4, 4), video=CLIP)


@pytest.fixture
def write(tmp_path):
    return lambda shapes, *around, **beside: write_flax(
        tmp_path / "checkpoint_7", released.filled(shapes), *around, **beside
    )


@pytest.mark.parametrize(
    "around", [(), ("params",), ("optimizer", "target"), ("opt", "target"), ("optimizer", "target", "params")]
)
def test_parameters_are_found_below_whatever_is_around_them(write, around):
    shapes = released.model_1(8)
    beside = {"global_step": 7, "opt_state": {"0": {"trace": {"cls": np.zeros((1, 1, 16))}}}, "rng": None}
    path = write(shapes, *around, **(beside if around else {}))
    loaded = load_model(path, MODEL_1)
    assert loaded.config == MODEL_1
    kernel = torch.from_numpy(released.filled(shapes)["output_projection/kernel"])
    assert torch.equal(loaded.model.heads["label"].projection.weight, kernel.T)
    assert loaded.dropped == ()


def test_arrays_in_chunks_in_other_floats_and_bytes_behind_the_end(tmp_path):
    arrays = released.filled(released.model_1(8))
    plain = load_model(write_flax(tmp_path / "plain", arrays), MODEL_1).model.state_dict()
    odd = {
        **arrays,
        "embedding/kernel": chunked(arrays["embedding/kernel"], 100),
        "cls": arrays["cls"].astype(np.float64),
    }
    (tmp_path / "odd").write_bytes(packed({"optimizer": {"target": nested(odd)}, "complex": 1j}) + b"\0\0and more")
    found = load_model(tmp_path / "odd", MODEL_1).model.state_dict()
    assert all(torch.equal(found[name], x) for name, x in plain.items())


def test_model_2_tells_all_of_itself(write):
    loaded = load_model(write(released.model_2(4, 4)))
    assert loaded.config == ViViTConfig(
        backbone=SIZE,
        tubelet=(2, 4, 4),
        video=VideoSpec(frames=8, size=(8, 8), short_side=9),
        attention_type="factorized_encoder",
        temporal_depth=1,
        temporal_heads=4,
        temporal_mlp=48,
    )
    assert loaded.model.eval()({"video": torch.randn(1, 8, 3, 8, 8)}, "label").shape == (1, 5)


def test_epic_kitchens_has_nouns_and_verbs(write):
    shapes = released.model_2(4, 4, classes=397)
    loaded = load_model(write(shapes))
    answers = loaded.model.eval()({"video": torch.randn(1, 8, 3, 8, 8)}, "label")
    assert {name: x.shape[1] for name, x in answers.items()} == {"noun": 300, "verb": 97}
    kernel = torch.from_numpy(released.filled(shapes)["output_projection/kernel"])
    assert torch.equal(loaded.model.heads["label"].heads["verb"].projection.weight, kernel.T[300:])


def test_mtv_tells_all_of_itself(write):
    config = load_model(write(released.mtv(), "params")).config
    assert isinstance(config, MTVConfig)
    assert [s.backbone.depth for s in config.streams.values()] == [1, 3]
    assert [s.tubelet for s in config.streams.values()] == [(4, 8, 8), (2, 8, 8)]
    assert config.fusion == CrossViewFusion(layers=(2,))
    assert config.media == {"video": VideoSpec(frames=8, size=(16, 16), short_side=18)}


def test_mbt_is_told_where_modalities_meet(write):
    path = write(released.mbt())
    with pytest.raises(WeightsError, match=r"nothing in it tells the frames and the size"):
        load_model(path)
    video = VideoSpec(frames=4, size=(16, 16), short_side=16)
    modalities = {
        "video": Modality(spec=video, patch=(2, 8, 8)),
        "audio": Modality(spec=SpectrogramSpec(frames=16, bins=8), patch=(1, 8, 8)),
    }
    config = MBTConfig(backbone=replace(SIZE, depth=3), modalities=modalities, fusion_layer=2, bottlenecks=2)
    loaded = load_model(path, config)
    assert loaded.config == config
    assert loaded.tasks["label"].multilabel


def test_sound_alone_is_an_ast(write):
    shapes = {
        n: s for n, s in released.mbt().items() if "spectrogram" in n or n.startswith(("cls", "output_p", "bott"))
    }
    shapes |= released.norm("Transformer/encoder_norm")
    shapes |= {"Transformer/posembed_input_spectrogram/pos_embedding": (1, 16 * 13 + 1, 16)}
    del shapes["clsspectrogram"]
    loaded = load_model(write(shapes))
    assert loaded.config == ASTConfig(
        backbone=replace(SIZE, depth=3), patch=(8, 8), audio=SpectrogramSpec(frames=104, bins=128)
    )
    assert loaded.dropped == ("bottleneck",)


def test_polyvit_has_a_task_for_each_data_set(write):
    loaded = load_model(write(released.polyvit()))
    config = loaded.config
    assert isinstance(config, PolyViTConfig)
    assert (config.adaptor_depth, config.backbone.depth) == (1, 3)
    assert {name: (card.inputs, card.hidden, card.multilabel) for name, card in loaded.tasks.items()} == {
        "cifar10": (("image",), (), False),
        "balanced_audioset": (("audio",), (12,), True),
        "words": ((), (), True),
    }
    assert loaded.model.eval()({"audio": torch.randn(1, 128, 128)}, "balanced_audioset").shape == (1, 6)


def test_token_learner_is_told_its_layer(write):
    path = write(released.token_learner())
    with pytest.raises(WeightsError, match=r'before which layer tokens are learned; .* like="vit-b/16-tl4@9"'):
        load_model(path)
    config = TokenLearnerConfig(
        backbone=replace(SIZE, depth=3),
        spec=ImageSpec(size=(16, 16), short_side=16),
        patch=(1, 4, 4),
        tokens=4,
        layer=1,
    )
    assert load_model(path, config).config == config
    assert load_model(path, replace(config, layer=2)).config.layer == 2


def test_models_1_and_4_without_class_token_are_told_apart(write):
    shapes = released.model_1(8)
    del shapes["cls"]
    shapes["Transformer/posembed_input/pos_embedding"] = (1, 8, 16)
    path = write(shapes)
    joint = replace(MODEL_1, pool="mean")
    with pytest.raises(WeightsError, match="a Model 1 without class token or a Model 4"):
        load_model(path, ViTConfig(backbone=SIZE, patch=(4, 4)).with_inputs({"image": ImageSpec()}))
    for config in (joint, replace(joint, attention_type="factorized_dot_product")):
        assert load_model(path, config).config == config


def test_released_sizes_need_not_be_told(write):
    loaded = load_model(write({**released.model_1(16 * 28 * 28)}))
    assert loaded.config.video == VideoSpec(frames=32, size=(112, 112), short_side=128)


def test_a_model_starts_from_a_checkpoint(write):
    path = write(released.model_1(8), "optimizer", "target")
    model = tubelet.create_model(MODEL_1, weights=path, num_classes=3)
    assert model.started_from.fresh == ()
    longer = replace(MODEL_1, video=replace(CLIP, frames=8))
    with pytest.raises(WeightsError, match="nothing in it tells the frames"):
        tubelet.create_model(longer, weights=path)
    assert tubelet.load(path, like=MODEL_1, device="cpu").tasks["label"].classes == tuple("01234")


def test_like_is_a_name(tmp_path):
    path = tmp_path / "checkpoint"
    write_flax(path, released.filled(released.token_learner()))
    loaded = tubelet.load(path, like="vit-b/16-tl4@2", device="cpu")
    assert loaded.config.layer == 2
    assert loaded.config.backbone.width != SIZES["b"].width


def test_the_newest_checkpoint_of_a_trainers_folder_is_read(tmp_path):
    arrays = released.filled(released.model_2(4, 4))
    for step in (9, 10):
        write_flax(tmp_path / f"checkpoint_{step}", {**arrays, "output_projection/bias": np.full(5, step, np.float32)})
    assert load_model(tmp_path).model.heads["label"].projection.bias[0] == 10
