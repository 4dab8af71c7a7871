"""The recipe for any folder with a model that is named: every family, fitted to the data, or told why not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from colors import frames_of
from folders import TINY, manifest, pictures, quick, sounds
from senses import tone
from tubelet.cli import main
from tubelet.configs import ConfigError
from tubelet.media.write import write_video
from tubelet.models import Model, ModelConfig
from tubelet.models.mbt import MBTConfig
from tubelet.models.mtv import MTVConfig
from tubelet.models.polyvit import Modality
from tubelet.models.token_learner import TokenLearnerConfig
from tubelet.models.tubevit import TubeViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.recipes.describe import describe
from tubelet.specs import SpectrogramSpec, VideoSpec
from tubelet.training.experiment import Experiment
from tubelet.training.resolve import resolve
from tubelet.weights.folder import save_model


def films(path: Path, tracks: Sequence[str] = ("low",) * 5) -> str:
    """Class folders of red and of green videos of a second, each with a tone; "" is no sound track."""
    for color in ("red", "green"):
        (path / color).mkdir(parents=True)
        for i, pitch in enumerate(tracks):
            audio = torch.from_numpy(tone(pitch)) * (1 - i / 10) if pitch else None
            write_video(path / color / f"{i}.mp4", frames_of(color) // (i + 1), fps=10.0, audio=audio)
    return str(path)


def inputs_of(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    return {name: task.inputs for name, task in experiment.tasks.items()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vivit-s/16x2-fe", ViViTConfig),
        ("vivit-ti/16x2-tl8@6", TokenLearnerConfig),
        ("tubevit-s/16", TubeViTConfig),
        ("mtv-s/2+ti/4", MTVConfig),
        ("mtv-s/4+ti/8", MTVConfig),
    ],
)
def test_a_family_is_named_for_clips_and_sees_its_own_frames(
    tmp_path: Path, name: str, kind: type[ModelConfig]
) -> None:
    made = quick(manifest(tmp_path / "m.csv", 2.0, 100), model=name)
    assert isinstance(made.model, kind)
    assert made.model.name == name
    video = made.model.inputs["video"]
    assert isinstance(video, VideoSpec)
    assert (video.shape, video.fps, video.stride) == ((32, 3, 112, 112), 16.0, 1), "two seconds"
    assert inputs_of(made) == {"folder": ("video",)}
    assert f"{name}, from scratch." in made.notes
    assert "Input video: 32 frames, 16 a second, a crop at 112x112 pixels (--model)." in describe(resolve(made), ())


def test_tubevit_learns_a_folder_of_pictures_and_one_of_clips_together(tmp_path: Path) -> None:
    made = quick((pictures(tmp_path / "grays"), manifest(tmp_path / "clips.csv", 2.0, 100)), model="tubevit-ti/16")
    assert inputs_of(made) == {"grays": ("image",), "clips": ("video",)}
    assert made.model.inputs["image"].shape == (3, 112, 112)


def test_mbt_takes_videos_and_their_sound_together(tmp_path: Path) -> None:
    made = quick(films(tmp_path / "films"), model="mbt-ti/16x2")
    assert isinstance(made.model, MBTConfig)
    assert inputs_of(made) == {"folder": ("video", "audio")}
    audio = made.model.inputs["audio"]
    assert isinstance(audio, SpectrogramSpec)
    assert audio.frames == 112, "a second in whole patches of 16 windows"
    assert audio.mean != SpectrogramSpec().mean, "measured"
    told = describe(resolve(made), ())
    assert told[1] == "Input audio: 1.12 s at a time, as 112 frames of 128 mel bins, all sound at -25 dB (--model)."
    assert "sound track" not in made.notes


def test_videos_that_lack_sound_are_told_before_training(tmp_path: Path) -> None:
    made = quick(films(tmp_path / "some", ("low", "low", "low", "", "low")), model="mbt-ti/16x2")
    assert "of the 8 videos looked at have no sound track, such as " in made.notes
    with pytest.raises(ConfigError, match=r"none: none of the 8 videos looked at has a sound track; name a model of"):
        quick(films(tmp_path / "none", ("",) * 5), model="mbt-ti/16x2")


def test_modalities_that_no_folder_has_are_left_out(tmp_path: Path) -> None:
    tones = sounds(tmp_path / "tones")
    alone, both = (
        quick(tones, model="polyvit-ti/16x2"),
        quick((tones, pictures(tmp_path / "grays")), model="polyvit-ti/16x2"),
    )
    assert list(alone.model.inputs) == ["audio"]
    assert sorted(both.model.inputs) == ["audio", "image"]
    assert inputs_of(quick(tones, model="mbt-ti/16x2")) == {"folder": ("audio",)}


def test_what_does_not_fit_says_why(tmp_path: Path) -> None:
    clips = manifest(tmp_path / "m.csv", 2.0, 20)
    with pytest.raises(ConfigError, match=r"no model is called .vvit-s/16.; did you mean .vit-s/16.\? names look "):
        quick(clips, model="vvit-s/16")
    with pytest.raises(
        ConfigError, match=r"vit-s/16 takes image, and .*m\.csv holds .* 'video', .* vivit-s/16x2-fe or mtv"
    ):
        quick(clips, model="vit-s/16")
    with pytest.raises(ConfigError, match=r"mtv-s/2\+ti/4 takes video, and .*tones holds files of kind 'audio'"):
        quick(sounds(tmp_path / "tones"), model="mtv-s/2+ti/4")


def test_a_run_of_another_family_is_fine_tuned_as_it_is(tmp_path: Path) -> None:
    modalities = {
        "video": Modality(spec=VideoSpec(frames=4, size=(16, 16), short_side=16), patch=(2, 8, 8)),
        "audio": Modality(spec=SpectrogramSpec(frames=32), patch=(1, 16, 16)),
    }
    config = MBTConfig(backbone=TINY, modalities=modalities, fusion_layer=1)
    save_model(tmp_path / "mbt", Model(config.build(), {}), config, {})
    made = quick(films(tmp_path / "films"), init=str(tmp_path / "mbt"))
    assert made.model == config
    assert inputs_of(made) == {"folder": ("video", "audio")}
    with pytest.raises(ConfigError, match=r"mbt is a model of video and audio that cannot start one of image"):
        quick(pictures(tmp_path / "grays"), init=str(tmp_path / "mbt"))


def test_videos_with_sound_at_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = films(tmp_path / "films"), tmp_path / "run"
    small = {"backbone.width": 32, "backbone.heads": 1, "backbone.mlp": 64, "backbone.depth": 2, "fusion_layer": 1}
    small |= {"modalities.video.spec.frames": 4, "modalities.video.spec.size": "32,32"}
    flags = [word for name, value in small.items() for word in (f"--model.{name}", str(value))]
    task = {"length": "16 steps", "warmup": "2 steps", "learning-rate": "5e-3", "batch-size": "4"}
    task |= {"augment.color": "0", "augment.grayscale": "0", "augment.frequency-masks": "0"}
    flags += [word for name, value in task.items() for word in (f"--tasks.folder.{name}", value)]
    flags += ["--epochs", "1", "--no-baseline"]
    command = ["train", "folder", data, "--model", "mbt-ti/16x2", "--out", str(out), "--training.workers", "0"]
    assert main([*command, *flags]) == 0
    result = json.loads((out / "results.json").read_text())["tasks"]["folder"]
    assert result["inputs"] == ["video", "audio"]
    assert (result["coverage"]["scored"], result["metrics"]["top1"]) == (2, 1.0)
    capsys.readouterr()
    assert main(["predict", str(out), f"{data}/red/0.mp4", "--top", "1", "--json"]) == 0
    assert "red" in capsys.readouterr().out
