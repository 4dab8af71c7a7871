"""Pictures of learned patches and tubes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tubelet.models import ModelConfig
from tubelet.reports.kernels import learned_kernels
from tubelet.reports.pictures import kernels_picture
from tubelet.reports.report import write_report
from tubelet.weights.folder import load_model, save_model
from tubelet.weights.loaded import build_model
from zoo import ZOO


def saved(config: ModelConfig, folder: Path) -> Path:
    save_model(folder, build_model(config, {}), config, {})
    return folder


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "tubevit",
            {
                "patches.kernels.0": (16, 1, 8, 8, 3),
                "tubes.kernels.0": (8, 2, 4, 4, 3),
                "tubes.kernels.1": (4, 4, 2, 2, 3),
            },
        ),
        ("model1", {"tokenizer": (16, 2, 8, 8, 3)}),
        ("ast", {}),
        ("vatt", {"modalities.video.tokenizer": (16, 2, 8, 8, 3)}),
    ],
)
def test_kernels_of_what_is_seen(tmp_path: Path, name: str, shapes: dict[str, tuple[int, ...]]) -> None:
    found = learned_kernels(saved(ZOO[name], tmp_path / "model"))
    assert {name: kernel.shape for name, kernel in found.items()} == shapes


def test_a_kernel_is_what_multiplies_the_pixels(tmp_path: Path) -> None:
    folder = saved(ZOO["tubevit"], tmp_path / "model")
    kernel = learned_kernels(folder)["patches.kernels.0"]
    encoder = load_model(folder).model.encoder
    video = torch.randn(1, 1, 3, 8, 8)
    tokens = encoder.get_submodule("patches")(video)[0, 0] - encoder.get_parameter("patches.kernels.0.projection.bias")
    expected = np.einsum("dthwc,tchw->d", kernel, video[0].numpy())
    np.testing.assert_allclose(tokens.detach().numpy(), expected, atol=1e-5)


def test_the_strongest_component_comes_first_and_time_runs_to_the_right() -> None:
    kernels = np.zeros((3, 2, 8, 8, 3), np.float32)
    kernels[0], kernels[1] = 0.1, -0.2  # the same, but for a factor
    kernels[2, 0, ..., 0], kernels[2, 1, ..., 2] = 5, -5  # red, then the opposite of blue
    (panel,) = kernels_picture({"tokenizer": kernels}, rows=2).axes
    pixels = np.asarray(panel.get_images()[0].get_array())
    np.testing.assert_allclose(pixels[4, 4], (1, 0.5, 0.5, 1), atol=1e-5)
    np.testing.assert_allclose(pixels[4, 13], (0.5, 0.5, 0, 1), atol=1e-5)
    np.testing.assert_allclose(pixels[13, 4], (1, 1, 1, 1), atol=1e-5)  # each is scaled by its largest weight
    assert pixels[4, 8, 3] == 0, "a gap between frames"
    assert panel.get_title() == "2x8x8"


def test_flow_is_red_and_green() -> None:
    kernels = np.zeros((2, 1, 4, 4, 2), np.float32)
    kernels[0, ..., 0], kernels[1, ..., 1] = 3, -1
    (panel,) = kernels_picture({"flow": kernels}, rows=2).axes
    pixels = np.asarray(panel.get_images()[0].get_array())
    np.testing.assert_allclose(pixels[2, 2], (1, 0.5, 0.5, 1), atol=1e-5)
    np.testing.assert_allclose(pixels[7, 2], (0.5, 1, 0.5, 1), atol=1e-5)


def test_a_report_shows_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    saved(ZOO["tubevit"], run / "model")
    (run / "results.json").write_text(json.dumps({"tasks": {}}))
    page = write_report(run).read_text()
    assert "<h2>Learned patches and tubes</h2>" in page
    assert ">4x2x2<" in page
