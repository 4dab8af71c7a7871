"""MTV's recipes say what the released configurations say, and build without the data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tubelet.configs import ConfigError, from_json, override, to_json
from tubelet.data.views import Views
from tubelet.models import Model, ViTConfig
from tubelet.models.mtv import CrossViewFusion, MTVConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.recipes import mtv, recipes
from tubelet.recipes.mtv import BASE, HUGE, LARGE
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.training.experiment import SGD, Experiment, Length, Task
from tubelet.weights.folder import save_model
from tubelet.weights.transfer import initialize

OURS = ("mtv.ablation", "mtv.epic_kitchens_multimodal")
MTV = {
    name.removeprefix("mtv."): recipe
    for name, recipe in recipes().items()
    if name.startswith("mtv.") and name not in OURS
}

# Model, learning rate, epochs, batch size, frames and stride, stochastic depth, label smoothing, mixup, layers and
# magnitude of RandAugment, views
RELEASED: dict[str, tuple[Any, ...]] = {
    "kinetics400_b": (BASE, 0.1, 30, 64, (32, 2), 0.1, 0, 0, (0, 0), Views(4, 3)),
    "kinetics600_b": (BASE, 0.2, 30, 64, (32, 2), 0.1, 0, 0, (0, 0), Views(4, 3)),
    "kinetics600_l": (LARGE, 0.1, 30, 64, (32, 2), 0.1, 0, 0, (0, 0), Views(4, 3)),
    "kinetics700_b": (BASE, 0.1, 30, 64, (32, 2), 0, 0, 0, (0, 0), Views(4, 3)),
    "kinetics700_l": (LARGE, 0.1, 30, 64, (32, 2), 0.1, 0, 0, (0, 0), Views(4, 3)),
    "moments_in_time_l": (LARGE, 0.2, 20, 256, (32, 3), 0.1, 0, 0.2, (0, 0), Views(1, 3)),
    "epic_kitchens_b": (BASE, 0.2, 80, 128, (64, 1), 0.1, 0.2, 0, (3, 10), Views(4, 1)),
    "ssv2_b": (BASE, 0.2, 60, 256, (48, 1), 0.1, 0.2, 0.3, (1, 15), Views(4, 3)),
}
# Those of the slides that were not released are trained as MTV-L is.
SLIDES: dict[str, tuple[Any, ...]] = {
    "kinetics400_l": RELEASED["kinetics600_l"],
    "kinetics400_h": (HUGE, *RELEASED["kinetics600_l"][1:]),
    "kinetics600_h": (HUGE, *RELEASED["kinetics600_l"][1:]),
    "kinetics700_h": (HUGE, *RELEASED["kinetics700_l"][1:]),
    "moments_in_time_h": (HUGE, *RELEASED["moments_in_time_l"][1:]),
}


def only_task(experiment: Experiment) -> Task:
    (task,) = experiment.tasks.values()
    return task


def model_of(experiment: Experiment) -> MTVConfig:
    assert isinstance(experiment.model, MTVConfig)
    return experiment.model


def video_of(experiment: Experiment) -> VideoSpec:
    video = experiment.model.inputs["video"]
    assert isinstance(video, VideoSpec)
    return video


def shrunk(experiment: Experiment, widths: dict[str, int]) -> Experiment:
    """With streams of these widths, and pictures of 32 x 32 pixels."""
    changes: dict[str, Any] = {"model.global_encoder.width": sum(widths.values()), "model.global_encoder.mlp": 16}
    for name, width in widths.items():
        at = f"model.streams.{name}.backbone"
        changes |= {f"{at}.width": width, f"{at}.heads": 2, f"{at}.mlp": 16}
    for name, spec in experiment.model.inputs.items():
        if isinstance(spec, VideoSpec):
            changes |= {f"model.media.{name}.size": "32,32", f"model.media.{name}.short_side": 32}
    return override(experiment, changes)


def small_vit(folder: Path, width: int) -> Path:
    config = ViTConfig(
        backbone=TransformerConfig(width=width, depth=12, heads=2, mlp=16),
        patch=(16, 16),
        image=ImageSpec(size=(32, 32), short_side=32),
    )
    save_model(folder, Model(config.build(), {}), config, {})
    return folder


def test_every_released_configuration_is_a_recipe() -> None:
    assert set(MTV) == set(RELEASED | SLIDES)


@pytest.mark.parametrize("name", MTV)
def test_a_recipe_has_the_hyper_parameters_of_its_configuration(name: str) -> None:
    experiment = MTV[name]()
    task, video = only_task(experiment), video_of(experiment)
    augment, objective = task.augment, task.objective
    row = (
        experiment.model.name,
        task.learning_rate,
        task.length.epochs,
        task.batch_size,
        (video.frames, video.stride),
        task.stochastic_depth,
        objective.smoothing,
        objective.mixup.alpha,
        (augment.randaugment_layers, augment.randaugment_magnitude),
        task.views,
    )
    assert row == (RELEASED | SLIDES)[name]
    assert (augment.color, augment.grayscale) == ((0, 0) if augment.randaugment_layers else (0.8, 0.1))
    assert (augment.scale_jitter, augment.min_scale, augment.max_scale, augment.flip) == (1.0, 0.9, 1.33, 0.5)
    assert (task.warmup, experiment.optimizer) == (Length(epochs=2.5), SGD(momentum=0.9))
    assert (experiment.training.decay, experiment.training.clip_norm) == ("cosine", 1)
    assert (video.size, video.short_side) == ((224, 224), 256)


@pytest.mark.parametrize("name", MTV)
def test_the_model_is_the_released_one(name: str) -> None:
    """Or, where it is Huge, the slides', put together by the same rules."""
    model = model_of(MTV[name]())
    large = not name.endswith("_b")
    layers, width = {"b": ((5, 11), 1344), "l": ((11, 23), 2368), "h": ((15, 31), 2624)}[name[-1]]
    assert model.fusion == CrossViewFusion(layers=layers)
    assert list(model.streams.values()) == sorted(model.streams.values(), key=lambda stream: -stream.tubelet[0])
    assert [stream.tubelet[0] for stream in model.streams.values()] == ([16, 8, 4, 2] if large else [8, 4, 2])
    outer = model.global_encoder
    assert (outer.width, outer.depth, outer.heads, outer.mlp) == (width, 12, 8, 3072)
    assert (model.merge, model.pool) == ("channel", "token")
    assert all(size.rescale_depth for size in (outer, *(stream.backbone for stream in model.streams.values())))


