"""The recipe for any folder, or several, looks at the data and chooses."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from folders import TINY, manifest, quick
from tubelet.configs import ConfigError
from tubelet.data.manifest import ManifestError, Record, write_manifest
from tubelet.data.views import Views
from tubelet.models import Model
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.specs import ImageSpec
from tubelet.training.experiment import Experiment
from tubelet.weights.folder import save_model


def vivit(experiment: Experiment) -> ViViTConfig:
    assert isinstance(experiment.model, ViViTConfig)
    return experiment.model


@pytest.mark.parametrize(("seconds", "fps", "views"), [(2.0, 8.0, 1), (3.0, 5.33, 1), (5.0, 5.33, 2), (60.0, 5.33, 4)])
def test_a_clip_is_as_long_as_the_videos_up_to_three_seconds(
    tmp_path: Path, seconds: float, fps: float, views: int
) -> None:
    made = quick(manifest(tmp_path / "m.csv", seconds, 100))
    assert (vivit(made).video.frames, vivit(made).video.fps) == (16, fps)
    assert made.tasks["folder"].views == Views(views, 1)


def test_passes_that_are_given_are_the_passes(tmp_path: Path) -> None:
    made = quick(manifest(tmp_path / "m.csv", 2.0, 50), epochs=2)
    task = made.tasks["folder"]
    assert (task.batch_size, task.length.steps, task.warmup.steps) == (6, 2 * (50 // 6), 1)
    assert made.chosen == {"epochs": 2, "size": "32x1"}


def test_a_split_called_test_is_the_test_split(tmp_path: Path) -> None:
    made = quick(manifest(tmp_path / "m.csv", 2.0, 20, test="test"))
    source = made.tasks["folder"].source
    assert (source.test, source.validation) == ("test", "")
    assert "20 training, 0 validation and 4 test clips of 2 classes; a typical clip lasts 2.0 s; 32x32" in made.notes


def test_pictures_train_an_image_model(tmp_path: Path) -> None:
    for blue, label in enumerate(("cat", "dog")):
        (tmp_path / label).mkdir()
        for i in range(5):
            Image.new("RGB", (40, 30), (i, 0, blue)).save(tmp_path / label / f"{i}.png")
    made = quick(str(tmp_path))
    assert isinstance(made.model, ViTConfig)
    assert made.tasks["folder"].inputs == ("image",)
    assert made.tasks["folder"].views == Views(1, 1)
    assert "pictures of 2 classes; 40x30 pixels." in made.notes


def test_an_image_model_starts_model_2_with_its_own_pixels(tmp_path: Path) -> None:
    image = ImageSpec(size=(64, 64), short_side=72, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))
    config = ViTConfig(backbone=TINY, patch=(16, 16), image=image)
    save_model(tmp_path / "vit", Model(config.build(), {}), config, {})
    made = quick(manifest(tmp_path / "m.csv", 2.0, 100), init=str(tmp_path / "vit"))
    model = vivit(made)
    assert (model.attention_type, model.backbone, model.tubelet) == ("factorized_encoder", TINY, (4, 16, 16))
    assert (model.video.size, model.video.mean, model.video.std) == (image.size, image.mean, image.std)
    assert [init.source for init in made.init] == [str(tmp_path / "vit")]
    assert made.tasks["folder"].learning_rate < quick(str(tmp_path / "m.csv")).tasks["folder"].learning_rate


def test_what_cannot_be_trained_on_says_why(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nowhere"):
        quick(str(tmp_path / "nowhere"))
    one = tmp_path / "one.csv"
    write_manifest(one, [Record(f"{i}.mp4", {"label": ("a",)}, split=s) for i, s in enumerate(("train", "val"))])
    with pytest.raises(ConfigError, match="has 1 class, and a classifier needs at least two"):
        quick(str(one))
    write_manifest(
        one, [Record(f"{i}.mp4", {"label": (str(i % 2),)}, split=s) for i, s in enumerate(["train"] * 3 + ["val"])]
    )
    with pytest.raises(ConfigError, match="can be read"):
        quick(str(one))
