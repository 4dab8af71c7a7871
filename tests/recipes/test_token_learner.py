"""TokenLearner's recipes say what the slides and the released configuration say, and build without the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from tubelet.configs import from_json, override, to_json
from tubelet.costs.cost import cost
from tubelet.data.views import Views
from tubelet.models import Model, model_config
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.models.vit import ViTConfig
from tubelet.recipes import recipes, token_learner, vivit
from tubelet.recipes.token_learner import Large
from tubelet.specs import ImageSpec
from tubelet.training.experiment import SGD, AdamW, Experiment, Length, Task
from tubelet.weights.folder import save_model
from tubelet.weights.transfer import initialize

RECIPES = {name: recipe for name, recipe in recipes().items() if name.startswith("token_learner.")}


def only_task(experiment: Experiment) -> Task:
    (task,) = experiment.tasks.values()
    return task


def learner(experiment: Experiment) -> TokenLearnerConfig:
    assert isinstance(experiment.model, TokenLearnerConfig)
    return experiment.model


def test_the_released_configuration() -> None:
    experiment = token_learner.imagenet_b16("there")
    task, model = only_task(experiment), learner(experiment)
    assert model.name == "vit-b/16-tl16@9"
    assert model.spec.size == (224, 224)
    assert (task.source.path, task.inputs, task.views) == ("there", ("image",), Views(1, 1))
    assert task.length.resolve(1_281_167, task.batch_size) == 28_080, "90 epochs of 312 updates"
    assert (task.batch_size, task.warmup, task.learning_rate) == (4096, Length(steps=10_000), 5e-3)
    assert (task.objective.loss, task.objective.head_bias, task.objective.head_init) == ("sigmoid", -10, "zeros")
    assert experiment.optimizer == AdamW(betas=(0.9, 0.999), weight_decay=0.3)
    assert (experiment.training.decay, experiment.training.clip_norm, task.stochastic_depth) == ("linear", 1, 0)


@pytest.mark.parametrize("row", get_args(Large))
def test_a_row_of_the_slides_is_a_model_at_512_pixels(row: Any) -> None:
    experiment = token_learner.imagenet_l("there", model=row)
    model = learner(experiment)
    assert (model.name, model.tokens, model.fuse, model.form) == (row, 16, False, "mlp")
    assert model.spec.size == (512, 512)
    assert experiment.optimizer == SGD(momentum=0.9)


@pytest.mark.parametrize("name", ["kinetics400_l10x2", "kinetics600_l10x2"])
def test_kinetics_is_trained_as_vivit_is(name: str) -> None:
    ours = RECIPES[f"token_learner.{name}"]("there")
    theirs = getattr(vivit, name.replace("l10", "l16"))("there")
    assert (ours.tasks, ours.optimizer, ours.training) == (theirs.tasks, theirs.optimizer, theirs.training)
    assert learner(ours).spec == theirs.model.inputs["video"]
    assert learner(ours).name == "vivit-l/10x2-tl16@18+11"


def test_twelve_views_on_kinetics_cost_what_the_slides_print() -> None:
    assert 12 * cost(token_learner.kinetics400_l10x2().model).multiply_adds / 1e12 == pytest.approx(48.91, rel=0.02)


def test_layers_beyond_the_image_models_start_fresh(tmp_path: Path) -> None:
    """The recipe's own Init, on a model made narrow: 24 layers come from the image ViT, 11 do not."""
    small = {"width": 16, "heads": 2, "mlp": 16}
    changes: dict[str, Any] = {f"model.backbone.{name}": value for name, value in small.items()}
    changes |= {"model.spec.size": (40, 40), "model.spec.short_side": 40}
    made = override(token_learner.imagenet_l(init=str(tmp_path / "vit")), changes)
    vit = model_config("vit-l/16")
    assert isinstance(vit, ViTConfig)
    vit = override(vit, {f"backbone.{name}": value for name, value in small.items()})
    vit = override(vit, {"image": ImageSpec(size=(32, 32), short_side=32)})
    torch.manual_seed(0)
    save_model(tmp_path / "vit", Model(vit.build(), {}), vit, {})
    model = Model(made.model.build(), {})
    (report,) = initialize(model, made.model, made.init)
    layers = {name.split(".")[3] for name in report.fresh if name.startswith("after.transformer.blocks.")}
    assert layers == {str(layer - 18) for layer in range(24, 35)}
    assert any(name.startswith("after.transformer.blocks.5.") for name in report.loaded)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_saved_read_back_and_shown(name: str) -> None:
    experiment = RECIPES[name](data="there")
    assert from_json(Experiment, to_json(experiment)) == experiment
    text = " ".join((RECIPES[name].__doc__ or "").split())
    for needed in (f"tubelet train {name} --data", " % ", "Data: ", "Hardware and time"):
        assert needed in text, f"{name} lacks {needed!r}"


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith("b16")])
def test_large_models_start_from_weights_or_say_so(name: str) -> None:
    (init,) = RECIPES[name](init="hf:some/vit").init
    assert init.source == "hf:some/vit"
    assert RECIPES[name]().notes
