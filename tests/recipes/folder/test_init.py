"""The recipe ``folder`` with weights to start from, and what it says where there are few files and none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from folders import TINY, clips, pictures, sounds
from tubelet.configs import ConfigError
from tubelet.evaluation.run import validator
from tubelet.models import Model
from tubelet.models.ast import ASTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.recipes import folder as folder_recipe
from tubelet.recipes.folder import folder
from tubelet.recipes.folder import pace as folder_pace
from tubelet.recipes.folder.pace import Pace
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.training.classification import Classification
from tubelet.training.experiment import AdamW, Experiment
from tubelet.training.ranks import Ranks
from tubelet.training.run import train
from tubelet.weights.folder import save_model


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "vit"
    config = ViTConfig(backbone=TINY, patch=(8, 8), image=ImageSpec(size=(16, 16), short_side=16))
    torch.manual_seed(0)
    save_model(path, Model(config.build(), {}), config, {})
    return str(path)


def many_pictures(path: Path, files: int = 50, size: int = 24) -> str:
    """Two classes of noise of different brightness."""
    random = np.random.default_rng(0)
    for gray in (60, 190):
        (path / str(gray)).mkdir(parents=True)
        for i in range(files):
            pixels = np.clip(random.normal(gray, 40, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path / str(gray) / f"{i}.png")
    return str(path)


def test_weights_are_probed_first_and_fine_tuned_by_layers(tmp_path: Path, vit: str) -> None:
    made = folder(many_pictures(tmp_path / "data"), init=vit, epochs=2)
    assert made.training.probe_first
    assert made.optimizer == AdamW(decay="weights", layer_decay=0.75)
    assert made.trainable == ("*",)
    scratch = folder(str(tmp_path / "data"), epochs=2, size="128x4")
    assert not scratch.training.probe_first
    assert scratch.optimizer == AdamW(decay="weights")
    assert made.tasks["folder"].learning_rate <= scratch.tasks["folder"].learning_rate


def test_few_passes_mix_erase_and_drop_nothing(tmp_path: Path, vit: str) -> None:
    data = many_pictures(tmp_path / "data")
    for epochs, strength in ((2, 0.0), (40, 0.2)):
        task = folder(data, init=vit, epochs=epochs).tasks["folder"]
        assert isinstance(task.objective, Classification)
        assert (task.objective.mixup.alpha, task.augment.erase, task.stochastic_depth) == (
            strength, strength, strength / 2
        )  # fmt: skip


@pytest.mark.parametrize("here", [True, False])
def test_weights_are_fine_tuned_in_bfloat16_where_the_machine_computes_it(
    tmp_path: Path, vit: str, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    monkeypatch.setattr(folder_recipe, "computes_bfloat16", lambda: here)
    made = folder(many_pictures(tmp_path / "data"), init=vit, epochs=1)
    assert made.training.precision == ("bfloat16" if here else "float32")
    assert folder(str(tmp_path / "data"), epochs=1, size="128x4").training.precision == "float32"


def test_where_no_pass_fits_heads_alone_train(tmp_path: Path, vit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = many_pictures(tmp_path / "data")

    def measured(update: float) -> Experiment:
        def measure(experiment: Experiment, ranks: Ranks) -> dict[str, Pace]:
            return {"folder": Pace(update=update, first_read=0.0, head=100)}

        monkeypatch.setattr(folder_pace, "measure", measure)
        return folder(data, init=vit, minutes=2, baseline=False)

    fast, slow = measured(0.01), measured(60.0)
    assert (fast.trainable, slow.trainable) == (("*",), ("heads.*",))
    assert slow.tasks["folder"].length.steps == 1
    assert slow.training.validate_every == 1
    batch = slow.tasks["folder"].batch_size
    forward = 0.45 * 60.0 / batch
    seconds = float(slow.chosen["seconds"])
    assert seconds > 100 * forward, "the forward over all examples is said"
    assert seconds < 200 * forward + 60.0 + 60.0
    again = folder(data, init=vit, epochs=float(slow.chosen["epochs"]), baseline=False)
    assert (again.trainable, again.tasks, again.training) == (slow.trainable, slow.tasks, slow.training)
    train(slow, tmp_path / "run", validate=validator(), progress=False)


@pytest.mark.parametrize(("epochs", "rate"), [(1.0, 4e-6), (20.0, 8e-5), (100.0, 1e-4)])
def test_few_updates_of_fine_tuning_learn_slowly(tmp_path: Path, vit: str, epochs: float, rate: float) -> None:
    """Eight updates in a pass: Adam's first steps are of the size of the rate, whatever the gradients."""
    made = folder(many_pictures(tmp_path / "data"), init=vit, epochs=epochs, baseline=False)
    assert made.tasks["folder"].length.steps == 8 * epochs
    assert made.tasks["folder"].learning_rate == pytest.approx(rate)


