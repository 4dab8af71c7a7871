"""A family from outside the library, in one file, works everywhere, and a model folder chooses no code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tubelet
from folders import manifest
from tubelet.cli import main
from tubelet.configs import ConfigError, registered
from tubelet.models import ModelConfig, ViTConfig, list_models, model_config
from tubelet.plugins import load_plugin
from tubelet.specs import ImageSpec
from tubelet.weights.files import WeightsError
from zoo import SMALL, ZOO, example

PAPERS = Path(__file__).parents[1] / "examples" / "add_a_paper"
FILE = PAPERS / "xvit.py"


def test_its_names_work_as_any_others():
    assert "xvit-s/16" in list_models("xvit*")
    config = model_config("xvit-b/16", frames=12)
    assert config.inputs["video"].frames == 12
    assert config.name == "xvit-b/16"


@pytest.mark.parametrize("family", ["timesformer", "xvit"])
def test_it_starts_from_an_image_model_and_sees_every_frame_as_that_does(tmp_path, family):
    torch.manual_seed(0)
    image = tubelet.create_model(ViTConfig(backbone=SMALL, patch=(8, 8), image=ImageSpec(size=(16, 24), short_side=16)))
    with torch.no_grad():
        for parameter in image.parameters():
            parameter.normal_(std=0.3)
    image.save(tmp_path / "image")
    video = tubelet.create_model(ZOO[family], weights=tmp_path / "image").eval()
    report = str(video.started_from)
    assert "time.table" in report.partition("left fresh: ")[2]
    assert "dropped" not in report
    with torch.no_grad():
        video.encoder.time.table.zero_()
        still = example(ZOO[family])["video"][:, :1].expand(-1, 6, -1, -1, -1)
        expected = image.eval().forward_features(still[:, 0]).tokens
        tokens = video.forward_features(still).tokens.unflatten(1, (6, -1))
    for t in range(6):
        torch.testing.assert_close(tokens[:, t], expected, atol=1e-4, rtol=1e-4)


def test_rollout_of_divided_attention_is_the_product_of_its_layers():
    config = ZOO["timesformer"]
    torch.manual_seed(0)
    model = tubelet.create_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        with tubelet.capture_attention(model.encoder) as maps:
            model(example(config)["video"])
    t, n = 6, 6
    total = torch.eye(t * (1 + n))
    for time, space in zip(list(maps.values())[::2], list(maps.values())[1::2], strict=True):
        over_time, over_space = torch.eye(t * (1 + n)), torch.zeros(t * (1 + n), t * (1 + n))
        for place in range(n):
            rows = torch.arange(t) * (1 + n) + 1 + place
            over_time[rows[:, None], rows] = (torch.eye(t) + time[place].mean(0)) / 2
        for frame in range(t):
            rows = torch.arange(1 + n) + frame * (1 + n)
            over_space[rows[:, None], rows] = (torch.eye(1 + n) + space[frame].mean(0)) / 2
        classes = torch.arange(t) * (1 + n)
        over_space[classes] = over_space[classes].mean(0, keepdim=True)
        total = over_space @ over_time @ total
    expected = total[0].unflatten(0, (t, 1 + n))[:, 1:]
    shares = config.rollout(maps, "video")[0].flatten(1)
    torch.testing.assert_close(shares, expected / expected.sum(), atol=1e-6, rtol=1e-5)


def test_rollout_of_mixing_attention_is_the_product_of_its_layers():
    config = ZOO["xvit"]
    torch.manual_seed(0)
    model = tubelet.create_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        with tubelet.capture_attention(model.encoder) as maps:
            model(example(config)["video"])
    t, m = 6, 1 + 6
    mixed = config.mixed_channels / (config.backbone.width / config.backbone.heads)
    total = torch.eye(t * m)
    for layer in range(2):
        over = torch.zeros(t, m, t, m)
        for frame, weights in enumerate(maps[f"transformer.blocks.{layer}.attention"][:t].mean(1)):
            for source, share in ((frame, 1 - 2 * mixed), (max(frame - 1, 0), mixed), (min(frame + 1, t - 1), mixed)):
                over[frame, :, source] += share * weights
        total = (torch.eye(t * m) + over.flatten(2).flatten(0, 1)) / 2 @ total
    time = ((torch.eye(1 + t) + maps["temporal.blocks.0.attention"][0].mean(0)) / 2)[0, 1:]
    expected = (time / time.sum()) @ total.unflatten(0, (t, m))[:, 0].unflatten(1, (t, m))[:, :, 1:].flatten(1)
    shares = config.rollout(maps, "video")[0].flatten()
    torch.testing.assert_close(shares, expected / expected.sum(), atol=1e-6, rtol=1e-5)


def test_a_frame_sees_one_neighbor_further_with_each_layer():
    config = ZOO["xvit"]
    torch.manual_seed(0)
    model = tubelet.create_model(config).eval()
    video = example(config)["video"][:1]
    changed = video.clone()
    changed[:, 5] += 1.0
    with torch.no_grad():
        tokens, others = (model.forward_features(x).tokens.unflatten(1, (6, -1)) for x in (video, changed))
    moved = (tokens - others).abs().amax((0, 2, 3))
    assert (moved[:3] == 0).all()  # two layers: frames 3 and 4 see frame 5
    assert (moved[3:] > 0).all()


def test_the_command_line_trains_evaluates_predicts_and_explains_it(tmp_path, capsys, monkeypatch):
    data = manifest(tmp_path / "clips.csv", 1.0, 8)
    monkeypatch.chdir(tmp_path)
    plugin = ["--plugin", str(FILE)]
    assert main([*plugin, "cost", "xvit-b/16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 16 * 197
    flags = ["--model", "xvit-ti/16", "--epochs", "1", "--no-baseline", "--model.backbone.depth", "1"]
    assert main([*plugin, "train", "folder", data, "--out", "run", *flags]) == 0
    assert json.loads((tmp_path / "run" / "model" / "tubelet.json").read_text())["model"]["kind"] == "xvit"
    assert main([*plugin, "eval", "run", "--views", "2x3", "--json"]) == 0
    clip = next(tmp_path.rglob("*.mp4"))
    assert main([*plugin, "predict", "run", str(clip), "--json"]) == 0
    explanation = tubelet.load(tmp_path / "run").explain(clip)
    assert explanation.shares.sum() == pytest.approx(1, abs=1e-5)


def test_a_model_folder_names_a_family_and_never_code(tmp_path):
    model = tubelet.create_model(ViTConfig(backbone=SMALL, patch=(8, 8), image=ImageSpec(size=(16, 16), short_side=16)))
    model.save(tmp_path / "hostile")
    card = tmp_path / "hostile" / "tubelet.json"
    (tmp_path / "evil.py").write_text("raise SystemExit('this ran')")
    for kind in ("evil.Model", "tests.evil", str(tmp_path / "evil.py"), "os.system", "unheard-of"):
        data = json.loads(card.read_text())
        data["model"]["kind"] = kind
        card.write_text(json.dumps(data))
        with pytest.raises(WeightsError, match=r"no kind .* plugin"):
            tubelet.load(tmp_path / "hostile")


def test_a_plugin_that_is_not_there_and_a_name_that_is_taken(tmp_path, capsys):
    assert main(["--plugin", "nowhere.py", "cost", "vit-b/16"]) == 2
    assert "nowhere.py: no such Python file" in capsys.readouterr().err
    assert main(["cost", "vit-b/16", "--plugin"]) == 2
    (tmp_path / "other.py").write_text(
        "from dataclasses import dataclass\n"
        "from tubelet.configs import register\n"
        "from tubelet.models import ModelConfig, ViTConfig\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Other(ViTConfig):\n    pass\n"
        "register(ModelConfig, 'vit', Other)\n"
    )
    with pytest.raises(ValueError, match=r"'vit' is tubelet\.models\.vit\.ViTConfig already"):
        load_plugin(tmp_path / "other.py")
    load_plugin(FILE)  # again: the same family
    assert registered(ModelConfig)["xvit"].__name__ == "XViTConfig"
    with pytest.raises(ConfigError, match="no such Python file"):
        load_plugin(tmp_path)
