"""MBT's recipes say what the released configuration and PolyViT's tables say, and build without the data."""

from __future__ import annotations

from typing import Any

import pytest

from tubelet.configs import from_json, to_json
from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.models import SIZES, ModelConfig
from tubelet.models.mbt import MBTConfig
from tubelet.recipes import mbt, recipes
from tubelet.training.experiment import SGD, Experiment, Length, Task
from tubelet.weights.transfer import Init

MBT = {name: recipe for name, recipe in recipes().items() if name.startswith("mbt.")}

# Training examples, updates, label smoothing, mixup, loss and metric
ROWS: dict[str, tuple[int, int, float, float, str, str]] = {
    "mini_audioset": (20_361, 15_900, 0.3, 0.5, "sigmoid", "map"),
    "as500k": (500_000, 30 * (500_000 // 64), 0.3, 0.5, "sigmoid", "map"),
    "vggsound": (172_416, 134_700, 0, 0.3, "softmax", "top1"),
}


def only_task(experiment: Experiment) -> tuple[str, Task]:
    ((name, task),) = experiment.tasks.items()
    return name, task


def model_of(experiment: Experiment) -> MBTConfig:
    assert isinstance(experiment.model, MBTConfig)
    return experiment.model


def test_audioset_and_vggsound_have_recipes() -> None:
    assert sorted(only_task(recipe())[0] for recipe in MBT.values()) == sorted(ROWS)


@pytest.mark.parametrize("name", MBT)
def test_a_recipe_has_the_hyper_parameters_of_its_sources(name: str) -> None:
    experiment = MBT[name]()
    dataset, task = only_task(experiment)
    examples, *_ = ROWS[dataset]
    objective = task.objective
    updates = task.length.resolve(examples, task.batch_size)
    row = (updates, objective.smoothing, objective.mixup.alpha, objective.loss, objective.metric)
    assert (examples, *row) == ROWS[dataset]
    assert (task.batch_size, task.learning_rate, task.warmup) == (64, 0.5, Length(epochs=2.5))
    assert (task.stochastic_depth, task.augment, task.views) == (0.3, Augmentation(), Views(4, 1))
    assert (experiment.optimizer, experiment.training.decay) == (SGD(momentum=0.9), "cosine")
    assert experiment.training.clip_norm == 1


@pytest.mark.parametrize("name", MBT)
def test_the_model_is_the_released_one(name: str) -> None:
    model = model_of(MBT[name]())
    assert (model.backbone, model.fusion_layer, model.bottlenecks, model.pool) == (SIZES["b"], 8, 4, "token")
    assert {key: (m.patch, m.spec.shape) for key, m in model.modalities.items()} == {
        "video": ((2, 16, 16), (32, 3, 224, 224)),
        "audio": ((1, 16, 16), (800, 128)),
    }


@pytest.mark.parametrize("senses", ["video", "audio"])
@pytest.mark.parametrize("name", MBT)
def test_either_sense_alone_is_trained_alike(name: str, senses: Any) -> None:
    both, alone = MBT[name](init="hf:some/vit"), MBT[name](init="hf:some/vit", senses=senses)
    assert list(model_of(alone).modalities) == [senses]
    assert model_of(alone).modalities[senses] == model_of(both).modalities[senses]
    (task, of_both), (_, of_one) = only_task(both), only_task(alone)
    assert (of_both.inputs, of_one.inputs) == (("video", "audio"), (senses,))
    assert {of_both.objective, of_one.objective} == {of_both.objective}, task


def test_weights_start_the_bottleneck_as_released_where_there_is_one() -> None:
    started = mbt.vggsound(init="there")
    assert started.init == (Init(source="there"),)
    assert started.model.bottleneck_start == "positions"
    assert mbt.vggsound(init="there", senses="audio").init == (Init(source="there"),)
    assert mbt.vggsound().init == ()
    assert mbt.vggsound().notes, "without weights a person is told so"


@pytest.mark.parametrize("name", MBT)
def test_a_recipe_can_be_saved_read_back_and_shown(name: str) -> None:
    experiment = MBT[name](data="there.csv")
    assert from_json(Experiment, to_json(experiment)) == experiment
    assert only_task(experiment)[1].source.path == "there.csv"
    text = " ".join((MBT[name].__doc__ or "").split())
    for needed in (f"tubelet train {name} --data", " % ", "Data: ", "Hardware and time"):
        assert needed in text, f"{name} lacks {needed!r}"


@pytest.mark.parametrize("name", MBT)
def test_the_task_is_one_that_the_model_takes(name: str) -> None:
    model: ModelConfig = MBT[name]().model
    assert only_task(MBT[name]())[1].inputs == model.input_sets[0]
