"""ViViT's recipes say what Table 7 says, and build without the data."""

from __future__ import annotations

from typing import Any

import pytest

from tubelet.configs import ConfigError, from_json, to_json
from tubelet.models import ModelConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.recipes import recipes, vivit
from tubelet.training.experiment import SGD, Experiment, Length, Task

VIVIT = {name: recipe for name, recipe in recipes().items() if name.startswith("vivit.")}

# Table 7: base learning rate, epochs, color jitter, RandAugment layers and magnitude, droplayer, smoothing, mixup
TABLE_7: dict[str, tuple[float, ...]] = {
    "k400": (0.1, 30, 0.8, 0, 0, 0, 0, 0),
    "k600": (0.1, 30, 0.8, 0, 0, 0, 0, 0),
    "mit": (0.25, 10, 0.8, 0, 0, 0, 0, 0),
    "epic": (0.5, 50, 0, 2, 15, 0.2, 0.2, 0.1),
    "ssv2": (0.5, 35, 0, 2, 20, 0.3, 0.3, 0.3),
}


def only_task(experiment: Experiment) -> tuple[str, Task]:
    ((name, task),) = experiment.tasks.items()
    return name, task


def vivit_of(experiment: Experiment) -> ViViTConfig:
    assert isinstance(experiment.model, ViViTConfig)
    return experiment.model


@pytest.mark.parametrize("name", VIVIT)
def test_a_recipe_follows_its_column_of_table_7(name: str) -> None:
    experiment = VIVIT[name]()
    dataset, task = only_task(experiment)
    augment, objective = task.augment, task.objective
    varying = (
        task.learning_rate,
        task.length.epochs,
        augment.color,
        augment.randaugment_layers,
        augment.randaugment_magnitude,
        task.stochastic_depth,
        objective.smoothing,
        objective.mixup.alpha,
    )
    assert varying == TABLE_7[dataset]
    assert experiment.optimizer == SGD(momentum=0.9)
    assert experiment.training.decay == "cosine"
    assert (task.batch_size, task.warmup) == (64, Length(epochs=2.5))
    assert (augment.crop, augment.flip, augment.scale_jitter) == (1.0, 0.5, 1.0)
    assert (augment.max_scale, augment.min_scale) == (1.33, 0.9)


def test_all_five_datasets_have_a_recipe() -> None:
    assert {only_task(recipe())[0] for recipe in VIVIT.values()} == set(TABLE_7)


@pytest.mark.parametrize("name", VIVIT)
def test_a_recipe_can_be_saved_read_back_and_shown(name: str) -> None:
    experiment = VIVIT[name]()
    assert from_json(Experiment, to_json(experiment)) == experiment


@pytest.mark.parametrize("name", VIVIT)
def test_a_docstring_gives_the_command_the_papers_figure_and_the_layout_of_the_data(name: str) -> None:
    text = " ".join((VIVIT[name].__doc__ or "").split())
    for needed in (f"tubelet train {name} --data", " % ", "Data: ", "Hardware and time"):
        assert needed in text, f"{name} lacks {needed!r}"


@pytest.mark.parametrize(
    ("recipe", "name", "frames", "side"),
    [
        (vivit.kinetics400_b16x2, "vivit-b/16x2", 32, 224),
        (vivit.kinetics400_b16x2_fe, "vivit-b/16x2-fe", 32, 224),
        (vivit.kinetics400_b16x2_fsa, "vivit-b/16x2-fsa", 32, 224),
        (vivit.kinetics400_b16x2_fdp, "vivit-b/16x2-fdp", 32, 224),
        (vivit.kinetics400_l16x2_320, "vivit-l/16x2", 32, 320),
        (vivit.kinetics400_l16x2_fe_128, "vivit-l/16x2-fe", 128, 224),
        (vivit.ssv2_l16x2_fe, "vivit-l/16x2-fe", 32, 224),
    ],
)
def test_a_recipe_trains_the_model_that_its_name_says(recipe: Any, name: str, frames: int, side: int) -> None:
    model: ModelConfig = recipe().model
    assert isinstance(model, ViViTConfig)
    assert model.name == name
    assert (model.video.frames, model.video.stride, model.video.size) == (frames, 2, (side, side))


