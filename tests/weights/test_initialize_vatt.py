"""Starting VATT from itself at another size, from an image ViT, and one of its towers from all of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from single_modality import SINGLE, SIZE, randomized
from tubelet.models import Model, ModelConfig, VattConfig
from tubelet.models.vatt import Sense, Words
from tubelet.nn.axial_positions import resize_table
from tubelet.specs import ImageSpec, TextSpec, VideoSpec, WaveformSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import save_model
from tubelet.weights.loaded import build_model
from tubelet.weights.transfer import Init, InitReport, initialize

VIDEO = VideoSpec(frames=8, size=(16, 16), short_side=16)
VATT = VattConfig(
    modalities={
        "video": Sense(spec=VIDEO, patch=(4, 4, 4), backbone=SIZE),
        "audio": Sense(spec=WaveformSpec(samples=96), patch=(1, 1, 16), backbone=SIZE),
        "text": Words(spec=TextSpec(captions=2, words=4, ids=20), backbone=replace(SIZE, width=8), vectors=6),
    }
)
AGNOSTIC = replace(
    VATT,
    modalities={**VATT.modalities, "text": replace(VATT.modalities["text"], backbone=SIZE)},
    projection=12,
)


def started(config: ModelConfig, source: ModelConfig, path: Path, **options: str) -> tuple[Model, Model, InitReport]:
    made = randomized(source)
    save_model(path, made.model, source, {})
    model = build_model(config, {})
    (report,) = initialize(model, config, [Init(source=str(path), **options)])
    return made.model, model, report


@pytest.mark.parametrize("source", [VATT, AGNOSTIC], ids=["towers", "agnostic"])
@pytest.mark.parametrize("name", ["video", "audio", "text"])
def test_one_tower_starts_from_its_own_and_computes_the_same(tmp_path: Path, source: VattConfig, name: str) -> None:
    old, new, report = started(source.with_only([name]), source, tmp_path)
    spec = source.inputs[name]
    x = torch.randint(20, (2, 2, 4)) if name == "text" else torch.randn(2, *spec.shape)
    expected = old.eval().encoder({name: x}).parts[name].pooled
    torch.testing.assert_close(new.eval().encoder({name: x}).parts[name].pooled, expected)
    assert not report.fresh


def test_positions_are_resized_by_the_spline_for_larger_pictures_and_images(tmp_path: Path) -> None:
    larger = VATT.with_inputs({**VATT.inputs, "video": replace(VIDEO, size=(24, 24), short_side=24)})
    old, new, report = started(larger, VATT, tmp_path / "a")
    axes = "modalities.video.positions.axes."
    for axis, places in {"time": 2, "height": 6, "width": 6}.items():
        table = old.encoder.get_parameter(f"{axes}{axis}.table")
        torch.testing.assert_close(
            new.encoder.get_parameter(f"{axes}{axis}.table"), resize_table(table.double(), places).float()
        )
    assert len(report.resized) == 2
    old, new, _ = started(VATT.for_images(ImageSpec(size=(16, 16), short_side=16)), VATT, tmp_path / "b")
    time = new.encoder.get_parameter("modalities.image.positions.axes.time.table")
    torch.testing.assert_close(time, old.encoder.get_parameter(f"{axes}time.table")[:1])


@pytest.mark.parametrize("config", [VATT, AGNOSTIC], ids=["towers", "agnostic"])
def test_an_image_vit_starts_the_blocks_and_patches_and_leaves_words_waves_and_positions(
    tmp_path: Path, config: VattConfig
) -> None:
    old, new, report = started(config, SINGLE["image"], tmp_path)
    stack = "shared" if config.shared else "modalities.{}.transformer"
    theirs = old.encoder.get_parameter("encoder.transformer.blocks.1.mlp.0.weight")
    for name in ("video", "audio"):
        assert torch.equal(new.encoder.get_parameter(f"{stack.format(name)}.blocks.1.mlp.0.weight"), theirs)
    kernel = new.encoder.get_parameter("modalities.video.tokenizer.projection.weight").unflatten(1, (3, 4, 16))
    image = old.encoder.get_parameter("tokenizer.projection.weight").unflatten(1, (3, 16))
    assert torch.equal(kernel[:, :, 2], image), "the central frame"
    fresh = " ".join(report.fresh)
    for part in ("text.words", "audio.tokenizer", "video.positions", "audio.positions"):
        assert f"modalities.{part}" in fresh


def test_sound_alone_starts_from_an_image_vit(tmp_path: Path) -> None:
    _, _, report = started(VATT.with_only(["audio"]), SINGLE["image"], tmp_path)
    assert any("blocks.2" in name for name in report.loaded)
    assert {name for name in report.dropped if name.startswith("tokenizer")}


def test_what_is_apart_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="start it from one modality"):
        started(AGNOSTIC, VATT, tmp_path)
