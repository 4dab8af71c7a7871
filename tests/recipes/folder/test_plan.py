"""What the recipe ``folder`` looks at, plans and says: sizes, lengths, time, resuming, sentences that flags change."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folders import clips, manifest, quick, sounds
from tubelet.cli import main
from tubelet.configs import ConfigError, override
from tubelet.evaluation import baselines
from tubelet.models.ast import ASTConfig
from tubelet.models.vit import ViTConfig
from tubelet.recipes.describe import describe
from tubelet.recipes.folder import pace as folder_pace
from tubelet.recipes.folder.model import backbone
from tubelet.recipes.folder.pace import Pace, Plan, Wanted, plan_lengths
from tubelet.training.experiment import Experiment
from tubelet.training.ranks import Ranks
from tubelet.training.resolve import resolve
from tubelet.training.run import train_set

FAST, SLOW = Pace(update=1e-4, first_read=0.0), Pace(update=1.0, first_read=0.0)
TINY_RUN = ("--epochs", "1", "--size", "32x1", "--training.workers", "0")


def paced(monkeypatch: pytest.MonkeyPatch, pace: Pace) -> None:
    """As if this had been measured, of every task."""

    def measure(experiment: Experiment, ranks: Ranks) -> dict[str, Pace]:
        return dict.fromkeys(experiment.tasks, pace)

    monkeypatch.setattr(folder_pace, "measure", measure)


def unmeasured(*_: object) -> dict[str, Pace]:
    raise AssertionError("measured, where it was known")


def noise(path: Path, classes: Mapping[str, int], sizes: Sequence[tuple[int, int]] = ((24, 24),)) -> str:
    """Class folders of so many pictures of (width, height), darker and brighter."""
    random = np.random.default_rng(0)
    for number, (name, count) in enumerate(classes.items()):
        (path / name).mkdir(parents=True)
        for i in range(count):
            width, height = sizes[i % len(sizes)]
            pixels = np.clip(random.normal(60 + 60 * number, 30, (height, width, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(path / name / f"{i}.png")
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two classes of 60 pictures of 24x24 pixels."""
    return noise(tmp_path_factory.mktemp("plan") / "pictures", {"dark": 60, "light": 60})


@pytest.fixture(scope="module")
def made(data: str) -> Experiment:
    return quick(data)


# What it sees -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "seen", "patch"),
    [
        ([(20, 20)], (20, 20), 4),
        ([(12, 12)], (12, 12), 2),
        ([(40, 20)], (20, 40), 4),
        ([(300, 200)], (64, 96), 8),
        ([(100, 300)], (128, 64), 8),
        ([(600, 100)], (64, 128), 8),
        ([(20, 20), (20, 20), (300, 200)], (20, 20), 4),
    ],
    ids=["small", "tiny", "small and wide", "large", "tall", "very wide", "mixed"],
)
def test_small_pictures_keep_their_pixels_and_large_ones_their_aspect(
    tmp_path: Path, sizes: list[tuple[int, int]], seen: tuple[int, int], patch: int
) -> None:
    model = quick(noise(tmp_path, {"a": 9, "b": 9}, sizes)).model
    assert isinstance(model, ViTConfig)
    assert (model.image.size, model.image.fit, model.patch) == (seen, "stretch", (patch, patch))


@pytest.mark.parametrize(("seconds", "stretch"), [([0.3, 0.5, 0.7, 0.9, 1.1], True), ([2.0, 3.0, 4.0], False)])
def test_short_sounds_are_stretched_and_long_ones_are_not(tmp_path: Path, seconds: list[float], stretch: bool) -> None:
    made = quick(sounds(tmp_path, seconds))
    assert isinstance(made.model, ASTConfig)
    audio = made.model.audio
    assert (audio.stretch > 0) == stretch
    if stretch:
        assert audio.stretch >= 0.9, "nine in ten are taken whole"
    (told,) = (line for line in describe(resolve(made), ()) if line.startswith("Input"))
    assert ("is stretched" in told) == stretch
    assert (f"{audio.seconds:.2f} s at a time" in told) != stretch