@pytest.fixture(scope="module")
def large_vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image ViT of 16x16 patches that was made for crops of 224 pixels."""
    path = tmp_path_factory.mktemp("weights") / "large"
    config = ViTConfig(backbone=TINY)
    save_model(path, Model(config.build(), {}), config, {})
    return str(path)


@pytest.mark.parametrize(
    ("side", "update", "short"), [(64, 0.005, 224), (64, 0.7, 112), (64, 30.0, 64), (24, 0.005, 80)]
)
def test_pictures_are_as_large_as_time_allows(
    tmp_path: Path, large_vit: str, monkeypatch: pytest.MonkeyPatch, side: int, update: float, short: int
) -> None:
    """The more time an update of the smallest takes, the smaller the pictures; they are taken whole, and enlarged at
    most four times."""

    def measure(experiment: Experiment, ranks: Ranks) -> dict[str, Pace]:
        return {"folder": Pace(update=update, first_read=0.0, head=100)}

    monkeypatch.setattr(folder_pace, "measure", measure)
    made = folder(many_pictures(tmp_path / "data", size=side), init=large_vit, minutes=2, baseline=False)
    assert isinstance(made.model, ViTConfig)
    assert (made.model.image.size, made.model.image.fit) == ((short, short), "stretch")
    assert made.chosen["size"] == str(short)


@pytest.mark.parametrize(("kind", "size"), [("pictures", (112, 144)), ("clips", (112, 112))])
def test_size_is_the_short_side_with_weights(tmp_path: Path, large_vit: str, kind: str, size: tuple[int, int]) -> None:
    made = folder({"pictures": pictures, "clips": clips}[kind](tmp_path / "data"), init=large_vit, epochs=1, size="112")
    (spec,) = made.model.inputs.values()
    assert isinstance(spec, ImageSpec | VideoSpec)
    assert (spec.size, spec.fit) == (size, "stretch")
    if isinstance(made.model, ViViTConfig):
        assert made.model.temporal_pool == "mean"


def test_the_size_of_a_model_from_scratch_is_none_with_weights(tmp_path: Path, large_vit: str) -> None:
    with pytest.raises(ConfigError, match=r"size: '192x6' is that of a model from scratch; with --init it is pixels"):
        folder(pictures(tmp_path), init=large_vit, epochs=1, size="192x6")


@pytest.mark.parametrize("kind", ["pictures", "clips", "sounds"])
def test_a_transformers_image_vit_starts_any_modality(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=16, **size)).save_pretrained(
        tmp_path / "vit"
    )
    make = {"pictures": pictures, "clips": clips, "sounds": sounds}[kind]
    made = folder(make(tmp_path / "data"), init=str(tmp_path / "vit"), epochs=1)
    assert isinstance(made.model, {"pictures": ViTConfig, "clips": ViViTConfig, "sounds": ASTConfig}[kind])
    assert made.training.probe_first
    train(made, tmp_path / "run", validate=validator(), progress=False)
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_few_files_without_weights_name_some(tmp_path: Path, vit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = pictures(tmp_path / "pictures")
    notes = folder(seen, epochs=1, size="128x4").notes
    assert f"`tubelet train folder {seen} --init hf:google/vit-base-patch16-224-in21k`" in notes
    assert "as a ViViT" not in notes
    assert "as a ViViT" in folder(clips(tmp_path / "clips"), epochs=1, size="128x4").notes
    assert "as AST and MBT do" in folder(sounds(tmp_path / "sounds"), epochs=1, size="128x4").notes
    assert "hf:google" not in folder(seen, epochs=1, init=vit).notes
    monkeypatch.setattr("tubelet.recipes.folder._FEW", 5)
    assert "hf:google" not in folder(seen, epochs=1, size="128x4").notes
