"""Models of ours in the layouts of other libraries: transformers computes the same, and they come back as they were."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tubelet
from tubelet.cards import ClassCard, NumberCard
from tubelet.cli import main
from tubelet.inference.predictor import Predictor
from tubelet.models import ASTConfig, Modality, PolyViTConfig, TimeSformerConfig, ViTConfig, ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.weights import layouts, peers
from tubelet.weights.files import WeightsError
from tubelet.weights.formats import written
from tubelet.weights.loaded import LoadedModel, build_model

transformers = pytest.importorskip("transformers")
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil  # noqa: E402
from transformers.models.vivit.image_processing_vivit import VivitImageProcessor  # noqa: E402

CLASSES = ("run", "jump", "sit")
SMALL = TransformerConfig(width=48, depth=2, heads=3, mlp=96)
SCALED = replace(SMALL, mlp=192, layer_scale=0.1, gelu="exact")
PICTURE = ImageSpec(size=(16, 24), short_side=20, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
SQUARE = ImageSpec(size=(16, 16), short_side=16)
CLIP = VideoSpec(frames=4, stride=3, fps=12.5, size=(16, 24), short_side=20, mean=(0.4, 0.5, 0.6))
SOUND = SpectrogramSpec(
    frames=60,
    bins=32,
    taper="hann",
    fft=512,
    offset=2.0**-23,
    mean=-3.0,
    std=4.0,
    style="kaldi",
    short="blank",
    channels=1,
)
MAE = ViViTConfig(
    backbone=SMALL,
    tubelet=(2, 8, 8),
    video=CLIP,
    pool="mean",
    positions="sinusoids",
    final_norm=False,
    norm_pooled=1e-5,
)
VIT = ViTConfig(backbone=SMALL, patch=(8, 8), image=PICTURE)
VIVIT = ViViTConfig(backbone=SMALL, tubelet=(2, 8, 8), video=CLIP)
TIME = TimeSformerConfig(backbone=replace(SMALL, gelu="exact"), patch=(8, 8), video=replace(CLIP, size=(16, 16)))
AST = ASTConfig(backbone=SMALL, stride=(10, 7), audio=SOUND, pool="tokens-mean", registers=1, norm_pooled=1e-6)
DINO = ViTConfig(backbone=SCALED, patch=(8, 8), image=SQUARE, pool="token+mean")

CLASSIFIERS = {
    "ViT": VIT,
    "ViT, stretched": replace(VIT, patch=(8, 4), image=replace(PICTURE, fit="stretch")),
    "ViT, stretched and cropped, bicubic": replace(
        VIT, image=replace(PICTURE, fit="stretch_crop", short_side=28, resample="bicubic")
    ),
    "ViViT": VIVIT,
    "VideoMAE": MAE,
    "TimeSformer": TIME,
    "AST": AST,
    "DINOv2": replace(DINO, position_grid=(3, 3), resize="cubic", image=PICTURE),
    "DINOv2 with registers": replace(DINO, registers=2, backbone=replace(SCALED, gated=True, mlp=128)),
}
ENCODERS = {
    "ViT": VIT,
    "ViViT": VIVIT,
    "VideoMAE": replace(MAE, final_norm=True, norm_pooled=0.0),
    "TimeSformer": TIME,
    "AST": replace(AST, norm_pooled=0.0),
    "DINOv2": replace(DINO, pool="token"),
}
TIMM = {
    "plain": VIT,
    "mean": replace(VIT, pool="mean", backbone=replace(SCALED, mlp=100)),
    "registers": replace(
        VIT, registers=3, image=replace(PICTURE, fit="stretch"), backbone=replace(SMALL, gelu="quick")
    ),
    "registers, mean": replace(VIT, registers=3, pool="mean"),
    "stretched and cropped, bicubic": replace(
        VIT, image=replace(PICTURE, fit="stretch_crop", short_side=28, resample="bicubic")
    ),
}


def random_model(config, tasks=CLASSES):
    """A model whose numbers are random; ``tasks``: names of classes, or cards by the task."""
    cards = tasks if isinstance(tasks, dict) else {"label": ClassCard(classes=tasks)} if tasks else {}
    model = build_model(config, cards)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return Predictor(LoadedModel(model, config, cards), torch.device("cpu")).eval()


def inputs_of(config):
    (spec,) = config.inputs.values()
    return torch.randn(2, *spec.shape)


def loaded_there(folder):
    """What transformers loads of a folder, which must lack nothing and have nothing that is not used."""
    (kind,) = json.loads((folder / "config.json").read_text())["architectures"]
    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert all("pooler" in name for name in info["missing_keys"])
    return model.eval()


def assert_same(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def assert_same_cut(ours, back):
    """The frames, the size and the normalization are the same; where nothing is cut, the short side plays no role."""
    ((name, spec),) = ours.items()
    again = back[name]
    if isinstance(spec, ImageSpec | VideoSpec):
        assert (again.mean, again.std) == (pytest.approx(spec.mean), pytest.approx(spec.std))
        again = replace(again, mean=spec.mean, std=spec.std)
        again = replace(again, short_side=spec.short_side) if spec.fit == "stretch" else again
    assert again == spec


@torch.no_grad()
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_transformers_computes_the_same_logits_and_they_come_back(tmp_path, name):
    config = CLASSIFIERS[name]
    model, x = random_model(config), inputs_of(config)
    model.save(tmp_path / "there", layout="transformers")
    theirs = loaded_there(tmp_path / "there")
    assert_same(model(x), theirs(x).logits)
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    assert theirs.config.label2id == {label: i for i, label in enumerate(CLASSES)}
    back = tubelet.load(tmp_path / "there", device="cpu")
    assert_same(back(x), model(x), atol=1e-6)
    assert back.tasks["label"].classes == CLASSES
    assert_same_cut(config.inputs, back.config.inputs)


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODERS)
def test_transformers_computes_the_same_tokens_of_an_encoder(tmp_path, name):
    config = ENCODERS[name]
    model, x = random_model(config, ()), inputs_of(config)
    model.save(tmp_path / "there", layout="transformers")
    tokens = written(LoadedModel(model, config), "transformers").tokens
    assert_same(model.forward_features(x).tokens, tokens(loaded_there(tmp_path / "there")(x).last_hidden_state))
    back = tubelet.load(tmp_path / "there", device="cpu")
    assert not back.tasks
    assert_same(back(x), model(x), atol=1e-6)


# Theirs, ours, theirs ------------------------------------------------------------------------------------------------

SIZE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "id2label": dict(enumerate(CLASSES))}
WIDE = {**SIZE, "intermediate_size": 80}
FILM = {"image_size": 16, "patch_size": 8, "num_frames": 4}
THEIRS = {
    "ViTForImageClassification": ("ViTConfig", {**WIDE, "image_size": [16, 24], "patch_size": 8}),
    "VivitForVideoClassification": (
        "VivitConfig",
        {**WIDE, "image_size": 16, "num_frames": 6, "tubelet_size": [2, 8, 8]},
    ),
    "VideoMAEForVideoClassification": ("VideoMAEConfig", {**WIDE, **FILM}),
    "VideoMAEModel": ("VideoMAEConfig", {**WIDE, **FILM}),
    "TimesformerForVideoClassification": ("TimesformerConfig", {**WIDE, **FILM}),
    "Dinov2ForImageClassification": ("Dinov2Config", {**SIZE, "image_size": 16, "patch_size": 8}),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", {**SIZE, "image_size": 16, "patch_size": 8}),
    "ASTForAudioClassification": ("ASTConfig", {**WIDE, "max_length": 60, "num_mel_bins": 32}),
}


@pytest.mark.parametrize("kind", THEIRS)
def test_what_came_from_transformers_goes_back_as_it_was(tmp_path, kind):
    name, settings = THEIRS[kind]
    model = getattr(transformers, kind)(getattr(transformers, name)(**settings))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(tmp_path / "theirs")
    tubelet.load(tmp_path / "theirs", device="cpu").save(tmp_path / "again", layout="transformers")
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "again"))
    for tensors in (before, after):
        for key in [key for key in tensors if "mask_token" in key or "pooler" in key]:
            del tensors[key]
        if kind.startswith("AST"):  # the place of its distillation token goes into that token
            places = tensors["audio_spectrogram_transformer.embeddings.position_embeddings"]
            tensors["audio_spectrogram_transformer.embeddings.distillation_token"] += places[:, 1:2]
            places[:, 1] = 0
    assert before.keys() == after.keys()
    assert all(torch.equal(x, after[key]) for key, x in before.items())


# Preprocessing -------------------------------------------------------------------------------------------------------


def noise(*shape):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize(("fit", "size"), [("crop", (20, 30)), ("stretch", (16, 24)), ("stretch_crop", (24, 24))])
def test_transformers_cuts_pictures_as_the_model_wants_them(tmp_path, fit, size):
    """Exactly where nothing is resampled: the short side of the one has 20 pixels, another has the model's size."""
    image = replace(PICTURE, fit=fit, short_side=24 if fit == "stretch_crop" else 20)
    model = random_model(replace(VIT, image=image))
    model.save(tmp_path / "there", layout="transformers")
    picture = noise(3, *size)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "there")
    assert_same(model.preprocess(picture), processor(picture.numpy(), return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize(
    ("config", "processor"),
    [(VIVIT, VivitImageProcessor), (MAE, VideoMAEImageProcessorPil), (TIME, VideoMAEImageProcessorPil)],
)
def test_transformers_cuts_clips_as_the_model_wants_them(tmp_path, config, processor):
    model = random_model(config)
    model.save(tmp_path / "there", layout="transformers")
    clip = noise(4, 3, 20, 30)
    wanted = processor.from_pretrained(tmp_path / "there")(list(clip.numpy()), return_tensors="pt")["pixel_values"]
    assert_same(model.preprocess(clip), wanted)


def test_the_feature_extractor_of_ast_hears_what_the_model_does(tmp_path):
    model = random_model(AST)
    model.save(tmp_path / "there", layout="transformers")
    wave = np.random.default_rng(0).standard_normal(SOUND.samples).astype(np.float32) * 0.1
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "there")
    wanted = extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]
    assert_same(model.preprocess(torch.from_numpy(wave), rate=16_000), wanted, atol=1e-4)


