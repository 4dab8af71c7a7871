"""Starting TubeViT from an image ViT, from another TubeViT, and from both (Sec. 3.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tubelet.models import Model, ModelConfig, PolyViTConfig, TubeViTConfig, ViTConfig, ViViTConfig
from tubelet.models.polyvit import Modality
from tubelet.models.tubevit import Tube, scaled
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.folder import load_model, save_model
from tubelet.weights.loaded import build_model
from tubelet.weights.transfer import Init, InitReport, initialize

SMALL, LARGE = (
    TransformerConfig(width=12, depth=2, heads=2, mlp=16),
    TransformerConfig(width=24, depth=3, heads=3, mlp=32),
)
IMAGE = ImageSpec(size=(16, 16), short_side=16)
VIDEO = VideoSpec(frames=8, size=(16, 16), short_side=16)
TUBEVIT = TubeViTConfig(
    backbone=SMALL,
    image=IMAGE,
    video=VIDEO,
    patch=Tube(kernel=(1, 8, 8), stride=(4, 8, 8)),
    tubes=(
        Tube(kernel=(4, 4, 4), stride=(4, 8, 8), neighbors=(2, 1, 1)),
        Tube(kernel=(2, 4, 4), stride=(4, 8, 8), offset=(0, 4, 4)),
    ),
)
VIT = ViTConfig(backbone=LARGE, patch=(8, 8), image=IMAGE)


def saved(config: ModelConfig, folder: Path) -> str:
    model = build_model(config, {})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    save_model(folder, model, config, {})
    return str(folder)


def started(config: ModelConfig, inits: Sequence[Init]) -> tuple[Model, list[InitReport]]:
    model = build_model(config, {})
    return model, initialize(model, config, inits)


def of(folder: str) -> dict[str, Tensor]:
    return dict(load_model(folder).model.encoder.named_parameters())


@pytest.mark.parametrize("gate", [0, 2])
def test_an_image_vit_gives_all_but_tubes_gate_and_positions(tmp_path: Path, gate: int) -> None:
    source = saved(VIT, tmp_path / "vit")
    model, (report,) = started(replace(TUBEVIT, backbone=LARGE, gate=gate), [Init(source=source)])
    assert {name.split(".")[0] for name in report.fresh} == ({"tubes", "gate"} if gate else {"tubes"})
    assert report.dropped == ("encoder.positions.table",)
    theirs, ours = of(source), dict(model.encoder.named_parameters())
    assert torch.equal(ours["patches.kernels.0.projection.weight"], theirs["tokenizer.projection.weight"])
    assert torch.equal(ours["sequence.cls"], theirs["encoder.cls"])
    last = "transformer.blocks." + ("0" if gate else "2")
    assert torch.equal(ours[f"{last}.mlp.0.weight"], theirs["encoder.transformer.blocks.2.mlp.0.weight"])


def test_a_vits_layers_give_an_image_the_same_tokens(tmp_path: Path) -> None:
    """With the same positions a TubeViT that starts from a ViT is that ViT on images."""
    source = saved(VIT, tmp_path / "vit")
    model, _ = started(replace(TUBEVIT, backbone=LARGE, gate=1), [Init(source=source)])
    image = torch.randn(2, 3, 16, 16)
    vit, theirs = load_model(source).model.encoder, of(source)
    with torch.no_grad():
        table = theirs["encoder.positions.table"]
        table[0] = 0
        table[1:] = model.encoder.get_buffer("sequence.positions.image.table")
        vit.get_parameter("encoder.positions.table").copy_(table)
        features = model.eval().encoder({"image": image})
        torch.testing.assert_close(features.pooled, vit.eval()({"image": image}).pooled)


def test_two_sources_are_the_scaling_method(tmp_path: Path) -> None:
    """The layers of a large image ViT and the tubes of a small TubeViT; nothing is left to train but the gate."""
    large, small = saved(VIT, tmp_path / "vit"), saved(TUBEVIT, tmp_path / "small")
    config = scaled(replace(TUBEVIT, backbone=LARGE), TUBEVIT, gate=2)
    model, reports = started(config, [Init(source=large), Init(source=small, into="video")])
    theirs, ours = of(small), dict(model.encoder.named_parameters())
    assert reports[1].loaded == tuple(name for name in theirs if name.startswith("tubes."))
    assert all(torch.equal(ours[name], theirs[name]) for name in reports[1].loaded)
    assert {*reports[0].loaded, *reports[1].loaded, "gate.alpha"} == {*ours}
    assert "video initialized from" in str(reports[1])


def test_a_tubevit_starts_another_whatever_its_gate(tmp_path: Path) -> None:
    source = saved(replace(TUBEVIT, gate=1), tmp_path / "source")
    model, (report,) = started(replace(TUBEVIT, video=replace(VIDEO, frames=16)), [Init(source=source)])
    theirs, ours = of(source), dict(model.encoder.named_parameters())
    assert not report.fresh
    assert report.dropped == ("gate.alpha",)
    weight = "blocks.0.attention.qkv.weight"
    assert torch.equal(ours[f"transformer.{weight}"], theirs[f"before.{weight}"])
    assert torch.equal(ours["tubes.kernels.1.projection.weight"], theirs["tubes.kernels.1.projection.weight"])


def test_an_image_vit_gives_learned_positions_and_leaves_added_layers_fresh(tmp_path: Path) -> None:
    """Tables 7a and 8: the patch's table is the ViT's, of every frame that it cuts."""
    source = saved(VIT, tmp_path / "vit")
    config = replace(TUBEVIT, backbone=LARGE, positions="learned", added=1)
    model, (report,) = started(config, [Init(source=source)])
    theirs, ours = of(source), dict(model.encoder.named_parameters())
    assert torch.equal(ours["sequence.learned.0.table"], theirs["encoder.positions.table"][1:].repeat(2, 1))
    fresh = {name.rpartition(".kernels")[0] or name for name in report.fresh}
    assert {name.split(".")[0] for name in fresh} == {"tubes", "sequence", "transformer"}
    assert {name for name in fresh if "learned" in name} == {"sequence.learned.1.table", "sequence.learned.2.table"}


def test_a_tubevit_starts_one_with_what_it_has_not(tmp_path: Path) -> None:
    source = saved(TUBEVIT, tmp_path / "source")
    for other in ({"added": 1}, {"positions": "learned"}, {"positions": "relative"}):
        _, (report,) = started(replace(TUBEVIT, **other), [Init(source=source)])
        assert len(report.loaded) == len(of(source))
        assert report.fresh
    patches = saved(replace(TUBEVIT, tubes=()), tmp_path / "patches")
    _, (report,) = started(TUBEVIT, [Init(source=patches)])
    assert {name.split(".")[0] for name in report.fresh} == {"tubes"}


@pytest.mark.parametrize(
    "source",
    [
        ViViTConfig(backbone=LARGE, tubelet=(2, 8, 8), video=VIDEO),
        PolyViTConfig(
            backbone=LARGE,
            modalities={
                "image": Modality(spec=IMAGE, patch=(1, 8, 8)),
                "video": Modality(spec=VIDEO, patch=(2, 8, 8)),
            },
        ),
    ],
)
def test_models_of_one_stack_start_it_too(tmp_path: Path, source: ModelConfig) -> None:
    model, (report,) = started(replace(TUBEVIT, backbone=LARGE), [Init(source=saved(source, tmp_path / "source"))])
    assert {name.split(".")[0] for name in report.fresh} == {"tubes"}
    assert model.encoder.eval()({"video": torch.randn(1, 8, 3, 16, 16)}).pooled.isfinite().all()


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    large, small = saved(VIT, tmp_path / "vit"), saved(TUBEVIT, tmp_path / "small")
    wide = replace(TUBEVIT, backbone=LARGE)
    with pytest.raises(WeightsError, match="has nothing for 'video' of a TubeViT"):
        started(wide, [Init(source=large, into="video")])
    with pytest.raises(WeightsError, match=r"tubes.kernels.0.projection.weight is \(6, 192\) in the source and \(12,"):
        started(wide, [Init(source=small, into="video")])
    with pytest.raises(WeightsError, match="2 heads, the model's 3"):
        started(wide, [Init(source=small)])
    with pytest.raises(WeightsError, match="holds a TubeViT, which cannot start a ViT"):
        started(VIT, [Init(source=small)])