@pytest.mark.parametrize("name", ["kinetics400_b", "kinetics600_b", "epic_kitchens_b", "ssv2_b"])
def test_larger_pixels_change_the_crop_alone(name: str) -> None:
    small, large = MTV[name](), MTV[name](size=320)
    assert (video_of(large).size, video_of(large).short_side) == ((320, 320), 366)
    assert (large.tasks, model_of(large).streams) == (small.tasks, model_of(small).streams)


def test_an_image_vit_starts_every_stream_or_one_mtv_all_of_them() -> None:
    inits = mtv.kinetics400_b(init=("b", "s", "ti")).init
    streams = model_of(mtv.kinetics400_b()).streams
    assert [(init.source, streams[init.into].tubelet[0]) for init in inits] == [("b", 2), ("s", 4), ("ti", 8)]
    assert {init.kernel for init in inits} == {"central"}
    assert [(init.source, init.into) for init in mtv.kinetics400_b(init=("runs/mtv",)).init] == [("runs/mtv", "")]
    assert [(init.source, init.into) for init in mtv.ssv2_b(init="runs/mtv").init] == [("runs/mtv", "")]
    with pytest.raises(ConfigError, match="init: 2 image ViTs for the 3 streams"):
        mtv.kinetics400_b(init=("b", "s"))


def test_every_row_of_the_slides_is_a_name() -> None:
    """Each name in the docstring is a model, fused as its suffix says, and trained as MTV-B is on Kinetics 400."""
    usual = mtv.kinetics400_b().tasks
    text = (mtv.ablation.__doc__ or "").replace("...-", "mtv-b/4+s/8+ti/16-")
    rows = re.findall(r"(mtv-\S+) +\d\d\.\d", text)
    assert len(set(rows)) == 14
    for name in rows:
        experiment = mtv.ablation(model=name)
        assert (experiment.model.name, experiment.tasks) == (name, usual)
    assert model_of(mtv.ablation(model="mtv-b/4")).fusion is None


def test_one_image_vit_starts_a_single_stream(tmp_path: Path) -> None:
    source = str(small_vit(tmp_path / "vit", 16))
    experiment = shrunk(mtv.ablation(model="mtv-b/4", init=(source,)), {"b4": 16})
    model = Model(experiment.model.build(), {})
    (report,) = initialize(model, experiment.model, experiment.init)
    assert "streams.b4.stack.blocks.0.attention.qkv.weight" in report.loaded


def test_multimodal_mtv_takes_video_flow_and_sound(tmp_path: Path) -> None:
    """The recipe's model, made narrow, started from three image ViTs, whose colors the flow's two numbers share."""
    widths = {"video": 24, "flow": 16, "sound": 8}
    augment = only_task(mtv.epic_kitchens_multimodal()).augment
    assert augment.randaugment_layers == 0, "it would falsify flow, and the reader refuses it"
    sources = tuple(str(small_vit(tmp_path / name, width)) for name, width in widths.items())
    experiment = shrunk(mtv.epic_kitchens_multimodal(init=sources), widths)
    model = Model(experiment.model.build(), {}).eval()
    reports = initialize(model, experiment.model, experiment.init)
    for name, report in zip(widths, reports, strict=True):
        assert f"streams.{name}.tokenizer.projection.weight" in report.loaded
    inputs = {name: torch.zeros(1, *spec.shape) for name, spec in experiment.model.inputs.items()}
    assert {name: tuple(x.shape) for name, x in inputs.items()} == {
        "video": (1, 64, 3, 32, 32),
        "flow": (1, 64, 2, 32, 32),
        "audio": (1, 768, 128),
    }
    with torch.no_grad():
        assert model.encoder(inputs).pooled.shape == (1, 48)


def test_epic_kitchens_predicts_verb_and_noun() -> None:
    objective = only_task(mtv.epic_kitchens_b()).objective
    assert (objective.label_sets, objective.metric) == (("verb", "noun"), "action_top1")


@pytest.mark.parametrize("name", MTV)
def test_a_recipe_can_be_saved_read_back_and_shown(name: str) -> None:
    experiment = MTV[name](data="there.csv")
    assert from_json(Experiment, to_json(experiment)) == experiment
    assert only_task(experiment).source.path == "there.csv"
    assert experiment.notes, "without weights a person is told so"
    text = " ".join((MTV[name].__doc__ or "").split())
    for needed in (f"tubelet train mtv.{name} --data", " % ", "Data: ", "Hardware and time"):
        assert needed in text, f"{name} lacks {needed!r}"
