"""transformers' ViT and ViViT, with random weights, give the same logits here as there."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tubelet.models import ViTConfig, ViViTConfig
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.formats import read_checkpoint

transformers = pytest.importorskip("transformers")

SIZE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 80}
LABELS = {0: "run", 1: "jump", 2: "sit"}


def randomized(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return model.eval()


@pytest.fixture
def image_model():
    config = transformers.ViTConfig(image_size=(16, 24), patch_size=8, id2label=LABELS, **SIZE)
    return randomized(transformers.ViTForImageClassification(config))


@pytest.fixture
def video_model():
    config = transformers.VivitConfig(image_size=16, num_frames=6, tubelet_size=(2, 8, 8), id2label=LABELS, **SIZE)
    return randomized(transformers.VivitForVideoClassification(config))


@torch.no_grad()
def assert_same_logits(theirs, loaded, name, x):
    ours = loaded.model.eval()({name: x}, "label")
    torch.testing.assert_close(ours, theirs(pixel_values=x).logits, rtol=0, atol=2e-5)


def test_vit_from_a_folder(image_model, tmp_path):
    image_model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded.config, ViTConfig)
    assert (loaded.config.backbone.gelu, loaded.config.backbone.norm_eps) == ("exact", 1e-12)
    assert loaded.tasks["label"].classes == ("run", "jump", "sit")
    assert_same_logits(image_model, loaded, "image", torch.randn(2, 3, 16, 24))


def test_vivit_from_a_folder_is_model_1(video_model, tmp_path):
    video_model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded.config, ViViTConfig)
    assert loaded.config.attention_type == "joint"
    assert loaded.config.tubelet == (2, 8, 8)
    assert_same_logits(video_model, loaded, "video", torch.randn(2, 6, 3, 16, 16))


def test_vivit_from_a_model_in_memory(video_model):
    loaded = read_checkpoint(Checkpoint.of(video_model.state_dict(), video_model.config.to_dict()))
    assert_same_logits(video_model, loaded, "video", torch.randn(2, 6, 3, 16, 16))


def test_an_encoder_without_a_head_gives_the_same_tokens(tmp_path):
    model = randomized(transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **SIZE)))
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert not loaded.tasks
    assert loaded.dropped == ("pooler.dense.bias", "pooler.dense.weight")
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        features, theirs = loaded.model.eval().encoder({"image": x}), model(pixel_values=x).last_hidden_state
    torch.testing.assert_close(features.tokens, theirs[:, 1:], rtol=0, atol=2e-5)
    torch.testing.assert_close(features.pooled, theirs[:, 0], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 1 / 255},
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 127.5, "offset": True},
        {"do_normalize": False, "rescale_factor": 1 / 127.5, "offset": True},
    ],
)
def test_the_image_processors_range_is_ours(image_model, tmp_path, settings):
    image_model.save_pretrained(tmp_path)
    settings = {"do_rescale": True, "do_normalize": True, "size": {"shortest_edge": 20}, **settings}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    loaded = load_model(tmp_path)
    assert loaded.config.inputs["image"].short_side == 20
    pixels = torch.randint(256, (1, 3, 16, 24), dtype=torch.uint8)
    scaled = pixels.numpy() * settings["rescale_factor"] - settings.get("offset", False)
    if settings["do_normalize"]:
        mean, std = (np.array(settings[k]).reshape(3, 1, 1) for k in ("image_mean", "image_std"))
        scaled = (scaled - mean) / std
    np.testing.assert_allclose(loaded.model.preprocess({"image": pixels})["image"], scaled, atol=1e-5)


def test_other_architectures_are_refused(image_model):
    state, config = image_model.state_dict(), image_model.config.to_dict()
    with pytest.raises(WeightsError, match=r"'beit' \(each .*\), which is not read; what loads: transformers"):
        read_checkpoint(Checkpoint.of(state, config | {"model_type": "beit"}))
    with pytest.raises(WeightsError, match=r"arrays .'vit.embeddings.cls_token', .* and no model_type, which is not"):
        read_checkpoint(Checkpoint.of(state))
    with pytest.raises(WeightsError, match=r"layer_scale1 \(48,\)"):
        read_checkpoint(Checkpoint.of(state | {"vit.layers.0.layer_scale1": torch.ones(48)}, config))
    with pytest.raises(WeightsError, match=r"no parameter 'vit.layernorm.weight'; did you mean"):
        read_checkpoint(Checkpoint.of({n: x for n, x in state.items() if n != "vit.layernorm.weight"}, config))


# timm --------------------------------------------------------------------------------------------------------------


def timm_state(theirs):
    """transformers' ViT under timm's names, with timm's one matrix for queries, keys and values."""
    state = {name.removeprefix("vit."): x for name, x in theirs.state_dict().items()}
    ours = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        **{f"patch_embed.proj.{k}": state[f"embeddings.patch_embeddings.projection.{k}"] for k in ("weight", "bias")},
    }
    names = {"layernorm": "norm", "classifier": "head"}
    for i in range(theirs.config.num_hidden_layers):
        names |= {
            f"layers.{i}.layernorm_before": f"blocks.{i}.norm1",
            f"layers.{i}.layernorm_after": f"blocks.{i}.norm2",
        }
        names |= {f"layers.{i}.mlp.{fc}": f"blocks.{i}.mlp.{fc}" for fc in ("fc1", "fc2")}
        names |= {f"layers.{i}.attention.o_proj": f"blocks.{i}.attn.proj"}
        for kind in ("weight", "bias"):
            qkv = [state[f"layers.{i}.attention.{part}_proj.{kind}"] for part in "qkv"]
            ours[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(qkv)
    ours |= {f"{new}.{kind}": state[f"{old}.{kind}"] for old, new in names.items() for kind in ("weight", "bias")}
    return {name: x.contiguous() for name, x in ours.items()}


@pytest.fixture
def tiny_vit():
    """ViT-Ti's width, which tells timm's reader the number of heads."""
    size = {"hidden_size": 192, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 64}
    config = transformers.ViTConfig(image_size=16, patch_size=8, layer_norm_eps=1e-6, id2label=LABELS, **size)
    return randomized(transformers.ViTForImageClassification(config))


def test_timm_file(tiny_vit, tmp_path):
    save_file(timm_state(tiny_vit), tmp_path / "vit_tiny.safetensors")
    loaded = load_model(tmp_path / "vit_tiny.safetensors")
    assert loaded.config.inputs["image"].size == (16, 16)
    assert_same_logits(tiny_vit, loaded, "image", torch.randn(2, 3, 16, 16))


def test_timm_repository(tiny_vit, tmp_path):
    save_file(timm_state(tiny_vit), tmp_path / "model.safetensors")
    pretrained = {"input_size": [3, 16, 16], "mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]}
    config = {"architecture": "vit_tiny_patch8_16", "pretrained_cfg": pretrained, "label_names": ["a", "b", "c"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_model(tmp_path)
    assert loaded.config.inputs["image"].mean == (0.4, 0.4, 0.4)
    assert loaded.tasks["label"].classes == ("a", "b", "c")
    assert_same_logits(tiny_vit, loaded, "image", torch.randn(2, 3, 16, 16))


def test_timm_variants_with_other_layers_are_refused(tiny_vit):
    with pytest.raises(WeightsError, match=r"blocks.0.attn.q_norm.weight \(64,\)"):
        read_checkpoint(Checkpoint.of(timm_state(tiny_vit) | {"blocks.0.attn.q_norm.weight": torch.ones(64)}))


@pytest.mark.parametrize("rows", ["patches", "class token", "all"])
@torch.no_grad()
def test_timm_layer_scale_and_registers_with_and_without_places(tiny_vit, rows):
    """The factors are in the weights of a plain ViT, and the registers' places in the registers: both give the same."""
    plain = timm_state(tiny_vit)
    table, registers = plain["pos_embed"], torch.randn(1, 2, 192)
    every = torch.cat([table[:, :1], torch.ones(1, 2, 192), table[:, 1:]], 1)
    places = {"patches": table[:, 1:], "class token": table, "all": every}[rows]
    scales = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}
    state = plain | {"reg_token": registers, "pos_embed": places}
    folded = plain | {"reg_token": registers + (rows == "all")}
    if rows == "patches":
        folded["pos_embed"] = torch.cat([torch.zeros(1, 1, 192), table[:, 1:]], 1)
    for scale, layer in scales.items():
        gamma = state[f"blocks.0.{scale}"] = torch.rand(192) + 0.5
        folded[f"blocks.0.{layer}.weight"] = plain[f"blocks.0.{layer}.weight"] * gamma[:, None]
        folded[f"blocks.0.{layer}.bias"] = plain[f"blocks.0.{layer}.bias"] * gamma
    x = torch.randn(1, 3, 16, 16)
    ours, theirs = (
        read_checkpoint(Checkpoint.of(one)).model.eval().encoder({"image": x}).tokens for one in (state, folded)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_timm_says_how_to_tell_the_heads(image_model):
    size = {"pretrained_cfg": {"input_size": [3, 16, 24]}}
    with pytest.raises(WeightsError, match=r'width 48; put \{"model_args": \{"num_heads"'):
        read_checkpoint(Checkpoint.of(timm_state(image_model), size))
    told = size | {"model_args": {"num_heads": 3}}
    assert read_checkpoint(Checkpoint.of(timm_state(image_model), told)).config.backbone.heads == 3