def test_validation_is_not_in_training(made: Experiment) -> None:
    prepared = resolve(made)
    train, validation = prepared.training["folder"], prepared.validation["folder"]
    assert (len(train), len(validation)) == (86, 10)
    assert not {r.path for r in train} & {r.path for r in validation}
    assert "86 training, 10 validation and 24 test pictures of 2 classes; 24x24 pixels." in made.notes
    assert len(train_set(prepared.resolved.experiment, "folder", train)) == 86
    assert prepared.resolved.data["folder"].examples == 86
    assert "a validation part" not in made.notes


def test_small_and_untested_classes_are_named(tmp_path: Path) -> None:
    notes = quick(noise(tmp_path, {"many": 20, "four": 4, "one": 1})).notes.splitlines()
    assert "Classes 'four', 'one': fewer than 5 training files, from which nothing reliable can be learned." in (
        "\n".join(notes)
    )
    assert "Class 'one': no test file, so the result says nothing about it." in notes
    assert "There are too few files for a validation part: the last weights are taken." in notes


def test_one_class_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 1 class, and .* needs at least two: .* such as yes/ and no/"):
        quick(noise(tmp_path, {"only": 5}))


# What it plans ------------------------------------------------------------------------------------------------------


SIZES = {"128x4": 0, "192x6": 2_000, "256x8": 20_000, "384x12": 100_000}


