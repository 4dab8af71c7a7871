"""``tubelet weights``: the list, and what a folder, a file or something else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tubelet
from onnx_files import GraphFile
from tubelet.cli import main
from tubelet.models import ViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec
from tubelet.weights.catalog import CATALOG


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny ViT of two classes, as wide as a ViT-Ti."""
    torch.manual_seed(0)
    backbone = TransformerConfig(width=192, depth=12, heads=3, mlp=768)
    image = ImageSpec(size=(32, 32), short_side=32)
    path = tmp_path_factory.mktemp("weights") / "vit"
    tubelet.create_model(ViTConfig(backbone=backbone, image=image), num_classes=["cat", "dog"]).save(path)
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["weights", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_without_words_it_lists_formats_and_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights"]) == 0
    shown = capsys.readouterr().out
    assert "timm's ViTs" in shown
    assert "the plain ViT in an ONNX file" in shown
    assert "none was downloaded" in shown
    for one in CATALOG:
        assert f"hf:{one.name}" in shown
        assert one.license in shown
    listed = printed(capsys, "list", "--json")
    assert [row["name"] for row in listed["checkpoints"]] == [one.name for one in CATALOG]
    assert {row["medium"] for row in listed["checkpoints"]} == {"image", "video", "audio"}


def test_a_folder_of_ours_is_known_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "inspect", str(folder), "--json")
    assert (found["format"], found["model"]) == ("a model folder of Tubelet", "ViT, vit-ti/16")
    assert found["towers"] == {"image": "12 blocks of width 192, 3 heads, MLPs of 768; tokens of 16x16"}
    assert found["inputs"]["image"].endswith("cut from a short side of 32; mean 0.5, 0.5, 0.5, deviation 0.5, 0.5, 0.5")
    assert (found["classes"], found["tasks"]) == ({"label": ["cat", "dog"]}, {"label": "2 classes"})
    assert found["config"]["backbone"]["width"] == 192
    assert found["parameters"] == sum(x.numel() for x in tubelet.load(folder).parameters())
    assert {"vit-ti/16", "vivit-ti/16x2", "vivit-ti/16x2-fe", "ast-ti/16", "tubevit-ti/16"} <= set(found["starts"])
    assert not any("-b/" in name for name in found["starts"])
    assert main(["weights", "inspect", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "vivit-ti/16x2-fe" in shown
    assert "2 classes" in shown


def test_for_a_model_it_says_what_would_become_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = printed(capsys, "inspect", str(folder), "--for", "vivit-ti/16x2-fe", "--json")
    assert "encoder.spatial.cls" in report["loaded"]
    assert report["fresh"]
    assert all(name.startswith("encoder.temporal.") for name in report["fresh"])
    assert report["dropped"] == ["heads.label"]
    assert main(["weights", "inspect", str(folder), "--for", "vivit-ti/16x2-fe"]) == 0
    assert "left fresh: encoder.temporal" in capsys.readouterr().out


def test_what_does_not_fit_or_is_nothing_is_status_1(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "inspect", str(folder), "--for", "vit-s/16"]) == 1
    assert "does not fit the model" in capsys.readouterr().err
    assert main(["weights", "inspect", str(tmp_path / "nothing")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["weights", "inspect", str(folder), "--for", "vit-q/16"]) == 1
    assert "no model is called" in capsys.readouterr().err
    file = GraphFile()
    path = file.write(tmp_path / "relu.onnx", (0, 3, 32, 32), file.node("Relu", "picture"))
    assert main(["weights", "inspect", str(path)]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "no convolution cuts the picture that it takes into patches" in shown
