"""timm's kinds of ViT, whose weights are transformers' under timm's names: pools, norms, tokens, activations, crops."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.formats import read_checkpoint

transformers = pytest.importorskip("transformers")

SIZE = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 64}
GRID = {"image_size": 16, "patch_size": 8}
LABELS = {0: "run", 1: "jump", 2: "sit"}
EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.patch_embedding.bias": "patch_embed.proj.bias",
}
LAYERS = {
    "layernorm": "norm",
    "post_layernorm": "norm",
    "pre_layrnorm": "norm_pre",
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "head_dist",
    "head.layernorm": "attn_pool.norm",
    "head.mlp.fc1": "attn_pool.mlp.fc1",
    "head.mlp.fc2": "attn_pool.mlp.fc2",
    "head.attention.out_proj": "attn_pool.proj",
}
PARTS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "attention.o_proj": "attn.proj",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def randomized(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
    return model.eval()


def renamed(model):
    """transformers' state under timm's names, queries, keys and values in one matrix."""
    state = {}
    for name, x in model.state_dict().items():
        for prefix in ("vit.", "deit.", "vision_model.", "encoder."):
            name = name.removeprefix(prefix)
        layer, _, kind = name.rpartition(".")
        state |= {EMBEDDINGS[name]: x} if name in EMBEDDINGS else {}
        state |= {f"{LAYERS[layer]}.{kind}": x} if layer in LAYERS else {}
        if name.startswith("layers."):
            _, number, part = layer.split(".", 2)
            state |= {f"blocks.{number}.{PARTS[part]}.{kind}": x} if part in PARTS else {}
            if part.endswith("q_proj"):
                names = [full_name(model, name.replace("q_proj", f"{p}_proj")) for p in "qkv"]
                state[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat([model.state_dict()[n] for n in names])
    return {name: x.contiguous() for name, x in state.items()}


def full_name(model, end):
    return next(name for name in model.state_dict() if name.endswith(end))


def read(state, **config):
    return read_checkpoint(Checkpoint.of(state, config))


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def classifier(kind="ViT", suffix="ForImageClassification", **settings):
    config = getattr(transformers, f"{kind}Config")(layer_norm_eps=1e-6, id2label=LABELS, **SIZE, **GRID, **settings)
    return randomized(getattr(transformers, f"{kind}{suffix}")(config))


@torch.no_grad()
def test_a_distilled_deit_averages_its_two_heads():
    theirs = classifier("DeiT", "ForImageClassificationWithTeacher")
    loaded = read(renamed(theirs))
    x = torch.randn(2, 3, 16, 16)
    assert_same(loaded.model.eval()(x, "label"), theirs(x).logits)


@torch.no_grad()
@pytest.mark.parametrize("told", [{}, {"architecture": "vit_tiny_patch8_16", "global_pool": "avg"}])
@pytest.mark.parametrize("token", [True, False])
def test_a_mean_of_the_patches_is_normed_after_it(token, told):
    """With and without a class token, which then takes part in attention alone."""
    theirs = classifier()
    state = renamed(theirs)
    state |= {f"fc_norm.{kind}": state.pop(f"norm.{kind}") for kind in ("weight", "bias")}
    encoder, norm = theirs.vit, theirs.vit.layernorm
    encoder.layernorm = nn.Identity()
    x = torch.randn(2, 3, 16, 16)
    hidden = encoder(x).last_hidden_state
    if not token:
        del state["cls_token"]
        state["pos_embed"] = state["pos_embed"][:, 1:]
        hidden = encoder.embeddings(x)[:, 1:]
        for layer in encoder.layers:
            hidden = layer(hidden)
    tokens = hidden[:, -4:]
    loaded = read(state, **told)
    features = loaded.model.eval().forward_features(x)
    torch.testing.assert_close(features.tokens, tokens, rtol=1e-5, atol=1e-5)
    assert_same(features.pooled, norm(tokens.mean(1)))
    assert_same(loaded.model(x, "label"), theirs.classifier(norm(tokens.mean(1))))


@torch.no_grad()
def test_siglip_pools_by_attention():
    config = transformers.SiglipVisionConfig(layer_norm_eps=1e-6, **SIZE, **GRID)
    theirs = randomized(transformers.SiglipVisionModel(config))
    whole = theirs.state_dict()
    head = {name.rpartition("head.")[2]: x for name, x in whole.items() if "head." in name}
    state = renamed(theirs) | {
        "pos_embed": whole[full_name(theirs, "position_embedding.weight")][None],
        "attn_pool.latent": head["probe"],
        **{f"attn_pool.q.{kind}": head[f"attention.in_proj_{kind}"][:192] for kind in ("weight", "bias")},
        **{f"attn_pool.kv.{kind}": head[f"attention.in_proj_{kind}"][192:] for kind in ("weight", "bias")},
    }
    loaded = read(state, architecture="vit_so400m_patch16_siglip_256")  # whose GELU is the tanh one
    x = torch.randn(2, 3, 16, 16)
    features, out = loaded.model.eval().forward_features(x), theirs(x)
    assert_same(features.tokens, out.last_hidden_state)
    assert_same(features.pooled, out.pooler_output)


@torch.no_grad()
def test_clip_norms_before_its_blocks_and_has_its_own_gelu(tmp_path):
    theirs = randomized(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SIZE, **GRID)))
    whole = theirs.state_dict()
    state = renamed(theirs) | {
        "pos_embed": whole[full_name(theirs, "position_embedding.weight")][None],
        "cls_token": whole[full_name(theirs, "class_embedding")][None, None],
    }
    x = torch.randn(2, 3, 16, 16)
    name = "vit_base_patch32_clip_quickgelu_224"
    save_file({name: x.contiguous() for name, x in state.items()}, tmp_path / f"{name}.safetensors")
    for loaded in (read(state, architecture=name), load_model(tmp_path / f"{name}.safetensors")):
        assert_same(loaded.model.eval().forward_features(x).pooled, theirs(x).pooler_output)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"crop_pct": 0.875, "interpolation": "bicubic"}, ("crop", 18, "bicubic")),
        ({"crop_pct": 0.9, "crop_mode": "center", "interpolation": "bilinear"}, ("crop", 17, "bilinear")),
        ({"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"}, ("stretch", 16, "bicubic")),
        ({"crop_pct": 0.8, "crop_mode": "squash"}, ("stretch_crop", 20, "bilinear")),
        ({}, ("crop", 16, "bilinear")),
    ],
)
def test_pictures_are_cut_as_its_config_says(told, expected):
    image = read(renamed(classifier()), architecture="vit_tiny", pretrained_cfg=told).config.image
    assert (image.fit, image.short_side, image.resample) == expected


def test_what_is_not_told_or_computed_otherwise_is_refused():
    state = renamed(classifier())
    with pytest.raises(WeightsError, match="vit_base_patch16_rpn_224 norms after its layers"):
        read(state, architecture="vit_base_patch16_rpn_224")
    with pytest.raises(WeightsError, match="global_pool 'avgmax' is not read"):
        read(state, architecture="vit_tiny_patch16_224", global_pool="avgmax")
    assert read(state, architecture="vit_giantopt_patch16", model_args={"num_heads": 6}).config.backbone.heads == 6


def test_a_folder_says_all(tmp_path):
    save_file(renamed(classifier()), tmp_path / "model.safetensors")
    config = {"architecture": "vit_tiny_patch8_16", "global_pool": "token", "label_names": ["a", "b", "c"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path).tasks["label"].classes == ("a", "b", "c")
