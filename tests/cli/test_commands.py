"""The command line: help, recipes, overrides and errors, without training anything."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tubelet import __version__
from tubelet.cli import main


def run(*words: str) -> int:
    """The exit status of the command, whether it returns or exits."""
    try:
        return main(words)
    except SystemExit as ended:
        return int(ended.code or 0)


def config_of(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run("train", *words, "--print-config") == 0
    return json.loads(capsys.readouterr().out)


_HEAVY = ("torch", "numpy", "av", "sklearn", "matplotlib", "pyarrow")


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        (["--help"], ["demo", "train", "eval", "predict", "cost", "doctor", "data", "recipes"]),
        (["--version"], [f"tubelet {__version__}, torch {metadata.version('torch')}"]),
        (["train", "--help"], ["RECIPE"]),
        (["train", "folder", "--help"], ["--init", "--out", "--model.patch 4,4"]),
        (["train", "families.mbt_duet", "--help"], ["{both,video,audio}"]),
        (["recipes"], ["folder", "vivit.kinetics400_b16x2"]),
        (["recipes", "--json"], ['"vivit.kinetics400_b16x2": "']),
        (["predict", "--help"], ["--timeline"]),
        (["weights", "inspect", "--help"], ["SOURCE", "--for", "--like"]),
        (["convert", "--help"], ["{transformers,timm}", "--check"]),
    ],
)
def test_help_and_lists_import_nothing_heavy(words: list[str], shows: list[str]) -> None:
    code = (
        "import sys, tubelet.cli\n"
        "try: tubelet.cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', [m for m in {_HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    for part in shows:
        assert part in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "did you mean 'train'"),
        (["data", "indx"], "did you mean 'index'"),
        (["weights", "inspct"], "did you mean 'inspect'"),
        (["train", "vivit.kinetics40_b16x2"], "did you mean 'vivit.kinetics400_b16x2'"),
        (["train", "vivit.kinetics400_b16x2", "--dta", "x"], "did you mean '--data'"),
        (["train", "vivit.kinetics400_b16x2", "--sed", "1"], "did you mean '--seed'"),
        (["train", "vivit.kinetics400_b16x2", "x"], "'x' follows no flag"),
        (["train", "vivit.kinetics400_b16x2", "--tasks.k400.batchsize", "1"], "did you mean 'batch_size'"),
        (["train", "vivit.kinetics400_b16x2", "--tasks.k400.batch-size", "many"], "must be a whole number; got 'many'"),
        (["train", "tubevit.charades", "--interpolated", "False"], "did you mean '--no-interpolated'"),
        (["train", "nowhere.py:experiment"], "no such file"),
        (["cost"], "or --published"),
        (["predict", "runs/none"], "tubelet predict runs/none FILE"),
        (["eval", "runs/none", "--model.video.stride"], "--model.video.stride: give it a value"),
    ],
)
def test_what_does_not_exist_is_status_2_and_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.err.startswith("tubelet: ")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["predict", "no/such/run", "clip.mp4"], "no/such/run: no such file or folder"),
        (["eval", "no/such/run"], "no/such/run: no such file or folder"),
        (["eval", "no/such/run", "--views", "4"], "must be clips x crops, such as 4x3"),
        (["cost", "vivid-b/16x2"], "no model is called 'vivid-b/16x2'"),
    ],
)
def test_what_fails_is_status_1_and_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 1
    shown = capsys.readouterr().err
    assert says in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("words", [["eval"], ["predict", "clip.mp4"]])
def test_a_run_that_has_not_finished_is_told_to_go_on(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = {"schedule": {"kind": "Weighted"}}
    (tmp_path / "config.json").write_text(json.dumps({"experiment": experiment, "data": {"a": {"updates": 30}}}))
    (tmp_path / "checkpoints" / "step-00000020").mkdir(parents=True)
    assert run(words[0], str(tmp_path), *words[1:]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"tubelet: {tmp_path}: this run has not finished (update 20 of 30, from its last")
    assert "the same `tubelet train` command again" in shown


def test_traceback_shows_where_an_error_arose() -> None:
    with pytest.raises(ValueError, match="no model is called"):
        main(["cost", "vivid-b/16x2", "--traceback"])


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("tubelet.doctor.examine", interrupted)
    assert run("doctor") == 130


def test_recipes_are_listed_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("vivit.kinetics400_b16x2 ") and "Model 1" in line for line in lines)
    assert run("recipes", "--json") == 0
    assert {"folder", "demo"} <= set(json.loads(capsys.readouterr().out))


def test_a_recipes_parameters_and_every_field_are_flags(capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(
        capsys,
        "vivit.kinetics400_b16x2",
        *("--data", "K400", "--seed=3", "--tasks.k400.batch-size", "32", "--tasks.k400.learning_rate", "5e-2"),
        *(
            "--optimizer",
            "AdamW",
            "--training.compile",
            "--model.video.size",
            "288,288",
            "--model.video.short-side",
            "329",
        ),
        *("--tasks.k400.views", "1x3"),
    )
    task = config["tasks"]["k400"]
    assert (task["source"]["path"], task["batch_size"], task["learning_rate"]) == ("K400", 32, 0.05)
    assert task["views"] == {"clips": 1, "crops": 3}
    assert (config["seed"], config["training"]["compile"], config["optimizer"]["kind"]) == (3, True, "AdamW")
    assert config["model"]["video"]["size"] == [288, 288]


def test_a_recipe_of_ones_own_takes_its_required_parameters_by_position_or_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from tubelet.recipes import vivit\n"
        "def experiment(data: str, large: bool = False):\n"
        "    '''Mine.'''\n"
        "    return (vivit.kinetics400_l16x2 if large else vivit.kinetics400_b16x2)(data)\n"
    )
    small = config_of(capsys, f"{mine}:experiment", "here")
    large = config_of(capsys, f"{mine}:experiment", "--large", "--data", "there")
    assert (small["tasks"]["k400"]["source"]["path"], small["model"]["backbone"]["depth"]) == ("here", 12)
    assert (large["tasks"]["k400"]["source"]["path"], large["model"]["backbone"]["depth"]) == ("there", 24)


def test_a_recipes_help_is_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "vivit.ssv2_l16x2_fe", "--help") == 0
    shown = capsys.readouterr().out
    for part in ("Something-Something v2", "65.4 % top-1", "--data", "--init", "--out", "--print-config"):
        assert part in shown


def test_cost_tells_tokens_parameters_and_multiply_adds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "vivit-b/16x2", "--json") == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["tokens"] == 3137
    assert counted["parameters"] == pytest.approx(88.954e6, rel=1e-4)
    assert counted["parameter_bytes"] == 4 * counted["parameters"]
    assert counted["multiply_adds"] == pytest.approx(451.5e9, rel=1e-3)
    assert sum(part["multiply_adds"] for part in counted["parts"]) == counted["multiply_adds"]
    assert run("cost", "vivit-b/16x2") == 0
    assert "3,137" in capsys.readouterr().out


def test_published_costs_stand_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "--published", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    for row in rows:
        assert set(row) == {"source", "model", "input", "published", "ours", "ratio", "multiply_adds_g", "reason"}
        assert row["published"].keys() == row["ours"].keys() == row["ratio"].keys()
        known = {"gflops", "gflops_tf", "tflops", "tflops_tf_12_views", "params_m", "tokens"}
        assert {name.partition(" of ")[0] for name in row["published"]} <= known
    assert sum(row["source"].startswith("ViViT") for row in rows) == 8
    assert run("cost", "--published") == 0
    assert "0.9919" in capsys.readouterr().out


def test_the_doctor_knows_decoders_devices_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--json") == 0
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert {"tubelet", "torch", "PyAV", "torchcodec", "cores", "threads", "idle threads", "disk"} <= set(findings)
    assert findings["PyAV"]["state"] == "ok"
    assert all(finding["advice"] for finding in findings.values() if finding["state"] != "ok")
