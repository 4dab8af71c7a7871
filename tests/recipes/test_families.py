"""Small recipes of every family: they build, and each sense alone is the same model less the other."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from tubelet.configs import from_json, to_json
from tubelet.costs.cost import cost
from tubelet.data.augment import Augmentation
from tubelet.models.mbt import MBTConfig
from tubelet.models.mtv import MTVConfig
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.models.tubevit import TubeViTConfig
from tubelet.recipes import families, recipes
from tubelet.recipes.families import Senses
from tubelet.training.experiment import Experiment

FAMILIES = {name: recipe for name, recipe in recipes().items() if name.startswith("families.")}
DUETS = [families.mbt_duet, families.mtv_duet]


def test_every_family_has_a_recipe_of_its_own() -> None:
    assert {name: type(recipe().model) for name, recipe in FAMILIES.items()} == {
        "families.mtv_motion": MTVConfig,
        "families.token_learner_motion": TokenLearnerConfig,
        "families.tubevit_motion": TubeViTConfig,
        "families.mbt_duet": MBTConfig,
        "families.mtv_duet": MTVConfig,
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_an_experiment_can_be_saved_built_and_answered_by(name: str) -> None:
    experiment = FAMILIES[name]("there")
    assert from_json(Experiment, to_json(experiment)) == experiment
    ((task, settings),) = experiment.tasks.items()
    assert settings.source.path == f"there/{task}.csv"
    assert settings.augment == Augmentation.none(), "a flip would turn left into right"
    encoder = experiment.model.build().eval()
    inputs = {n: torch.zeros(1, *encoder.inputs[n].shape) for n in settings.inputs}
    with torch.no_grad():
        assert encoder(inputs).pooled.shape == (1, encoder.width)
    assert cost(experiment.model, 80, settings.inputs).multiply_adds < 0.3e9, "minutes on two cores"


@pytest.mark.parametrize("recipe", DUETS)
def test_either_sense_alone_has_the_parts_that_it_has_beside_the_other(recipe: Any) -> None:
    made = {senses: recipe(senses=senses) for senses in get_args(Senses)}
    assert {name: tuple(experiment.model.inputs) for name, experiment in made.items()} == {
        "both": ("video", "audio"),
        "video": ("video",),
        "audio": ("audio",),
    }
    for name, experiment in made.items():
        model, both = experiment.model, made["both"].model
        parts, all_parts = (
            (m.modalities if isinstance(m, MBTConfig) else m.streams if isinstance(m, MTVConfig) else {})
            for m in (model, both)
        )
        assert parts
        assert parts.items() <= all_parts.items(), name
        (task,), (together,) = experiment.tasks.values(), made["both"].tasks.values()
        assert (task.length, task.learning_rate, task.objective) == (
            together.length,
            together.learning_rate,
            together.objective,
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_docstring_gives_the_command_the_figure_and_where_the_data_come_from(name: str) -> None:
    text = " ".join((FAMILIES[name].__doc__ or "").split())
    for needed in (f"tubelet train {name}", " % top-1", "two cores", "`tubelet data digits"):
        assert needed in text, f"{name} lacks {needed!r}"