# timm ----------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", TIMM)
def test_what_is_written_for_timm_comes_back(tmp_path, name):
    """timm 1.0.31 itself was compared with by hand: it does not load without torchvision."""
    config = TIMM[name]
    model, x = random_model(config), inputs_of(config)
    model.save(tmp_path / "there", layout="timm")
    back = tubelet.load(tmp_path / "there", device="cpu")
    assert_same(back(x), model(x), atol=1e-6)
    assert (back.config.backbone.gelu, back.config.pool) == (config.backbone.gelu, config.pool)
    assert back.tasks["label"].classes == CLASSES
    assert_same_cut(config.inputs, back.config.inputs)


def test_the_files_for_timm_have_its_names(tmp_path):
    """Those that timm 1.0.31 gives ``vit_base_patch16_224`` with these ``model_args``, read off its code."""
    random_model(replace(TIMM["registers"], backbone=replace(SCALED, depth=1, mlp=100))).save(
        tmp_path / "x", layout="timm"
    )
    shapes = {name: tuple(x.shape) for name, x in load_file(tmp_path / "x" / "model.safetensors").items()}
    block = {
        "norm1.weight": (48,), "norm1.bias": (48,), "attn.qkv.weight": (144, 48), "attn.qkv.bias": (144,),
        "attn.proj.weight": (48, 48), "attn.proj.bias": (48,), "ls1.gamma": (48,), "norm2.weight": (48,),
        "norm2.bias": (48,), "mlp.fc1.weight": (100, 48), "mlp.fc1.bias": (100,), "mlp.fc2.weight": (48, 100),
        "mlp.fc2.bias": (48,), "ls2.gamma": (48,),
    }  # fmt: skip
    assert shapes == {
        "cls_token": (1, 1, 48), "reg_token": (1, 3, 48), "pos_embed": (1, 10, 48),
        "patch_embed.proj.weight": (48, 3, 8, 8), "patch_embed.proj.bias": (48,),
        **{f"blocks.0.{name}": shape for name, shape in block.items()},
        "norm.weight": (48,), "norm.bias": (48,), "head.weight": (3, 48), "head.bias": (3,),
    }  # fmt: skip
    told = json.loads((tmp_path / "x" / "config.json").read_text())
    assert (told["architecture"], told["num_classes"], told["label_names"]) == (
        "vit_base_patch16_224",
        3,
        list(CLASSES),
    )
    assert told["model_args"] == {
        "img_size": [16, 24], "patch_size": [8, 8], "in_chans": 3, "embed_dim": 48, "depth": 1, "num_heads": 3,
        "mlp_ratio": pytest.approx(100 / 48), "act_layer": "gelu", "init_values": 0.1, "class_token": True,
        "reg_tokens": 3, "global_pool": "token", "fc_norm": False,
    }  # fmt: skip
    assert int(48 * told["model_args"]["mlp_ratio"]) == 100


