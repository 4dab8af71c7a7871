"""TubeViT's recipes say what Tables 10 to 12 say, and build without the data."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch

from tubelet.configs import ConfigError, from_json, override, to_json
from tubelet.costs.cost import cost
from tubelet.data.views import Views
from tubelet.models.tubevit import TubeViTConfig
from tubelet.recipes import recipes, tubevit
from tubelet.training.experiment import AdamW, Experiment, Length
from tubelet.training.optimizers import choose_trainable
from tubelet.training.run import initial_model
from tubelet.training.schedules import Alternating

TUBEVIT = {name: recipe for name, recipe in recipes().items() if name.startswith("tubevit.")}
KINETICS: dict[str, Callable[..., Experiment]] = {
    "k400": tubevit.kinetics400,
    "k600": tubevit.kinetics600,
    "k700": tubevit.kinetics700,
}


def tubes(experiment: Experiment) -> TubeViTConfig:
    assert isinstance(experiment.model, TubeViTConfig)
    return experiment.model


def test_every_experiment_is_a_recipe() -> None:
    names = {"kinetics400", "kinetics600", "kinetics700", "imagenet", "ssv2", "charades", "scaling"}
    assert set(TUBEVIT) == {f"tubevit.{name}" for name in names | {"ablation", "tube_shapes"}}


# Table 10: updates in all, batch, rate of Base and of Large, frames and rate of frames, mixup, dropout, smoothing
@pytest.mark.parametrize(
    ("dataset", "recipe", "row"),
    [
        *((name, recipe, (256, 5e-5, 1e-5, 64, 15, 0, 0, 0)) for name, recipe in KINETICS.items()),
        ("charades", tubevit.charades, (64, 1e-3, 1e-3, 128, 6, 0, 0.2, 0.1)),
        ("ssv2", tubevit.ssv2, (256, 2e-5, 2e-5, 32, 24, 0.3, 0.3, 0.3)),
    ],
)
def test_a_recipe_follows_its_column_of_table_10(
    dataset: str, recipe: Callable[..., Experiment], row: tuple[float, ...]
) -> None:
    base, large = recipe(size="b"), recipe(size="l")
    task, model = base.tasks[dataset], tubes(base)
    assert row == (
        task.batch_size,
        task.learning_rate,
        large.tasks[dataset].learning_rate,
        model.video.frames,
        model.video.fps,
        task.objective.mixup.alpha,
        model.backbone.dropout,
        task.objective.smoothing,
    )
    for experiment, decay in ((base, 1e-3), (large, 1e-5)):
        assert experiment.optimizer == AdamW(weight_decay=decay)
        assert sum(task.length.steps for task in experiment.tasks.values()) == 300_000
        assert sum(task.warmup.steps for task in experiment.tasks.values()) == 10_000
        assert experiment.training.decay == "cosine"
        for each in experiment.tasks.values():
            augment = each.augment
            assert (augment.randaugment_layers, augment.randaugment_magnitude, augment.crop) == (2, 10, 1)
            assert augment.randaugment_geometric
    assert (model.video.stride, task.views) == (1, Views(4, 3))


@pytest.mark.parametrize(("dataset", "recipe"), KINETICS.items(), ids=KINETICS.keys())
def test_kinetics_and_imagenet_share_one_model(dataset: str, recipe: Callable[..., Experiment]) -> None:
    joint, alone = recipe("videos", imagenet="pictures", size="b"), recipe("videos", imagenet="", size="b")
    assert {name: (task.inputs, task.source.path) for name, task in joint.tasks.items()} == {
        dataset: (("video",), "videos"),
        "imagenet": (("image",), "pictures"),
    }
    assert list(alone.tasks) == [dataset]
    assert alone.tasks[dataset].length == Length(steps=300_000)
    assert joint.model == alone.model
    assert (joint.model.name, joint.tasks["imagenet"].views) == ("tubevit-b/16", Views(1, 1))
    assert override(joint, {"schedule": "Alternating"}).schedule == Alternating()


def test_charades_has_several_labels_and_larger_kernels() -> None:
    core, enlarged = tubevit.charades(interpolated=False), tubevit.charades()
    assert (enlarged.tasks["charades"].objective.metric, tubes(core).learned) == ("map", ())
    assert [tube.kernel for tube in tubes(enlarged).tubes] == [(16, 16, 16), (32, 8, 8), (4, 32, 32)]
    assert tubes(enlarged).learned == tuple(tube.kernel for tube in tubes(core).tubes)


def test_scaling_starts_from_two_models() -> None:
    experiment = tubevit.scaling(init="runs/vit", tubes="runs/tubevit.kinetics600", gated=True)
    assert [(init.source, init.into) for init in experiment.init] == [
        ("runs/vit", ""),
        ("runs/tubevit.kinetics600", "video"),
    ]
    model = tubes(experiment)
    assert (model.backbone.depth, model.gate, model.patch.kernel) == (32, 24, (1, 14, 14))
    assert [tube.channels for tube in model.tubes] == [384, 192, 768]
    small = tubevit.scaling(size="b", trained=4)
    assert (tubes(small).gate, small.tasks["k600"].length) == (0, Length(steps=50_000)), "Table 9 has no gate"
    assert [tube.channels for tube in tubes(small).tubes] == [96, 48, 192]


def cuts(model: TubeViTConfig) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(tube.kernel, tube.neighbors) for tube in model.tubes]


def test_an_ablation_changes_what_its_table_says() -> None:
    plain = tubes(tubevit.ablation())
    assert plain == tubes(tubevit.kinetics600(imagenet=""))
    for name in ("none", "learned", "relative", "fixed-no-stride"):
        assert tubes(tubevit.ablation(positions=name)) == replace(plain, positions=name)
    assert [len(tubes(tubevit.ablation(tubes=count)).tubes) for count in (1, 2, 4)] == [0, 1, 3]
    without, fourfold = (tubes(tubevit.ablation(space_to_depth=how)) for how in ("none", "x4 T"))
    assert cuts(without) == [((8, 8, 8), (1, 1, 1)), ((16, 4, 4), (1, 1, 1)), ((4, 12, 12), (1, 1, 1))]
    assert cuts(fourfold)[1] == ((16, 4, 4), (4, 1, 1))
    assert [tube.grid((64, 224, 224)) for tube in fourfold.tubes][1:] == [(7, 7, 7), (4, 7, 7)]
    assert tubes(tubevit.ablation(interpolated=True)) == replace(plain, learned=((8, 8, 8),))
    added = tubevit.ablation(init="runs/vit", added=4)
    assert (tubes(added).added, added.tasks["k600"].length) == (4, Length(steps=70_000))


def test_flags_give_the_patches_alone_and_more_tokens() -> None:
    """Table 5's patches of every frame, and Table 7d's smaller strides."""
    changes = {"model.tubes": "[]", "model.patch.stride": "1,16,16"}
    patches = tubes(override(tubevit.kinetics600(size="l"), changes))
    assert [tube.grid((64, 224, 224)) for tube in patches.video_tubes] == [(64, 14, 14)]
    denser = override(tubes(tubevit.ablation()), {"tubes.0.stride": "8,32,32"})
    assert (denser.tubes[0].grid((64, 224, 224)), denser.tubes[1:]) == ((7, 7, 7), tubevit.TUBES[1:])


def test_table_14_names_tubes_by_letters_and_numerals() -> None:
    """All seven rows; those without (a) have no patch in videos."""
    rows = re.findall(r'"((?:[a-h]\+[iv]+ ?)+)"', tubevit.tube_shapes.__doc__ or "")
    assert len(set(rows)) == 7
    for row in rows:
        experiment = tubevit.tube_shapes(shapes=row)
        model = tubes(experiment)
        assert model.patch_videos == ("a+" in row)
        assert len(model.video_tubes) == len(row.split())
        assert sum(task.length.steps for task in experiment.tasks.values()) == 50_000
    model = tubes(tubevit.tube_shapes(shapes="b+iv e+v"))
    assert [(t.kernel, t.stride) for t in model.tubes] == [((4, 32, 32), (16, 16, 16)), ((8, 8, 8), (32, 32, 32))]
    with pytest.raises(ConfigError, match="'e\\+vi' is no shape"):
        tubevit.tube_shapes(shapes="e+vi")


# Tables 6 and 9: what is trained
@pytest.mark.parametrize(
    ("trained", "gated", "modules"),
    [
        (0, True, {"heads"}),
        (1, False, {"heads", "transformer.blocks.11", "transformer.norm"}),
        (2, True, {"heads", "gate", "transformer.blocks.0", "transformer.blocks.1", "transformer.norm"}),
    ],
)
def test_the_last_layers_are_trained(trained: int, gated: bool, modules: set[str]) -> None:
    experiment = tubevit.scaling(size="b", trained=trained, gated=gated)
    with torch.device("meta"):
        model = tubes(experiment).build()
    names = [f"encoder.{name}" for name, _ in model.named_parameters()] + ["heads.k600.weight"]
    found = {name for name in names if any(fnmatchcase(name, p) for p in experiment.trainable)}
    told = {".".join(name.removeprefix("encoder.").split(".")[:3]) for name in found}
    assert {_module(name) for name in told} == modules
    for pattern in experiment.trainable:
        assert any(fnmatchcase(name, pattern) for name in names), pattern


def _module(name: str) -> str:
    parts = name.split(".")
    return parts[0] if parts[0] in ("heads", "gate") else ".".join(parts[: 2 if parts[1] == "norm" else 3])


def test_all_layers_are_full_fine_tuning() -> None:
    assert tubevit.scaling(trained=32).trainable == ("*",)
    with pytest.raises(ValueError, match="between 0 and the 32 layers"):
        tubevit.scaling(trained=33)


def test_a_recipes_model_takes_images_and_videos() -> None:
    """The recipe's model, made narrow, with its task's head, the last layer alone trained."""
    experiment = tubevit.kinetics600()
    small = {"width": 24, "depth": 2, "heads": 2, "mlp": 16}
    changes = {f"model.backbone.{name}": value for name, value in small.items()}
    changes |= {f"tasks.{task}.objective.classes": "a,b" for task in experiment.tasks}
    experiment = override(experiment, changes)
    model = initial_model(experiment).eval()
    with torch.no_grad():
        assert model({"image": torch.zeros(1, 3, 224, 224)}, "imagenet").shape == (1, 2)
        assert model({"video": torch.zeros(1, 64, 3, 224, 224)}, "k600").shape == (1, 2)
    choose_trainable(model, tubevit.last_layers(tubes(experiment), 1))
    assert {name for name, p in model.named_parameters() if p.requires_grad and "blocks.0" in name} == set()
    assert cost(experiment.model, 2, ("video",)).tokens == 1177


@pytest.mark.parametrize("name", TUBEVIT)
def test_an_experiment_can_be_saved_and_read_back_and_says_if_the_papers_has_weights(name: str) -> None:
    experiment = TUBEVIT[name]()
    assert from_json(Experiment, to_json(experiment)) == experiment
    assert bool(experiment.notes) == (name in ("tubevit.ssv2", "tubevit.charades", "tubevit.scaling"))
    if name != "tubevit.tube_shapes":
        assert not TUBEVIT[name](init="runs/some").notes


@pytest.mark.parametrize("name", TUBEVIT)
def test_a_docstring_gives_the_command_the_papers_figures_and_the_layout_of_the_data(name: str) -> None:
    text = " ".join((TUBEVIT[name].__doc__ or "").split())
    for needed in (f"tubelet train {name} --data", "The paper's figures", "Data: ", "Hardware and time: unknown"):
        assert needed in text, f"{name} lacks {needed!r}"