def planned(
    made: Experiment, examples: int, minutes: float, sizes: Mapping[str, int] = SIZES, epochs: float = 0.0
) -> Plan:
    def experiment(plan: Plan) -> Experiment:
        return replace(made, model=replace(made.model, backbone=backbone(plan.size)))

    passes = min(800, max(40, 100_000 / examples))
    return plan_lengths(
        experiment,
        {"folder": examples},
        {"folder": (examples // 10, examples // 5)},
        wanted=Wanted(sizes=sizes, passes=passes, most=passes),
        epochs=epochs,
        seconds=60 * minutes,
        began=time.monotonic(),
        fits_baseline=False,
    )


@pytest.mark.parametrize(
    ("examples", "pace", "size"),
    [
        (100, FAST, "128x4"),
        (2_000, FAST, "192x6"),
        (40_000, FAST, "256x8"),
        (100_000, FAST, "384x12"),
        (2_000, SLOW, "128x4"),
        (40_000, SLOW, "128x4"),
    ],
)
def test_a_larger_model_needs_data_and_time(
    made: Experiment, monkeypatch: pytest.MonkeyPatch, examples: int, pace: Pace, size: str
) -> None:
    paced(monkeypatch, pace)
    plan = planned(made, examples, 60.0)
    assert plan.size == plan.chosen["size"] == size


def test_half_the_minutes_are_half_the_passes_where_time_is_short(
    made: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    paced(monkeypatch, SLOW)
    whole, half = planned(made, 800, 120.0), planned(made, 800, 60.0)
    assert whole.passes == pytest.approx(2 * half.passes, rel=0.03)
    assert whole.updates["folder"] == round(whole.passes * (800 // made.tasks["folder"].batch_size))
    for plan, minutes in ((whole, 120), (half, 60)):
        assert 0.98 * 60 * minutes < float(plan.chosen["seconds"]) < 1.002 * 60 * minutes


def test_where_time_is_long_training_ends_earlier(made: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, FAST)
    passes = [planned(made, examples, 60.0).passes for examples in (50, 500, 5_000)]
    assert passes == [800, 200, 40], "the fewer the examples, the more often they are seen"
    assert float(planned(made, 50, 60.0).chosen["seconds"]) < 60, "an hour is allowed, not used up"


def test_at_least_one_pass_and_the_time_it_takes_is_told(made: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, SLOW)
    plan = planned(made, 40_000, 1.0)
    assert plan.passes == 1
    assert float(plan.chosen["seconds"]) > 40_000 // made.tasks["folder"].batch_size, "more than the minute"


def test_passes_that_are_given_only_leave_the_size_to_plan(made: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, FAST)
    assert planned(made, 500, 60.0, epochs=3.0).passes == 3
    monkeypatch.setattr(folder_pace, "measure", unmeasured)
    known = planned(made, 500, 60.0, sizes={"64x2": 0}, epochs=3.0)
    assert (known.size, known.passes, known.chosen) == ("64x2", 3, {"epochs": 3.0, "size": "64x2"})


# What it says -------------------------------------------------------------------------------------------------------


def told(made: Experiment, **flags: str) -> list[str]:
    changes = {path.replace("__", "."): value for path, value in flags.items()}
    timed = replace(made, chosen={"seconds": 100.0, "least_seconds": 80.0})
    return describe(resolve(override(timed, changes)), tuple(changes))


def line_of(lines: Sequence[str], start: str) -> str:
    (line,) = (line for line in lines if line.startswith(start))
    return line


def test_the_time_is_told_where_no_flag_changed_it(made: Experiment) -> None:
    assert line_of(told(made), "Time") == (
        "Time: about 1.7 minutes from start to report, or 80 seconds if validation stops moving (--minutes)."
    )
    assert told(made)[-1] == told(made, seed="3", tasks__folder__augment__flip="0.5")[-1]


@pytest.mark.parametrize(
    ("flags", "start", "says"),
    [
        ({"model__backbone__depth": "3"}, "Model", None),
        ({"tasks__folder__length": "7 steps"}, "Training", "0.814 passes over 86 files, 7 updates of 10 "),
        ({"tasks__folder__batch_size": "5"}, "Training", "updates of 5 "),
        ({"tasks__folder__learning_rate": "0.5"}, "Training", "a learning rate of 0.5;"),
        ({"training__validate_every": "4"}, "Training", "10 files validate every 4 updates"),
        ({"model__image__size": "32,32"}, "Input", "the whole picture at 32x32 pixels"),
        ({"tasks__folder__augment__rotate": "0"}, "At random", "scale, place, slant, color, a part erased;"),
        ({"tasks__folder__objective__mixup__alpha": "0"}, "At random", "a part erased (--tasks"),
    ],
)
def test_what_is_said_is_what_the_flags_say(
    made: Experiment, flags: dict[str, str], start: str, says: str | None
) -> None:
    lines, before = told(made, **flags), line_of(told(made), start)
    assert line_of(lines, start) != before
    if says:
        assert says in line_of(lines, start)
        assert says not in before
    assert line_of(lines, "Time").startswith("Time: not known, as flags changed what was planned")


def test_without_validation_none_is_said(made: Experiment) -> None:
    assert "validate every" in line_of(told(made), "Training")
    assert "validate every" not in line_of(told(made, training__validate_every="0"), "Training")


def test_nothing_is_mirrored_until_asked(made: Experiment) -> None:
    assert made.tasks["folder"].augment.flip == 0
    plain = line_of(told(made), "At random")
    assert "Nothing is mirrored: --tasks.folder.augment.flip 0.5 where left and right do not matter." in plain
    asked = line_of(told(made, tasks__folder__augment__flip="0.5"), "At random")
    assert "mirroring" in asked
    assert "Nothing is mirrored" not in asked


def test_several_folders_say_which_is_meant(tmp_path: Path, data: str) -> None:
    made = quick((data, sounds(tmp_path / "tones")))
    lines = describe(resolve(made), ())
    assert line_of(lines, "Training pictures").startswith("Training pictures: 0.93 passes over 86 files")
    assert line_of(lines, "Training tones").startswith("Training tones: 1 passes over 8 files")
    assert "--tasks.pictures.augment.flip 0.5" in "\n".join(lines)
    assert "--tasks.tones.augment.flip" not in "\n".join(lines)
    assert "about 1.7 minutes" in line_of(told(made, tasks__pictures__augment__flip="0.5"), "Time")


# At the command line ------------------------------------------------------------------------------------------------


def three_classes_of_two(path: Path) -> str:
    return noise(path, {"a": 2, "b": 2, "c": 2})


def mixed_sizes(path: Path) -> str:
    return noise(path, {"a": 10, "b": 10}, [(20, 20), (100, 40), (30, 200), (64, 48)])


@pytest.mark.parametrize(
    ("make", "flags"),
    [
        (partial(clips, files=4), ["--no-baseline"]),
        (three_classes_of_two, ["--no-baseline"]),
        (three_classes_of_two, []),
        (mixed_sizes, ["--no-baseline"]),
    ],
    ids=["eight clips", "three by two", "three by two with a baseline", "mixed sizes"],
)
def test_small_and_odd_folders_run_to_the_end(make: Callable[[Path], str], flags: list[str], tmp_path: Path) -> None:
    data, out = make(tmp_path / "data"), tmp_path / "run"
    assert main(["train", "folder", data, "--out", str(out), *TINY_RUN, *flags]) == 0
    result = json.loads((out / "results.json").read_text())["tasks"]["folder"]
    assert result["coverage"]["scored"] == result["coverage"]["expected"] > 0
    assert (out / "model" / "model.safetensors").is_file()
    assert (out / "baselines.json").is_file() == ("baseline" in result) == (not flags)


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was planned, with its baseline."""
    out = tmp_path_factory.mktemp("planned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        paced(patch, SLOW)
        assert main(["train", "folder", data, "--out", str(out), "--minutes", "0.5", *TINY_RUN[-2:]]) == 0
    return out


def test_what_was_measured_is_in_the_experiment(run: Path) -> None:
    saved = json.loads((run / "config.json").read_text())
    chosen, task = saved["experiment"]["chosen"], saved["experiment"]["tasks"]["folder"]
    assert chosen.keys() == {"epochs", "size", "seconds", "least_seconds", "mirror"}
    assert (chosen["epochs"], chosen["size"]) == (1, "128x4"), "no more has room"
    assert task["length"]["steps"] == saved["data"]["folder"]["updates"] == 86 // 10
    assert saved["data"]["folder"]["examples"] == 86, "without the 10 that validate"


def test_resuming_follows_the_plan_and_fits_no_baseline_again(
    run: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfitted(*_: object) -> None:
        raise AssertionError("fitted again")

    out = tmp_path / "run"
    shutil.copytree(run, out)
    shutil.rmtree(out / "model")
    (out / "results.json").unlink()
    monkeypatch.setattr(folder_pace, "measure", unmeasured)
    monkeypatch.setattr(baselines, "fit_baselines", unfitted)
    assert main(["train", "folder", data, "--out", str(out), *TINY_RUN[-2:]]) == 0
    again = json.loads((out / "results.json").read_text())
    assert again == json.loads((run / "results.json").read_text())
    assert again["tasks"]["folder"]["baseline"] == json.loads((run / "baselines.json").read_text())["folder"]


def test_passes_that_are_given_override_the_plan(
    run: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folder_pace, "measure", unmeasured)
    assert main(["train", "folder", data, "--out", str(run), "--epochs", "2", *TINY_RUN[-2:]]) == 2
    said = capsys.readouterr().err
    assert "tasks.folder.length.steps: 8 -> 16" in said
    assert "backbone" not in said, "the size is still the plan's"


def test_evaluation_prints_what_the_run_keeps(run: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "results.json").read_text())
    assert main(["eval", str(run), "--data", data, "--json"]) == 0
    assert "baseline" not in json.loads(capsys.readouterr().out)["tasks"]["folder"], "of other files"


def test_parts_in_milliseconds_are_told(tmp_path: Path) -> None:
    data = manifest(tmp_path / "m.csv", 2.0, 12)
    lines = Path(data).read_text().splitlines()
    Path(data).write_text("\n".join([f"{lines[0]},start", *(f"{line},500" for line in lines[1:])]) + "\n")
    with pytest.raises(ConfigError, match=r"start 500 lies beyond the end of the file \(2 s\).*milliseconds"):
        quick(data)
