"""Starting a PolyViT (Sec. 4.3): all tokenizers and adaptors from an image ViT; one PolyViT from another."""

from dataclasses import replace

import pytest
import torch

from single_modality import AUDIO, IMAGE, SINGLE, SIZE, polyvit, randomized
from tubelet.models import Modality, PolyViTConfig
from tubelet.weights.files import WeightsError
from tubelet.weights.loaded import LoadedModel, build_model
from tubelet.weights.transfer import Init, InitReport, initialize_from

ALL = polyvit("image", "video", "audio", adaptors=2)


def start(config, source: LoadedModel, **options) -> tuple[LoadedModel, InitReport]:
    torch.manual_seed(1)
    model = build_model(config, {})
    return LoadedModel(model, config), initialize_from(source, model, config, Init(source="source", **options))


@torch.no_grad()
@pytest.mark.parametrize("adaptors", [0, 1, 3])
def test_an_image_vit_is_what_every_modality_starts_from(adaptors):
    """Of pictures, of their spectrogram-shaped copies and of videos that stand still, all see what the ViT sees."""
    size = {"image": (1, 4, 4), "audio": (1, 4, 4), "video": (2, 4, 4)}
    specs = {
        "image": IMAGE,
        "audio": replace(AUDIO, frames=16, bins=16),
        "video": replace(ALL.inputs["video"], frames=2),
    }
    specs["video"] = replace(specs["video"], size=(16, 16), short_side=16)
    modalities = {name: Modality(spec=specs[name], patch=patch) for name, patch in size.items()}
    config = PolyViTConfig(backbone=SIZE, modalities=modalities, adaptor_depth=adaptors)
    source = randomized(SINGLE["image"])
    made, report = start(config, source)
    assert not report.fresh
    assert not report.dropped
    encoder, picture = made.model.eval().encoder, torch.randn(2, 3, 16, 16)
    expected = source.model.eval().encoder({"image": picture}).tokens
    inputs = {"image": picture, "audio": picture, "video": picture[:, None].expand(-1, 2, -1, -1, -1)}
    for name, x in inputs.items():
        torch.testing.assert_close(encoder({name: x}).tokens, expected, rtol=0, atol=1e-5)


def test_every_parameter_is_accounted_for():
    made, report = start(ALL, randomized(SINGLE["image"]))
    told = [*report.loaded, *report.zeroed, *report.fresh]
    assert sorted(told) == sorted(name for name, _ in made.model.encoder.named_parameters())
    assert not report.fresh
    assert set(report.resized) == {
        "modalities.video.tokenizer.projection.weight (16, 48) to (16, 192)",
        "modalities.video.positions.table (17, 16) to (31, 16)",
        "modalities.audio.positions.table (17, 16) to (31, 16)",
    }
    assert not report.notes


def test_random_and_fresh_name_modalities():
    _, report = start(ALL, randomized(SINGLE["image"]), kernel="random", fresh=("modalities.audio.adaptor.*",))
    groups = {name.rpartition(".blocks.")[0] or name for name in report.fresh}
    tokenizers = {f"modalities.{m}.tokenizer.projection.{p}" for m in ALL.modalities for p in ("weight", "bias")}
    assert groups == {*tokenizers, "modalities.audio.adaptor"}


@pytest.mark.parametrize("adaptors", [2, 3])
def test_a_polyvit_starts_one_with_as_many_adaptors_or_more(adaptors):
    source = randomized(ALL)
    made, report = start(replace(ALL, adaptor_depth=adaptors), source)
    assert not report.fresh
    assert not report.dropped
    theirs, ours = source.model.state_dict(), made.model.state_dict()
    for modality in ALL.modalities:
        for i, block in enumerate(
            [f"modalities.{modality}.adaptor.blocks.{j}" for j in range(2)] + ["transformer.blocks.0"]
        ):
            kept = f"modalities.{modality}.adaptor.blocks.{i}" if i < adaptors else "transformer.blocks.0"
            for part in ("attention.qkv.weight", "mlp.3.bias"):
                torch.testing.assert_close(ours[f"encoder.{kept}.{part}"], theirs[f"encoder.{block}.{part}"])


def test_adaptors_that_differ_cannot_become_shared_layers():
    with pytest.raises(
        WeightsError, match=r"transformer.blocks.0.\S+ is one for all modalities, and would start from both"
    ):
        start(replace(ALL, adaptor_depth=1), randomized(ALL))
    only = polyvit("audio", adaptors=2)
    _, report = start(replace(ALL, adaptor_depth=0), randomized(only))
    assert not report.fresh


def test_modalities_that_the_model_has_not_are_dropped():
    _, report = start(polyvit("video", adaptors=2), randomized(ALL))
    assert report.dropped
    assert {name.split(".")[1] for name in report.dropped} == {"image", "audio"}


def test_models_of_one_modality_start_a_polyvit_and_each_other():
    for source in SINGLE.values():
        for target in (*SINGLE.values(), ALL):
            _, report = start(target, randomized(source))
            assert not report.fresh


def test_spectrograms_made_otherwise_are_a_note():
    other = replace(SINGLE["audio"], audio=replace(AUDIO, mean=-4.0))
    _, report = start(ALL, randomized(other))
    assert report.notes == ("the source was trained with spectrogram mean -4.0, the model has -5.3",)
