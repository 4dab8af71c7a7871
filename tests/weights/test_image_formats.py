"""Image ViTs of transformers, with random weights, give the same tokens, pooled features and logits here as there."""

import json

import pytest
import torch

from tubelet.models import Model, ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import VideoSpec
from tubelet.weights.checkpoint import Checkpoint
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model
from tubelet.weights.formats import read_checkpoint
from tubelet.weights.transfer import Init, initialize_from

transformers = pytest.importorskip("transformers")

SIZE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 80}
DINO = {name: SIZE[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
GRID = {"image_size": 32, "patch_size": 8}
LABELS = {0: "run", 1: "jump", 2: "sit"}


def tower(config, model, *, special=1, **options):
    return lambda: (getattr(transformers, model)(getattr(transformers, config)(**GRID, **options)), special)


def whole(kind):
    """The config of both towers of CLIP or SigLIP."""
    text = {**SIZE, "vocab_size": 50, "max_position_embeddings": 8}
    vision = getattr(transformers, f"{kind}VisionConfig")(**GRID, **SIZE)
    text = getattr(transformers, f"{kind}TextConfig")(**text)
    return getattr(transformers, f"{kind}Config")(vision_config=vision.to_dict(), text_config=text.to_dict())


ENCODERS = {
    "deit": tower("DeiTConfig", "DeiTModel", special=2, **SIZE),
    "vit_msn": tower("ViTMSNConfig", "ViTMSNModel", **SIZE),
    "dinov2": tower("Dinov2Config", "Dinov2Model", **DINO),
    "dinov2 gated": tower("Dinov2Config", "Dinov2Model", use_swiglu_ffn=True, **DINO),
    "dinov2_with_registers": tower("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", special=5, **DINO),
    "dinov3": tower("DINOv3ViTConfig", "DINOv3ViTModel", special=5, num_register_tokens=4, **SIZE),
    "dinov3 gated": tower("DINOv3ViTConfig", "DINOv3ViTModel", use_gated_mlp=True, hidden_act="silu", **SIZE),
    "clip": tower("CLIPVisionConfig", "CLIPVisionModel", **SIZE),
    "siglip": tower("SiglipVisionConfig", "SiglipVisionModel", special=0, **SIZE),
    "clip with text": lambda: (transformers.CLIPModel(whole("CLIP")), 1),
    "siglip with text": lambda: (transformers.SiglipModel(whole("Siglip")), 0),
}
CLASSIFIERS = {
    "deit": tower("DeiTConfig", "DeiTForImageClassification", id2label=LABELS, **SIZE),
    "distilled deit": tower("DeiTConfig", "DeiTForImageClassificationWithTeacher", id2label=LABELS, **SIZE),
    "vit_msn": tower("ViTMSNConfig", "ViTMSNForImageClassification", id2label=LABELS, **SIZE),
    "dinov2": tower("Dinov2Config", "Dinov2ForImageClassification", id2label=LABELS, **DINO),
    "dinov2_with_registers": tower(
        "Dinov2WithRegistersConfig", "Dinov2WithRegistersForImageClassification", id2label=LABELS, **DINO
    ),
}


def built(make):
    torch.manual_seed(0)
    model, special = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return model.eval(), special


def loaded_from(model, folder):
    """What a folder and what a state dict in memory give, which are named by different versions."""
    model.save_pretrained(folder)
    return load_model(folder), read_checkpoint(Checkpoint.of(model.state_dict(), model.config.to_dict()))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def features_of(model, x, special, **options):
    """(tokens, pooled) of transformers' encoder; CLIP's tokens with the norm that only its pooled feature has there."""
    vision = getattr(model, "vision_model", model)
    if vision.config.model_type == "clip_vision_model":
        vision = getattr(vision, "vision_model", vision)
    out = vision(pixel_values=x, **options)
    tokens = out.last_hidden_state
    tokens = vision.post_layernorm(tokens) if "CLIP" in type(vision).__name__ else tokens
    pooled = tokens[:, 0] if special else out.pooler_output
    return tokens[:, special:], pooled


@pytest.mark.parametrize("kind", ENCODERS)
@torch.no_grad()
def test_an_encoder_gives_the_same_tokens_and_pooled_feature(kind, tmp_path):
    model, special = built(ENCODERS[kind])
    x = torch.randn(2, 3, 32, 32)
    tokens, pooled = features_of(model, x, special)
    for loaded in loaded_from(model, tmp_path):
        assert isinstance(loaded.config, ViTConfig)
        ours = loaded.model.eval().encoder({"image": x})
        close(ours.tokens, tokens)
        close(ours.pooled, pooled)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@torch.no_grad()
def test_a_classifier_gives_the_same_logits_and_names(kind, tmp_path):
    model, _ = built(CLASSIFIERS[kind])
    x = torch.randn(2, 3, 32, 32)
    for loaded in loaded_from(model, tmp_path):
        assert loaded.tasks["label"].classes == ("run", "jump", "sit")
        close(loaded.model.eval()({"image": x}, "label"), model(pixel_values=x).logits)


@torch.no_grad()
def test_siglips_classifier_reads_the_mean_of_the_tokens(tmp_path):
    config = whole("Siglip")
    config.id2label, config.label2id = LABELS, {name: i for i, name in LABELS.items()}
    model, _ = built(lambda: (transformers.SiglipForImageClassification(config), 0))
    x = torch.randn(2, 3, 32, 32)
    for loaded in loaded_from(model, tmp_path):
        close(loaded.model.eval()({"image": x}, "label"), model(pixel_values=x).logits)


@torch.no_grad()
def test_the_encoder_of_a_masked_autoencoder(tmp_path):
    options = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    make = tower("ViTMAEConfig", "ViTMAEForPreTraining", mask_ratio=0.0, **SIZE, **options)
    model, special = built(make)
    x, in_order = torch.randn(2, 3, 32, 32), torch.arange(16.0).expand(2, 16)
    tokens, pooled = features_of(model.vit, x, special, noise=in_order)
    for loaded in loaded_from(model, tmp_path):
        ours = loaded.model.eval().encoder({"image": x})
        close(ours.tokens, tokens)
        close(ours.pooled, pooled)
        assert any(name.startswith("decoder.") for name in loaded.dropped)


@pytest.mark.parametrize("kind", ["deit", "dinov2", "dinov2_with_registers", "dinov3", "clip", "siglip"])
@torch.no_grad()
def test_pictures_of_another_size_get_the_same_positions(kind):
    model, special = built(ENCODERS[kind])
    x = torch.randn(1, 3, 48, 40)
    asked = {} if kind.startswith("dino") else {"interpolate_pos_encoding": True}
    tokens, pooled = features_of(model, x, special, **asked)
    loaded = read_checkpoint(Checkpoint.of(model.state_dict(), model.config.to_dict()))
    ours = loaded.model.eval().encoder({"image": x}, interpolate=True)
    close(ours.tokens, tokens)
    close(ours.pooled, pooled)


@torch.no_grad()
def test_dinov2_takes_the_size_that_its_processor_cuts(tmp_path):
    model, special = built(ENCODERS["dinov2"])
    model.save_pretrained(tmp_path)
    told = {"do_center_crop": True, "crop_size": {"height": 24, "width": 24}, "size": {"shortest_edge": 28}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    loaded = load_model(tmp_path)
    image = loaded.config.inputs["image"]
    assert (image.size, image.short_side, image.fit) == ((24, 24), 28, "crop")
    x = torch.randn(1, 3, 24, 24)
    close(loaded.model.eval().encoder({"image": x}).tokens, features_of(model, x, special)[0])


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"size": {"height": 32, "width": 32}}, ("stretch", 32)),
        ({"size": 32}, ("stretch", 32)),
        ({"size": 36, "do_center_crop": True, "crop_size": 32}, ("crop", 36)),
        (
            {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
            ("crop", 40),
        ),
        ({"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": 32}, ("stretch_crop", 40)),
        (
            {"size": 40, "do_center_crop": True, "crop_size": 32, "feature_extractor_type": "DeiTFeatureExtractor"},
            ("stretch_crop", 40),
        ),
        ({"size": {"height": 40, "width": 50}, "do_center_crop": True, "crop_size": 32}, ("crop", 40)),
        ({"do_resize": False, "size": 50}, ("crop", 32)),
        ({}, ("crop", 32)),
    ],
)
def test_pictures_are_cut_as_the_processor_cuts_them(told, expected):
    model, _ = built(ENCODERS["vit_msn"])
    loaded = read_checkpoint(Checkpoint.of(model.state_dict(), model.config.to_dict(), told))
    image = loaded.config.inputs["image"]
    assert (image.fit, image.short_side, image.size) == (*expected, (32, 32))


