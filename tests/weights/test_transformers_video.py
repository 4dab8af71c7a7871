"""transformers' VideoMAE, TimeSformer and AST, with random weights: tokens, features and logits are the same here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import tubelet
from tubelet.models import ASTConfig, TimeSformerConfig, ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.formats import read_checkpoint

transformers = pytest.importorskip("transformers")
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil  # noqa: E402

SIZE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 80}
CLIP = {"image_size": 16, "patch_size": 8, "num_frames": 4}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 8,
}
SOUND = {"max_length": 60, "num_mel_bins": 32, "patch_size": 16, "time_stride": 10, "frequency_stride": 7}
LABELS = {0: "run", 1: "jump", 2: "sit"}


def randomized(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
    return model.eval()


def saved(model, folder, **processor):
    """What loads of ``model`` as transformers writes it."""
    model.save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return load_model(folder)


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@torch.no_grad()
def features(loaded, x):
    return loaded.model.eval().forward_features(x)


@torch.no_grad()
def logits(loaded, x):
    return loaded.model.eval()(x, "label")


# VideoMAE ------------------------------------------------------------------------------------------------------------


def videomae(kind, **settings):
    config = transformers.VideoMAEConfig(id2label=LABELS, **SIZE, **DECODER, **CLIP | settings)
    return randomized(getattr(transformers, f"VideoMAE{kind}")(config))


@torch.no_grad()
def test_videomae_classifies_as_there(tmp_path):
    theirs = videomae("ForVideoClassification")
    processor = {"size": {"shortest_edge": 20}, "image_mean": [0.4] * 3, "image_std": [0.2] * 3, "do_rescale": True}
    loaded = saved(theirs, tmp_path, **processor)
    x = torch.randn(2, 4, 3, 16, 16)
    assert isinstance(loaded.config, ViViTConfig)
    assert (loaded.config.tubelet, loaded.config.video.frames, loaded.config.video.stride) == ((2, 8, 8), 4, 4)
    assert (loaded.config.video.mean, loaded.config.video.short_side) == ((0.4,) * 3, 20)
    assert loaded.tasks["label"].classes == ("run", "jump", "sit")
    assert_same(logits(loaded, x), theirs(x).logits)
    hidden = theirs.videomae(x).last_hidden_state
    assert_same(features(loaded, x).tokens, hidden)
    assert_same(features(loaded, x).pooled, theirs.fc_norm(hidden.mean(1)))


@torch.no_grad()
@pytest.mark.parametrize("mean_pooling", [True, False])
@pytest.mark.parametrize("kind", ["Model", "ForPreTraining"])
def test_an_encoder_of_videomae_gives_the_same_tokens(tmp_path, kind, mean_pooling):
    theirs = videomae(kind, use_mean_pooling=mean_pooling, num_frames=6)
    loaded = saved(theirs, tmp_path)
    x = torch.randn(2, 6, 3, 16, 16)
    assert not loaded.tasks
    assert_same(features(loaded, x).tokens, getattr(theirs, "videomae", theirs)(x).last_hidden_state)
    assert all(name.startswith(("decoder.", "encoder_to_decoder.", "mask_token")) for name in loaded.dropped)


@torch.no_grad()
def test_old_files_of_videomae_name_biases_otherwise(tmp_path):
    theirs = videomae("ForVideoClassification")
    state = theirs.state_dict()
    for name in list(state):
        layer, _, part = name.rpartition(".attention.attention.")
        if part in ("query.bias", "value.bias"):
            state[f"{layer}.attention.attention.{part[0]}_bias"] = state.pop(name)
    x = torch.randn(1, 4, 3, 16, 16)
    loaded = read_checkpoint(Checkpoint.of(state, theirs.config.to_dict()))
    assert_same(logits(loaded, x), theirs(x).logits)


@pytest.mark.parametrize(("size", "within"), [((20, 30), 1e-5), ((45, 64), 0.05)])
def test_clips_are_cut_as_its_processor_cuts_them(tmp_path, size, within):
    """Exactly, where the short side needs no resampling; else but for a rounding to whole levels in between."""
    processor = VideoMAEImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16})
    videomae("Model").save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    y, x = np.mgrid[: size[0], : size[1]] / size[0]
    frames = [128 + 90 * np.sin(3 * x + 2 * y + t + np.arange(3).reshape(3, 1, 1)) for t in range(4)]
    clip = torch.from_numpy(np.stack(frames).astype(np.uint8))
    wanted = processor(list(clip), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(tubelet.load(tmp_path).preprocess(clip), wanted, rtol=0, atol=within)


def test_positions_of_videomae_stay_as_they_are_in_training(tmp_path):
    loaded = saved(videomae("ForVideoClassification"), tmp_path)
    tables = {name: p.requires_grad for name, p in loaded.model.named_parameters() if "positions" in name}
    assert tables == {"encoder.encoder.positions.table": False}


def test_a_videomae_that_reads_one_token_is_refused():
    theirs = videomae("ForVideoClassification", use_mean_pooling=False)
    with pytest.raises(WeightsError, match="classifies by its first token"):
        read_checkpoint(Checkpoint.of(theirs.state_dict(), theirs.config.to_dict()))


def test_a_config_that_asks_for_more_positions_than_weights_is_refused():
    theirs = videomae("ForVideoClassification")
    config = theirs.config.to_dict() | {"image_size": 1024, "num_frames": 8}
    with pytest.raises(WeightsError, match="positions that it describes"):
        read_checkpoint(Checkpoint.of(theirs.state_dict(), config))


# TimeSformer ---------------------------------------------------------------------------------------------------------


def timesformer(kind="ForVideoClassification", **settings):
    config = transformers.TimesformerConfig(id2label=LABELS, **SIZE, **CLIP | settings)
    return randomized(getattr(transformers, f"Timesformer{kind}")(config))


@torch.no_grad()
@pytest.mark.parametrize(
    ("attention", "kind"), [("divided_space_time", TimeSformerConfig), ("joint_space_time", ViViTConfig)]
)
def test_timesformer_is_the_same_as_there(tmp_path, attention, kind):
    theirs = timesformer(attention_type=attention)
    loaded = saved(theirs, tmp_path)
    x = torch.randn(2, 4, 3, 16, 16)
    assert isinstance(loaded.config, kind)
    assert loaded.config.video.frames * loaded.config.video.stride == 256
    assert loaded.tasks["label"].classes == ("run", "jump", "sit")
    assert_same(logits(loaded, x), theirs(x).logits)
    hidden = theirs.timesformer(x).last_hidden_state
    found = features(loaded, x)
    assert_same(found.pooled, hidden[:, 0])
    assert_same(found.tokens, hidden[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2))


@torch.no_grad()
def test_an_encoder_of_timesformer(tmp_path):
    theirs = timesformer("Model", num_frames=16)
    loaded = saved(theirs, tmp_path)
    x = torch.randn(1, 16, 3, 16, 16)
    assert loaded.config.video.stride == 16
    assert_same(features(loaded, x).pooled, theirs(x).last_hidden_state[:, 0])


def test_a_timesformer_of_single_frames_is_refused():
    theirs = timesformer(attention_type="space_only")
    with pytest.raises(WeightsError, match="attends over space only"):
        read_checkpoint(Checkpoint.of(theirs.state_dict(), theirs.config.to_dict()))


# AST -----------------------------------------------------------------------------------------------------------------


def ast(kind="ForAudioClassification"):
    config = transformers.ASTConfig(id2label=LABELS, **SIZE, **SOUND)
    return randomized(getattr(transformers, f"AST{kind}")(config))


@torch.no_grad()
def test_ast_is_the_same_as_there(tmp_path):
    theirs = ast()
    loaded = saved(theirs, tmp_path)
    x = torch.randn(2, 60, 32)
    assert isinstance(loaded.config, ASTConfig)
    assert loaded.tasks["label"].classes == ("run", "jump", "sit")
    assert_same(logits(loaded, x), theirs(x).logits)
    found, hidden = features(loaded, x), theirs.audio_spectrogram_transformer(x)
    assert_same(found.pooled, theirs.classifier.layernorm(hidden.pooler_output))
    assert_same(found.tokens, hidden.last_hidden_state[:, 2:].unflatten(1, (3, 5)).transpose(1, 2).flatten(1, 2))


@torch.no_grad()
def test_an_encoder_of_ast_has_no_norm_of_its_own(tmp_path):
    theirs = ast("Model")
    loaded = saved(theirs, tmp_path)
    x = torch.randn(2, 60, 32)
    assert not loaded.tasks
    assert_same(features(loaded, x).pooled, theirs(x).pooler_output)


@torch.no_grad()
@pytest.mark.parametrize("seconds", [0.2, 0.615, 1.0])
def test_ast_hears_what_its_feature_extractor_does(tmp_path, seconds):
    theirs = ast()
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=60, mean=-3.0, std=2.0)
    extractor.save_pretrained(tmp_path)
    loaded = saved(theirs, tmp_path)
    wave = np.random.default_rng(0).standard_normal(round(16_000 * seconds)).astype(np.float32) * 0.1
    wanted = extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]
    predictor = tubelet.load(tmp_path).eval()
    spec = predictor.config.inputs["audio"]
    heard = predictor.preprocess(torch.from_numpy(wave)[: spec.samples], rate=16_000)
    torch.testing.assert_close(heard, wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits(loaded, heard), theirs(wanted).logits, rtol=0, atol=1e-4)


# Starting others -----------------------------------------------------------------------------------------------------


SMALL = TransformerConfig(width=48, depth=2, heads=3, mlp=80)


def test_an_image_model_starts_what_these_formats_give(tmp_path):
    image = tubelet.create_model(ViTConfig(backbone=SMALL, patch=(8, 8), image=ImageSpec(size=(16, 16), short_side=16)))
    image.save(tmp_path / "image")
    for name, theirs in {"mae": videomae("ForVideoClassification"), "time": timesformer(), "sound": ast()}.items():
        loaded = saved(theirs, tmp_path / name)
        started = tubelet.create_model(loaded.config, weights=tmp_path / "image")
        last = "transformer.blocks.1.mlp.3.weight"
        found = next(p for name, p in started.encoder.named_parameters() if name.endswith(last))
        assert torch.equal(found, image.encoder.get_parameter(f"encoder.{last}"))


def test_they_start_plain_models(tmp_path):
    saved(videomae("ForVideoClassification"), tmp_path / "mae")
    saved(ast(), tmp_path / "sound")
    video = ViViTConfig(backbone=SMALL, tubelet=(2, 8, 8), video=load_model(tmp_path / "mae").config.video, pool="mean")
    started = tubelet.create_model(video, weights=tmp_path / "mae")
    table = load_model(tmp_path / "mae").model.encoder.get_parameter("encoder.positions.table")
    assert torch.equal(started.encoder.get_parameter("encoder.positions.table"), table)
    assert started.encoder.get_parameter("encoder.positions.table").requires_grad
    sound = ASTConfig(backbone=SMALL, patch=(8, 8), audio=SpectrogramSpec(frames=48, bins=32))
    x = torch.randn(1, 48, 32)
    tubelet.create_model(sound, weights=tmp_path / "sound").eval().forward_features(x)