# What does not fit ---------------------------------------------------------------------------------------------------


THERE, SELF = "the layout of transformers", "Tubelet's own folder"
BOTH = PolyViTConfig(
    backbone=SMALL,
    modalities={
        "image": Modality(spec=SQUARE, patch=(1, 8, 8)),
        "audio": Modality(spec=SpectrogramSpec(frames=24, bins=16), patch=(1, 8, 8)),
    },
)
REFUSED = [
    ("transformers", replace(VIT, pool="mean"), "ViT cannot hold pool 'mean', only 'token';.*--to timm"),
    ("transformers", replace(VIT, registers=2, image=SQUARE), "registers 2, only 0; .*layer_scale 0.0.*--to timm"),
    ("transformers", replace(VIT, backbone=replace(SMALL, head_width=8)), "cannot hold backbone.head_width 8"),
    ("transformers", replace(VIVIT, attention_type="factorized_encoder"), "hold attention_type 'factorized_encoder'"),
    ("transformers", replace(VIVIT, sampled_frames=2, tubelet=(1, 8, 8)), "cannot hold sampled_frames 2"),
    ("transformers", replace(VIVIT, video=replace(CLIP, values="flow")), "cannot hold video.values 'flow'"),
    ("transformers", replace(MAE, norm_pooled=1e-6), "transformers' ViViT cannot hold pool 'mean'.*; .*VideoMAE"),
    ("transformers", replace(AST, audio=replace(SOUND, style="plain")), "hold audio.style 'plain', only 'kaldi'"),
    ("transformers", replace(AST, patch=(16, 8)), r"cannot hold patch \[16, 8\]"),
    ("transformers", replace(DINO, image=PICTURE), "DINOv2 cannot hold a table of 2 x 3 positions"),
    ("transformers", replace(TIME, video=CLIP), r"cannot hold video.size \[16, 24\], only \[16, 16\]"),
    ("transformers", BOTH, "no PolyViT is written for transformers, which gets transformers' ViT, .*: " + SELF),
    ("timm", VIVIT, "no ViViT is written for timm, which gets timm's ViT; what holds it: " + THERE),
    ("timm", replace(VIT, representation=8), "ViT cannot hold representation 8, only 0; what holds it: " + SELF),
    ("timm", replace(VIT, backbone=replace(SMALL, norm_eps=1e-5)), "backbone.norm_eps 1e-05, only 1e-06; .*: " + THERE),
]