VIDEO = ViViTConfig(
    backbone=TransformerConfig(width=48, depth=2, heads=3, mlp=80),
    tubelet=(2, 8, 8),
    video=VideoSpec(frames=4, size=(16, 16), short_side=16),
)


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if "gated" not in kind])
def test_any_image_vit_starts_a_video_model(kind):
    model, _ = built(ENCODERS[kind])
    loaded = read_checkpoint(Checkpoint.of(model.state_dict(), model.config.to_dict()))
    backbone = TransformerConfig(width=48, depth=2, heads=3, mlp=loaded.config.backbone.mlp)
    config = ViViTConfig(backbone=backbone, tubelet=VIDEO.tubelet, video=VIDEO.video)
    target = Model(config.build(), {})
    report = initialize_from(loaded, target, config, Init(source=kind))
    theirs = dict(loaded.model.named_parameters())
    norm = "encoder.encoder.transformer.blocks.1.norm_mlp.weight"
    assert torch.equal(target.get_parameter(norm), theirs[norm])
    assert "encoder.transformer.blocks.1.attention.out.weight" in report.loaded


@torch.no_grad()
def test_layer_scale_is_in_the_weights_of_a_model_that_has_none():
    model, _ = built(ENCODERS["dinov2"])
    loaded = read_checkpoint(Checkpoint.of(model.state_dict(), model.config.to_dict()))
    backbone = TransformerConfig(width=48, depth=2, heads=3, mlp=192, gelu="exact")
    config = ViTConfig(backbone=backbone, patch=(8, 8), image=loaded.config.image)
    target = Model(config.build(), {})
    initialize_from(loaded, target, config, Init(source="dinov2"))
    x = torch.randn(1, 3, 32, 32)
    close(target.eval().encoder({"image": x}).tokens, loaded.model.eval().encoder({"image": x}).tokens)


def test_what_cannot_be_read_is_refused_by_name():
    model, _ = built(ENCODERS["dinov3"])
    with pytest.raises(WeightsError, match="hidden_act 'silu' is not read; plain MLPs have gelu, gated ones silu"):
        read_checkpoint(Checkpoint.of(model.state_dict(), model.config.to_dict() | {"hidden_act": "silu"}))
    with pytest.raises(WeightsError, match=r"register_tokens \(1, 4, 48\)|has shape|claims"):
        read_checkpoint(Checkpoint.of(model.state_dict(), model.config.to_dict() | {"num_register_tokens": 3}))
