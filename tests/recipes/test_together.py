"""The recipe for folders of sounds, and for several folders at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from folders import TINY, manifest, pictures, quick, sounds
from tubelet.cli import main
from tubelet.configs import ConfigError
from tubelet.data.manifest import Record, write_manifest
from tubelet.data.sound import spectrograms
from tubelet.data.views import Views
from tubelet.media.audio import read_audio
from tubelet.models import Model, ModelConfig
from tubelet.models.ast import ASTConfig
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.recipes.folder import folder
from tubelet.recipes.folder import pace as folder_pace
from tubelet.recipes.folder.pace import Pace
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.training.experiment import Experiment
from tubelet.training.ranks import Ranks
from tubelet.weights.folder import save_model

IMAGE = ImageSpec(size=(32, 32), short_side=32)


def saved(path: Path, config: ModelConfig) -> str:
    save_model(path, Model(config.build(), {}), config, {})
    return str(path)


def polyvit(model: ModelConfig) -> PolyViTConfig:
    assert isinstance(model, PolyViTConfig)
    return model


def ast(model: ModelConfig) -> ASTConfig:
    assert isinstance(model, ASTConfig)
    return model


# Sounds -------------------------------------------------------------------------------------------------------------


def test_sounds_train_an_ast_that_hears_them_whole(tmp_path: Path) -> None:
    made = quick(sounds(tmp_path / "tones"))
    audio = ast(made.model).audio
    assert (audio.frames, audio.stretch, ast(made.model).patch) == (40, 0.36, (2, 40)), "short: all stretched alike"
    assert (made.tasks["folder"].inputs, made.tasks["folder"].views) == (("audio",), Views(1, 1))
    assert "8 training, 0 validation and 2 test sounds of 2 classes; a typical sound lasts 0.30 s." in made.notes


def test_a_span_covers_three_sounds_in_four_and_longer_ones_get_more_views(tmp_path: Path) -> None:
    sounds(tmp_path / "mixed" / "train", [1.0, 1.0, 2.0, 6.0])
    sounds(tmp_path / "mixed" / "val", [1.0])
    audio = ast(quick(str(tmp_path / "mixed")).model).audio
    assert (audio.frames, audio.stretch) == (300, 0), "3 s: three quarters of the way up"
    long = quick(sounds(tmp_path / "long", [20.0, 20.0]))
    assert ast(long.model).audio.frames == 804, "8 s at most, in whole slices of 12 frames"
    assert long.tasks["folder"].views == Views(3, 1)


def test_sounds_are_normalized_by_their_own_mean_and_deviation(tmp_path: Path) -> None:
    path = sounds(tmp_path / "tones", [0.5] * 5)
    made = quick(path)
    spec = ast(made.model).audio
    files = sorted(Path(path).rglob("*.wav"))
    plain = replace(spec, mean=0.0, std=1.0)
    heard = torch.cat([spectrograms(read_audio(file, 0, 0.5, 16_000)[None], plain).flatten() for file in files])
    assert abs(spec.mean - heard.mean().item()) < 0.05, "all files, where the recipe looks at those for training"
    assert abs(spec.std - heard.std().item()) < 0.05


def test_sounds_that_cannot_be_read_are_told_before_training(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.csv", 2.0, 20, suffix=".wav")
    for file in (tmp_path / "files of m").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=r"m\.csv: none of the training files looked at can be read"):
        quick(path)
    silent = manifest(tmp_path / "short.csv", 0.01, 20, suffix=".wav")
    with pytest.raises(ConfigError, match=r"short\.csv: the sound of none"):
        quick(silent)


def test_several_labels_of_a_sound_get_a_sigmoid_each(tmp_path: Path) -> None:
    sounds(tmp_path)
    files = sorted(tmp_path.rglob("*.wav"))
    labels = [("tone",), ("tone", "high"), ("high",)]
    records = [
        Record(str(file), {"label": labels[i % 3]}, split="val" if i > 6 else "train") for i, file in enumerate(files)
    ]
    write_manifest(tmp_path / "m.csv", records)
    objective = quick(str(tmp_path / "m.csv")).tasks["folder"].objective
    assert (objective.labels, objective.loss, objective.smoothing) == ("several", "sigmoid", 0)


# Several folders ----------------------------------------------------------------------------------------------------


def test_several_folders_co_train_a_polyvit_with_a_task_each(tmp_path: Path) -> None:
    clips = manifest(tmp_path / "my clips.csv", 2.0, 100)
    made = quick((pictures(tmp_path / "grays"), clips, sounds(tmp_path / "tones")))
    model = polyvit(made.model)
    assert {name: (type(m.spec), m.patch) for name, m in model.modalities.items()} == {
        "image": (ImageSpec, (1, 4, 4)),
        "video": (VideoSpec, (4, 8, 8)),
        "audio": (SpectrogramSpec, (1, 2, 40)),
    }
    assert {name: task.inputs for name, task in made.tasks.items()} == {
        "grays": ("image",),
        "my_clips": ("video",),
        "tones": ("audio",),
    }
    assert {name: task.batch_size for name, task in made.tasks.items()} == {"grays": 2, "my_clips": 11, "tones": 2}
    assert "my_clips: 90 training, 10 validation and 4 test clips" in made.notes


def test_folders_of_one_kind_share_its_tokenizer(tmp_path: Path) -> None:
    made = quick((manifest(tmp_path / "a.csv", 1.0, 20), manifest(tmp_path / "b.csv", 3.0, 20)))
    video = polyvit(made.model).inputs["video"]
    assert isinstance(video, VideoSpec)
    assert list(made.model.inputs) == ["video"]
    assert (video.frames, video.fps) == (16, 8.0), "2 s: the middle of both folders' lengths"


def test_the_model_grows_with_all_folders_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(experiment: Experiment, ranks: Ranks) -> dict[str, Pace]:
        return dict.fromkeys(experiment.tasks, Pace(update=1e-4, first_read=0.0))

    monkeypatch.setattr(folder_pace, "measure", measure)
    a, b = manifest(tmp_path / "a.csv", 1.0, 1_200), manifest(tmp_path / "b.csv", 1.0, 1_200)
    assert [
        polyvit(folder((a, b)).model).backbone.depth,
        polyvit(folder((a, pictures(tmp_path / "g"))).model).backbone.depth,
    ] == [6, 4]


def test_names_are_the_folders_and_fit_a_flag(tmp_path: Path) -> None:
    names = ["a-b c.csv", "keys.csv", "x/manifest.csv"]
    (tmp_path / "x").mkdir()
    made = quick(tuple(manifest(tmp_path / name, 2.0, 20) for name in names))
    assert list(made.tasks) == ["a_b_c", "keys_", "x"]
    Model(made.model.build(), {name: torch.nn.Identity() for name in made.tasks})


def test_what_cannot_be_told_apart_says_so(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    a, b = manifest(tmp_path / "a.csv", 2.0, 20), manifest(tmp_path / "b" / "a.csv", 2.0, 20)
    with pytest.raises(ConfigError, match="would both be the task 'a'; rename one"):
        quick((a, b))
    with pytest.raises(ConfigError, match="given twice"):
        quick((a, a))
    with pytest.raises(ConfigError, match="name a folder"):
        quick(())
    sounds(tmp_path / "mixed")
    Image.new("RGB", (32, 32)).save(tmp_path / "mixed" / "200 Hz" / "cover.png")
    with pytest.raises(ConfigError, match=r"mixed: files of several kinds: .*cover\.png"):
        quick(str(tmp_path / "mixed"))


# Weights to start from ------------------------------------------------------------------------------------------------


def test_an_image_vit_starts_sounds_and_several_folders(tmp_path: Path) -> None:
    vit = saved(tmp_path / "vit", ViTConfig(backbone=TINY, patch=(8, 8), image=IMAGE))
    tones = sounds(tmp_path / "tones")
    alone = ast(quick(tones, init=vit).model)
    assert (alone.backbone, alone.patch, alone.audio.frames) == (TINY, (8, 8), 32)
    both = polyvit(quick((pictures(tmp_path / "grays"), tones), init=vit).model)
    assert (both.backbone, both.inputs["image"], both.modalities["audio"].patch) == (TINY, IMAGE, (1, 8, 8))


def test_a_polyvit_keeps_its_adaptors_and_the_modalities_that_occur(tmp_path: Path) -> None:
    modalities = {
        "image": Modality(spec=IMAGE, patch=(1, 8, 8)),
        "audio": Modality(spec=SpectrogramSpec(frames=16, mean=-3.0), patch=(1, 8, 8)),
    }
    source = saved(tmp_path / "poly", PolyViTConfig(backbone=TINY, modalities=modalities, adaptor_depth=1))
    tones = sounds(tmp_path / "tones")
    alone = polyvit(quick(tones, init=source).model)
    assert (alone.modalities, alone.adaptor_depth) == ({"audio": modalities["audio"]}, 1)
    more = polyvit(quick((tones, manifest(tmp_path / "m.csv", 2.0, 20)), init=source).model)
    assert list(more.modalities) == ["video", "audio"]
    assert more.modalities["video"].patch == (4, 8, 8)
    assert more.inputs["video"].extent == (16, 32, 32)


def test_weights_that_cannot_start_what_is_asked(tmp_path: Path) -> None:
    video = VideoSpec(frames=4, size=(32, 32), short_side=32)
    config = ViViTConfig(backbone=TINY, tubelet=(2, 8, 8), video=video, attention_type="factorized_encoder")
    source, tones = saved(tmp_path / "fe", config), sounds(tmp_path / "tones")
    with pytest.raises(ConfigError, match=r"is a model of video that cannot start one of audio; an image ViT"):
        quick(tones, init=source)
    with pytest.raises(ConfigError, match="for several folders"):
        quick((manifest(tmp_path / "a.csv", 2.0, 20), manifest(tmp_path / "b.csv", 2.0, 20)), init=source)
    assert quick(str(tmp_path / "a.csv"), init=source).model == config


# The whole way --------------------------------------------------------------------------------------------------------


def test_two_folders_at_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grays, tones, out = pictures(tmp_path / "grays"), sounds(tmp_path / "tones"), tmp_path / "run"
    flags = ["--epochs", "1", "--size", "32x2", "--no-baseline"]
    for task in ("grays", "tones"):
        flags += [f"--tasks.{task}.length", "24 steps", f"--tasks.{task}.warmup", "2 steps"]
        flags += [f"--tasks.{task}.augment.noise", "0"]
        flags += [f"--tasks.{task}.learning-rate", "5e-3", f"--tasks.{task}.augment.color", "0"]
        flags += [f"--tasks.{task}.augment.frequency-masks", "0", f"--tasks.{task}.batch-size", "4"]
    assert main(["train", "folder", grays, tones, "--out", str(out), "--training.workers", "0", *flags]) == 0
    results = json.loads((out / "results.json").read_text())["tasks"]
    assert {name: result["metrics"]["top1"] for name, result in results.items()} == {"grays": 1.0, "tones": 1.0}
    capsys.readouterr()
    assert main(["predict", str(out), f"{tones}/200 Hz/0.wav", "--task", "tones", "--top", "1", "--json"]) == 0
    assert "200 Hz" in capsys.readouterr().out
