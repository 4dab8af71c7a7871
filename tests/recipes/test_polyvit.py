"""PolyViT's recipes say what Tables 6, 7, 9, 16 and 17 say, and build without the data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from tubelet.configs import ConfigError, from_json, override, to_json
from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.models import SIZES, ModelConfig
from tubelet.models.polyvit import PolyViTConfig
from tubelet.nn.tokenizers import grid_of
from tubelet.recipes import polyvit, recipes
from tubelet.recipes.polyvit_tables import table_6, table_9
from tubelet.training.experiment import SGD, Experiment, Length, Task
from tubelet.training.schedules import Alternating, TaskByTask, Weighted

# Table 6: train examples (VGGSound's are those that give its updates), updates, learning
# rate, warm-up, initial weights of the head
TABLE_6: dict[str, tuple[int, int, float, int, str]] = {
    "cifar100": (50_000, 10_000, 0.03, 500, "lecun"),
    "cifar10": (50_000, 10_000, 0.03, 500, "lecun"),
    "pets": (3_680, 500, 0.03, 100, "lecun"),
    "resisc45": (31_500, 2_500, 0.1, 200, "lecun"),
    "imagenet": (1_281_167, 20_000, 0.03, 500, "lecun"),
    "kinetics400": (214_834, 100_680, 0.1, 8_390, "zeros"),
    "moments_in_time": (791_297, 123_640, 0.25, 30_910, "zeros"),
    "mini_audioset": (20_361, 15_900, 0.5, 795, "zeros"),
    "vggsound": (172_416, 134_700, 0.5, 6_735, "zeros"),
}
IMAGES = ("cifar100", "cifar10", "pets", "resisc45", "imagenet")
MADE: dict[str, Callable[..., Experiment]] = {
    "nine_tasks": polyvit.nine_tasks,
    "image_tasks": polyvit.image_tasks,
    "video_tasks": polyvit.video_tasks,
    "audio_tasks": polyvit.audio_tasks,
    "single_task": lambda **options: polyvit.single_task("pets", **options),
    "video_trio": polyvit.video_trio,
    "audio_pair": polyvit.audio_pair,
    "linear_probe": lambda **options: polyvit.linear_probe("dtd", **options),
    "sequential": lambda **options: polyvit.sequential("vggsound", **options),
}


def lengths(tasks: Mapping[str, Task], examples: Mapping[str, int]) -> dict[str, int]:
    return {name: task.length.resolve(examples[name], task.batch_size) for name, task in tasks.items()}


def tokens(model: ModelConfig) -> dict[str, int]:
    assert isinstance(model, PolyViTConfig)
    counts = {name: grid_of(m.spec.extent, m.patch) for name, m in model.modalities.items()}
    return {name: 1 + t * h * w for name, (t, h, w) in counts.items()}


def test_every_experiment_is_a_recipe() -> None:
    assert {name for name in recipes() if name.startswith("polyvit")} == {f"polyvit.{name}" for name in MADE}


def test_tasks_follow_table_6() -> None:
    tasks = polyvit.nine_tasks().tasks
    rows = {
        name: (
            TABLE_6[name][0],
            task.length.resolve(TABLE_6[name][0], task.batch_size),
            task.learning_rate,
            task.warmup.resolve(TABLE_6[name][0], task.batch_size),
            task.objective.head_init,
        )
        for name, task in tasks.items()
    }
    assert rows == TABLE_6
    assert sum(updates for _, updates, *_ in rows.values()) == 417_920, "the released configuration's total"


def test_batches_losses_and_regularization_are_each_modalitys() -> None:
    for name, task in polyvit.nine_tasks().tasks.items():
        image, audio = name in IMAGES, task.inputs == ("audio",)
        assert task.batch_size == (512 if image else 64)
        assert task.objective.loss == ("sigmoid" if image or name == "mini_audioset" else "softmax")
        assert task.objective.metric == ("map" if name == "mini_audioset" else "top1")
        assert (task.objective.mixup.alpha, task.stochastic_depth) == ((0.3, 0.3) if audio else (0, 0))
        assert task.augment == (Augmentation.none() if image else Augmentation())
        assert task.views == (Views(1, 1) if image else Views(4, 1) if audio else Views(4, 3))


def test_sequence_lengths_follow_table_7() -> None:
    assert tokens(polyvit.nine_tasks().model) == {"image": 577, "video": 1569, "audio": 401}


@pytest.mark.parametrize(("size", "layers"), [("b", 12), ("l", 24)])
def test_adaptors_are_half_of_the_layers(size: Any, layers: int) -> None:
    models = [polyvit.nine_tasks(size=size, adaptors=adaptors).model for adaptors in (False, True)]
    depths = [(m.backbone.depth, m.adaptor_depth) for m in models if isinstance(m, PolyViTConfig)]
    assert depths == [(layers, 0), (layers, layers // 2)]


def test_large_changes_the_audio_tasks_alone() -> None:
    base, large = table_6("data"), table_6("data", "l")
    assert {name for name in base if base[name] != large[name]} == {"mini_audioset", "vggsound"}
    assert [large[name].objective.mixup.alpha for name in ("mini_audioset", "vggsound")] == [0.5, 0.7]
    assert [large[name].length for name in ("mini_audioset", "vggsound")] == [Length(epochs=30), Length(epochs=50)]


def test_one_modality_has_its_own_tasks_and_tokenizer() -> None:
    made = (polyvit.image_tasks(), polyvit.video_tasks(), polyvit.audio_tasks())
    assert [tuple(experiment.model.inputs) for experiment in made] == [("image",), ("video",), ("audio",)]
    assert [len(experiment.tasks) for experiment in made] == [5, 2, 2]
    together = {name: task for experiment in made for name, task in experiment.tasks.items()}
    assert together == polyvit.nine_tasks().tasks


@pytest.mark.parametrize(
    ("task", "name", "side"),
    [("pets", "vit-b/16", 384), ("kinetics400", "vivit-b/16x4", 224), ("vggsound", "ast-b/16", 0)],
)
def test_a_single_task_is_trained_as_in_the_co_training(task: Any, name: str, side: int) -> None:
    alone, together = polyvit.single_task(task), polyvit.nine_tasks()
    assert alone.tasks == {task: together.tasks[task]}
    assert alone.model.name == name
    (key,) = alone.tasks[task].inputs
    assert alone.model.inputs[key] == together.model.inputs[key]
    assert not side or alone.model.inputs[key].extent[1:] == (side, side)


def test_the_video_trio_follows_table_16() -> None:
    experiment = polyvit.video_trio()
    assert isinstance(experiment.model, PolyViTConfig)
    assert experiment.model.backbone == SIZES["l"]
    assert tokens(experiment.model) == {"video": 3137}
    examples = {"kinetics400": 214_834, "kinetics600": 363_213, "moments_in_time": 791_297}
    assert lengths(experiment.tasks, examples) == {
        "kinetics400": 100_680,
        "moments_in_time": 123_640,
        "kinetics600": 170_250,
    }
    assert {task.learning_rate for task in experiment.tasks.values()} == {0.1, 0.25}


def test_the_audio_pair_follows_table_17() -> None:
    tasks = polyvit.audio_pair().tasks
    rows = {n: (t.length.epochs, t.objective.mixup.alpha, t.batch_size, t.learning_rate) for n, t in tasks.items()}
    assert rows == {"as500k": (30, 0.5, 64, 0.5), "vggsound": (50, 0.3, 64, 0.5)}
    assert tasks["as500k"].objective.metric == "map"


def test_task_by_task_takes_the_order_of_appendix_b() -> None:
    (order,) = re.findall(r"--schedule.order\s+(\S+)\.", polyvit.nine_tasks.__doc__ or "")
    changes = {"schedule": "TaskByTask", "schedule.order": order}
    made = override(polyvit.nine_tasks(), changes)
    assert made.schedule == TaskByTask(order=tuple(order.split(",")))
    assert set(made.schedule.order) == set(made.tasks)
    with pytest.raises(ConfigError, match="must name each task once: cifar100"):
        override(polyvit.nine_tasks(), changes | {"schedule.order": "pets"})


def test_validation_examples_are_held_out_as_appendices_a_and_d_say() -> None:
    held_out = {name: task.source.held_out for name, task in polyvit.nine_tasks().tasks.items()}
    assert held_out == dict.fromkeys(TABLE_6, 0) | {
        "cifar100": 0.02,
        "cifar10": 0.02,
        "pets": 0.1,
        "resisc45": 0.25,  # of the 80 % that are no test
        "imagenet": 0.01,
    }
    assert {t.source.held_out for t in table_9("data").values() if t.inputs == ("image",)} == {0.02}


def test_sequential_fine_tuning_keeps_the_heads_of_the_tasks_before() -> None:
    first = polyvit.sequential("moments_in_time", init="vit")
    last = polyvit.sequential("kinetics400", after=("moments_in_time", "kinetics600"), init="runs/k600")
    assert first.model.name == last.model.name == "vivit-l/16x2"
    assert [(name, task.trains) for name, task in last.tasks.items()] == [
        ("moments_in_time", False),
        ("kinetics600", False),
        ("kinetics400", True),
    ]
    assert last.tasks["kinetics400"] == polyvit.video_trio().tasks["kinetics400"]
    assert polyvit.sequential("vggsound").model == polyvit.single_task("vggsound").model
    with pytest.raises(ConfigError, match="after: vggsound cannot come before kinetics400"):
        polyvit.sequential("kinetics400", after=("vggsound",), init="runs/any")
    with pytest.raises(ValueError, match="its head comes from init"):
        polyvit.sequential("vggsound", after=("as500k",))


def test_probes_follow_table_9() -> None:
    tasks = table_9("data")
    assert len(tasks) == 11
    for name, task in tasks.items():
        if task.inputs == ("image",):
            assert (task.length, task.warmup) == (Length(steps=2_500), Length(steps=200)), name
            assert (task.objective.head_init, task.augment) == ("lecun", Augmentation.none()), name
        else:
            assert (task.warmup, task.objective.head_init) == (Length(epochs=2.5), "zeros"), name
    fixed = {n: (t.length.epochs, t.learning_rate) for n, t in tasks.items() if t.inputs != ("image",)}
    assert fixed == {
        "epic_kitchens": (30, 0.5),
        "ssv2": (35, 0.4),
        "kinetics600": (30, 0.1),
        "moments_in_time_audio": (10, 0.5),
        "kinetics400_audio": (30, 0.5),
    }
    assert tasks["ssv2"].objective.mixup.alpha == 0.3


def test_a_probe_trains_its_head_alone_on_a_model_of_the_tasks_modality() -> None:
    experiment = polyvit.linear_probe("kinetics400_audio", init="runs/nine")
    assert experiment.trainable == ("heads.*",)
    assert tuple(experiment.model.inputs) == ("audio",)
    assert [(init.source, init.kernel) for init in experiment.init] == [("runs/nine", "repeat")]
    assert experiment.learning_rates == ()
    assert polyvit.linear_probe("dtd").learning_rates == (0.03, 0.1, 0.3)


@pytest.mark.parametrize("name", MADE)
def test_all_start_from_weights_and_share_one_momentum(name: str) -> None:
    experiment = MADE[name](data="there", init="hf:some/vit")
    assert [init.source for init in experiment.init] == ["hf:some/vit"]
    assert (experiment.optimizer, experiment.schedule) == (SGD(momentum=0.9), Weighted())
    assert (experiment.training.decay, experiment.training.clip_norm) == ("cosine", 1.0)
    assert all(task.source.path.startswith("there/") for task in experiment.tasks.values())
    assert MADE[name]().notes, "without weights a person is told so"


@pytest.mark.parametrize("name", MADE)
def test_an_experiment_can_be_saved_read_back_and_changed(name: str) -> None:
    experiment = MADE[name]()
    assert from_json(Experiment, to_json(experiment)) == experiment
    assert override(experiment, {"schedule": "Alternating"}).schedule == Alternating()


@pytest.mark.parametrize("name", MADE)
def test_a_docstring_gives_the_command_the_papers_figures_and_the_layout_of_the_data(name: str) -> None:
    text = " ".join((recipes()[f"polyvit.{name}"].__doc__ or "").split())
    for needed in (f"tubelet train polyvit.{name}", "The paper's figures", "Data: ", "Hardware and time: unknown"):
        assert needed in text, f"{name} lacks {needed!r}"


def test_every_task_finds_its_input_and_its_head_in_the_model() -> None:
    """The recipe's model, made narrow, takes what each task's specs say."""
    small = {"width": 16, "depth": 2, "heads": 2, "mlp": 16}
    experiment = polyvit.nine_tasks(adaptors=True)
    changes = {f"model.backbone.{name}": value for name, value in small.items()} | {"model.adaptor_depth": 1}
    model = override(experiment, changes).model
    encoder = model.build().eval()
    shapes = {"image": (1, 3, 384, 384), "video": (1, 32, 3, 224, 224), "audio": (1, 800, 128)}
    for name in {task.inputs[0] for task in experiment.tasks.values()}:
        with torch.no_grad():
            assert encoder({name: torch.zeros(shapes[name])}).pooled.shape == (1, 16)
