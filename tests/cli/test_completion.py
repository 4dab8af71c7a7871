"""Completion of commands, recipes and flags, by the shells themselves where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tubelet.cli import main

_BASH = """
source "$1"; shift
complete -p tubelet > /dev/null || exit 1
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tubelet; echo "${COMPREPLY[@]}"
"""

Script = Callable[[str], Path]


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Script:
    """A function that writes the script for a shell."""

    def written(shell: str) -> Path:
        assert main(["completion", shell]) == 0
        path = tmp_path / f"tubelet.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return written


def test_all_shells_get_all_places(script: Script) -> None:
    for shell in ("bash", "zsh", "fish"):
        text = script(shell).read_text()
        for part in ("predict probe", "vivit.kinetics400_b16x2", "index check digits", "--timeline", "--print-config"):
            assert part in text, shell


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pr"], "predict probe"),
        (["train", "fol"], "folder"),
        (["train", "vivit.ssv"], "vivit.ssv2_l16x2_fe"),
        (["train", "families.mbt_duet", "--"], "--data --senses --out --print-config"),
        (["train", "families.mbt_duet", ""], ""),  # files
        (["train", "tubevit.charades", "--n"], "--no-interpolated"),
        (["probe", "RUN", "--no"], "--no-augment"),
        (["train", "mine.py", ":", "experiment", "--o"], "--out"),  # bash splits at colons
        (["data", ""], "index check digits"),
        (["data", "index", "--"], "--out"),
        (["weights", "inspect", "--"], "--for --like --json"),
        (["predict", "RUN", "clip.mp4", "--ti"], "--timeline"),
        (["predict", "RUN", "cl"], ""),
        (["completion", "z"], "zsh"),
    ],
)
def test_bash_completes(words: list[str], offered: str, script: Script) -> None:
    command = ["bash", "--norc", "-c", _BASH, "bash", str(script("bash")), "tubelet", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == offered


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here")
def test_fish_completes(script: Script) -> None:
    command = ["fish", "--no-config", "-c", f"source {script('fish')}; complete -C 'tubelet train vivit.ssv'"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "vivit.ssv2_l16x2_fe"
