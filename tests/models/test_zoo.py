"""What every model of the library keeps, whatever its paper."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import zoo
from tubelet.configs import from_json, to_json
from tubelet.models import SIZES, ModelConfig, TokenLearnerConfig, ViViTConfig, list_models, model_config
from tubelet.nn.attention import capture_attention
from tubelet.nn.depth import set_stochastic_depth
from zoo import SMALL, VIDEO, ZOO, build, example, larger, noisy

every_model = pytest.mark.parametrize("config", ZOO.values(), ids=ZOO.keys())


@every_model
def test_features_have_the_promised_shapes(config: ModelConfig) -> None:
    model = build(config).eval()
    features = model.encoder(example(config))
    batch, tokens, _ = features.tokens.shape
    assert batch == 2
    assert features.pooled.shape == (2, model.encoder.width)
    if isinstance(config, TokenLearnerConfig) and not config.fuse:
        assert features.boxes is None  # learned tokens have no place
    else:
        assert features.boxes is not None
        assert features.boxes.shape == (tokens, 3, 2)
        assert (features.boxes[..., 1] > features.boxes[..., 0]).all()
    assert model(example(config), "task").shape == (2, 5)


@every_model
def test_gradients_reach_every_parameter(config: ModelConfig) -> None:
    model = build(config).train()
    model(example(config), "task").square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not without


@every_model
def test_eval_is_deterministic_whatever_drops_in_training(config: ModelConfig) -> None:
    model = build(noisy(config)).eval()
    x = example(config)
    first = model(x, "task")
    assert torch.equal(first, model(x, "task"))
    model.train()
    assert not torch.equal(first, model(x, "task"))


@every_model
def test_examples_of_a_batch_do_not_touch_each_other(config: ModelConfig) -> None:
    model = build(config).eval()
    x = example(config)
    alone = model({name: value[:1] for name, value in x.items()}, "task")
    torch.testing.assert_close(model(x, "task")[:1], alone, atol=1e-5, rtol=1e-5)


@every_model
def test_state_dict_and_config_round_trip(config: ModelConfig) -> None:
    model, x = build(config).eval(), example(config)
    again = build(from_json(ModelConfig, to_json(config))).eval()
    for parameter in again.parameters():
        torch.nn.init.zeros_(parameter)
    again.load_state_dict(model.state_dict())
    assert torch.equal(model(x, "task"), again(x, "task"))


@every_model
def test_attention_maps_are_distributions_and_leave_the_features_alone(config: ModelConfig) -> None:
    model, x = build(config).eval(), example(config)
    with capture_attention(model) as maps:
        features = model.encoder(x)
    assert maps
    for name, weights in maps.items():
        assert name.startswith("encoder.")
        assert weights.shape[0] % 2 == 0, name
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert torch.equal(features.pooled, model.encoder(x).pooled)
    assert len(maps) == len({name.partition(":")[0] for name in maps}) or "shared" in " ".join(maps)


@every_model
def test_another_clip_size_is_taken_by_interpolation(config: ModelConfig) -> None:
    model = build(config).eval()
    x = larger(config)
    assert model(x, "task", interpolate=True).isfinite().all()
    if list(x) != ["text"]:
        with pytest.raises(ValueError, match="interpolate=True"):
            model(x, "task")


def test_stochastic_depth_can_be_set_per_task() -> None:
    model = build(ZOO["model1"]).train()
    x = example(ZOO["model1"])
    assert torch.equal(model(x, "task"), model(x, "task"))
    set_stochastic_depth(model.encoder, 0.9)
    drawn = {tuple(model(x, "task").flatten().tolist()) for _ in range(20)}
    assert len(drawn) > 1
    set_stochastic_depth(model.encoder, 0.0)
    assert torch.equal(model(x, "task"), model(x, "task"))
    with pytest.raises(ValueError, match=r"rate=1\.5"):
        set_stochastic_depth(model.encoder, 1.5)


ONE_OF_EACH = list({config.variant: name for name, config in reversed(ZOO.items())}.values())


@pytest.mark.parametrize("names", [ONE_OF_EACH, pytest.param(list(ZOO), marks=pytest.mark.slow)], ids=["kinds", "all"])
def test_compiles_without_graph_breaks(names: list[str]) -> None:
    # In a process of its own: the type-checking hook of the tests breaks full graphs.
    script = Path(zoo.__file__).with_name("compile_zoo.py")
    result = subprocess.run([sys.executable, script, *names], capture_output=True, text=True, cwd=script.parent)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.split() == names


@pytest.mark.parametrize("name", list_models())
def test_names_round_trip(name: str) -> None:
    assert model_config(name).name == name


def test_a_config_that_no_name_says_has_none() -> None:
    assert ZOO["model1"].name is None
    named = model_config("vivit-b/16x2-fe")
    assert isinstance(named, ViViTConfig)
    assert replace(named, temporal_depth=8).name is None
    assert replace(named, backbone=replace(named.backbone, dropout=0.1)).name == "vivit-b/16x2-fe"


@pytest.mark.parametrize(
    "name",
    [
        "vivit-b/16",
        "vit-b/16x2",
        "vivit-xl/16x2",
        "resnet50",
        "vivit-b/16x2-foo",
        "",
        "mtv-b/2+s/4-foo",
        "mtv-b/4-late",
        "mtv-b/16x2",
        "mbt-b/16",
        "mtv-b+s",
    ],
)
def test_a_wrong_name_is_told_with_examples(name: str) -> None:
    with pytest.raises(ValueError, match="vivit-b/16x2-fe"):
        model_config(name)


def test_streams_may_stand_in_any_order_but_not_be_alike() -> None:
    assert model_config("MTV-Ti/8+B/2+S/4") == model_config("mtv-b/2+s/4+ti/8")
    with pytest.raises(ValueError, match="two streams have one tubelet length"):
        model_config("mtv-b/4+s/4")
    with pytest.raises(ValueError, match="must be multiples of the fewest"):
        model_config("mtv-b/2+s/4", frames=18)


def test_size_and_frames_replace_the_papers() -> None:
    config = model_config("vivit-b/16x2", frames=64, size=320)
    assert isinstance(config, ViViTConfig)
    assert (config.video.frames, config.video.size) == (64, (320, 320))
    assert config.video.short_side >= 320


def test_impossible_configs_are_refused_with_the_value() -> None:
    with pytest.raises(ValueError, match='pool must be "mean"'):
        ViViTConfig(backbone=SMALL, tubelet=(2, 8, 8), video=VIDEO, attention_type="factorized_self_attention")
    with pytest.raises(ValueError, match=r"heads=3"):
        ViViTConfig(backbone=SIZES["ti"], attention_type="factorized_dot_product", pool="mean")
    with pytest.raises(ValueError, match="smaller than one tubelet"):
        ViViTConfig(backbone=SMALL, tubelet=(8, 8, 8), video=VIDEO)
    with pytest.raises(ValueError, match="must start with 1"):
        ViViTConfig(backbone=SMALL, tubelet=(2, 8, 8), video=VIDEO, sampled_frames=2)