@pytest.mark.parametrize(("layout", "config", "says"), REFUSED)
def test_what_a_layout_cannot_hold_is_refused_by_the_settings_name(tmp_path, layout, config, says):
    model = random_model(config, ())
    with pytest.raises(WeightsError, match=says) as error:
        model.save(tmp_path / "there", layout=layout)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "there").exists()


def test_fixed_positions_that_are_not_videomaes_are_refused(tmp_path):
    model = random_model(MAE)
    model.encoder.get_parameter("encoder.positions.table")[0] += 1
    with pytest.raises(WeightsError, match="fixed positions of its own"):
        model.save(tmp_path / "there", layout="transformers")


def test_a_norm_that_an_encoder_has_no_place_for_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="cannot hold a norm of the mean"):
        random_model(MAE, ()).save(tmp_path / "there", layout="transformers")


TASKS = {
    "motion": ClassCard(classes=("left", "right")),
    "tags": ClassCard(classes=("sea", "dog", "car"), multilabel=True),
    "both": ClassCard(classes={"verb": ("open",), "noun": ("door",)}),
    "deep": ClassCard(classes=("a", "b"), hidden=(4,)),
    "age": NumberCard(numbers=("age",), mean=(30.0,), std=(9.0,)),
}


@torch.no_grad()
def test_one_task_of_several_becomes_the_classifier(tmp_path):
    model, x = random_model(VIVIT, TASKS), inputs_of(VIVIT)
    model.save(tmp_path / "there", layout="transformers", task="tags")
    assert_same(model(x, "tags"), loaded_there(tmp_path / "there")(x).logits)
    card = tubelet.load(tmp_path / "there").tasks["label"]
    assert (card.classes, card.multilabel) == (("sea", "dog", "car"), True)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("", "has the tasks motion, tags, both, deep, age, .* say which"),
        ("mood", "no task 'mood'; it has motion"),
        ("both", "is no classifier of one set of classes"),
        ("age", "is no classifier of one set of classes"),
        ("deep", "has hidden layers"),
    ],
)
def test_tasks_that_no_classifier_can_serve_are_refused(tmp_path, task, says):
    with pytest.raises(WeightsError, match=says):
        random_model(VIVIT, TASKS).save(tmp_path / "there", layout="transformers", task=task)