def test_the_average_pooling_baseline_has_no_temporal_transformer() -> None:
    model = vivit.kinetics400_b16x2_average().model
    assert isinstance(model, ViViTConfig)
    assert model.temporal_depth == 0


def test_table_1_varies_how_a_clip_becomes_tokens() -> None:
    """As many tokens in every row; the paper's 32-frame clips, of which uniform sampling takes 8 frames."""
    made = {
        name: vivit.kinetics400_b16x4_encoding(init="vit", encoding=name)
        for name in ("uniform", "random", "inflation", "central")
    }
    models = {name: vivit_of(experiment) for name, experiment in made.items()}
    assert {model.grid for model in models.values()} == {(8, 14, 14)}
    assert {name: (m.clip_frames, m.tubelet[0]) for name, m in models.items()} == {
        "uniform": (8, 1),
        "random": (32, 4),
        "inflation": (32, 4),
        "central": (32, 4),
    }
    kernels = {name: experiment.init[0].kernel for name, experiment in made.items() if name != "uniform"}
    assert kernels == {"random": "random", "inflation": "average", "central": "central"}


def test_table_2_has_epic_kitchens_for_all_models() -> None:
    attention = {
        name: vivit_of(vivit.epic_kitchens_b16x2(model=name)) for name in ("st", "fe", "fsa", "fdp", "average")
    }
    assert [model.attention_type for model in attention.values()] == [
        "joint",
        "factorized_encoder",
        "factorized_self_attention",
        "factorized_dot_product",
        "factorized_encoder",
    ]
    assert (attention["fe"].temporal_depth, attention["average"].temporal_depth) == (4, 0)
    assert {vivit.epic_kitchens_b16x2(model="fsa").tasks["epic"]} == {vivit.epic_kitchens_b16x2_fe().tasks["epic"]}


def test_table_3_varies_the_temporal_layers() -> None:
    assert [vivit_of(vivit.kinetics400_b16x2_temporal(layers=n)).temporal_depth for n in (0, 1, 12)] == [0, 1, 12]
    assert vivit.kinetics400_b16x2_temporal() == vivit.kinetics400_b16x2_fe()


def test_table_4_adds_one_method_after_the_other() -> None:
    rows = [only_task(vivit.epic_kitchens_b16x2_regularization(methods=n))[1] for n in range(6)]
    added = [
        (t.stochastic_depth, t.augment.randaugment_layers, t.objective.smoothing, t.objective.mixup.alpha) for t in rows
    ]
    assert added == [
        (0, 0, 0, 0),
        (0, 0, 0, 0),  # the second row starts from Kinetics, which init says
        (0.2, 0, 0, 0),
        (0.2, 2, 0, 0),
        (0.2, 2, 0.2, 0),
        (0.2, 2, 0.2, 0.1),
    ]
    assert vivit.epic_kitchens_b16x2_regularization() == vivit.epic_kitchens_b16x2_fe()
    with pytest.raises(ConfigError, match="give 0 to 5"):
        vivit.epic_kitchens_b16x2_regularization(methods=6)


def test_epic_kitchens_predicts_verb_and_noun_from_a_kinetics_run() -> None:
    experiment = vivit.epic_kitchens_b16x2_fe("epic.csv", init="runs/kinetics")
    _, task = only_task(experiment)
    assert task.objective.label_sets == ("verb", "noun")
    assert task.source.path == "epic.csv"
    assert [init.source for init in experiment.init] == ["runs/kinetics"]


def test_an_image_vit_starts_kernels_by_the_central_frame() -> None:
    experiment = vivit.kinetics400_b16x2(init="hf:google/vit-base-patch16-224-in21k")
    (init,) = experiment.init
    assert init.kernel == "central"
    assert experiment.model.temporal_start == "residual"
    assert vivit.kinetics400_b16x2().init == ()