def test_timm_cannot_say_several_labels(tmp_path):
    with pytest.raises(WeightsError, match=r"several of the classes; what holds it: the layout of transformers"):
        random_model(VIT, {"tags": TASKS["tags"]}).save(tmp_path / "there", layout="timm")


def test_nothing_is_replaced_and_nothing_half_written(tmp_path, monkeypatch):
    model = random_model(VIT)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"photos: has files; nothing .* name a new folder"):
        model.save(tmp_path / "photos", layout="timm")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(layouts, "save_file", full)
    with pytest.raises(OSError, match="no space left"):
        model.save(tmp_path / "there", layout="timm")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_converts_and_compares(tmp_path, capsys):
    random_model(VIVIT, TASKS).save(tmp_path / "ours")
    words = ["convert", str(tmp_path / "ours"), str(tmp_path / "there"), "--to", "transformers", "--task", "motion"]
    assert main([*words, "--check"]) == 0
    shown = capsys.readouterr().out
    assert "VivitForVideoClassification of transformers" in shown
    assert "largest difference from transformers on random input: tokens " in shown
    assert ", logits " in shown
    assert main(words) == 1
    assert "there: has files" in capsys.readouterr().err


def test_a_difference_is_status_1(tmp_path, capsys, monkeypatch):
    random_model(VIT).save(tmp_path / "ours")
    other = random_model(replace(VIT, backbone=replace(SMALL, gelu="quick")))
    compare = peers.compare
    monkeypatch.setattr(peers, "compare", lambda folder, made, _, *rest: compare(folder, made, other._loaded(), *rest))
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "there"), "--to", "transformers", "--check"]) == 1
    assert "computes something else than Tubelet" in capsys.readouterr().err


def test_a_library_that_is_not_there_to_compare_with_is_said_before_anything_is_written(tmp_path, capsys, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    random_model(VIT).save(tmp_path / "ours")
    monkeypatch.setattr(peers, "import_module", missing)
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "there"), "--to", "timm", "--check"]) == 1
    assert "timm, to compare with, cannot be loaded (No module named 'timm'): pip install" in capsys.readouterr().err
    assert not (tmp_path / "there").exists()
