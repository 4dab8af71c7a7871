"""docs/papers.md, "Every table, and its command": each command is one that can be typed, and builds its model."""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
import torch

from commands import experiment_of
from tubelet.cli import main
from tubelet.recipes import outlines

_PAGE = (Path(__file__).parents[2] / "docs" / "papers.md").read_text(encoding="utf-8")
_SECTION = _PAGE.split("## Every table, and its command")[1].split("\n## ")[0]
ROWS = [line for line in _SECTION.splitlines() if line.startswith("| ") and not line.startswith("| table")]
COMMANDS = [shlex.split(found) for found in re.findall(r"`tubelet ([^`]+)`", _SECTION)]
TRAININGS = [words[1:] for words in COMMANDS if words[0] == "train"]


@pytest.mark.parametrize(("paper", "tables"), [("ViViT", 7), ("PolyViT", 17), ("TubeViT", 14), ("VATT", 10)], ids=str)
def test_every_table_of_a_paper_has_a_row(paper: str, tables: int) -> None:
    named: set[int] = set()
    for row in ROWS:
        if (cell := row.split("|")[1].strip()).startswith(f"{paper} Table"):
            for first, last in re.findall(r"(\d+)(?: to (\d+))?", cell):
                named |= set(range(int(first), int(last or first) + 1))
    assert named >= set(range(1, tables + 1))


def test_every_recipe_of_a_paper_is_there() -> None:
    """But for those whose data or settings no table of the five documents has."""
    others = {
        "vivit.epic_kitchens_b16x2_fe", "vivit.kinetics400_l16x2_fe", "vivit.kinetics600_l16x2_fe",  # used by others
        "mtv.kinetics700_b", "token_learner.imagenet_b16", "mbt.mini_audioset",  # released configurations
        "vatt.talking", "vatt.folder",
    }  # fmt: skip
    papers = ("vivit.", "mtv.", "token_learner.", "polyvit.", "tubevit.", "vatt.", "mbt.")
    recipes = {name for name in outlines() if name.startswith(papers)}
    assert recipes - {words[0] for words in TRAININGS} == others


@pytest.mark.parametrize("words", TRAININGS, ids=" ".join)
def test_a_training_resolves_and_builds_its_model(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("howto100m_en.txt").write_text("one\ntwo\nthree\n")
    with torch.device("meta"):
        assert experiment_of(*words).model.build().width > 0


@cache
def help_of(command: str) -> str:
    printed = StringIO()
    with redirect_stdout(printed), pytest.raises(SystemExit):
        main([command, "--help"])
    return printed.getvalue()


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] != "train"], ids=" ".join)
def test_the_flags_of_other_commands_exist(words: list[str]) -> None:
    said = help_of(words[0])
    for flag in (word for word in words if word.startswith("--") and not word.startswith("--model.")):
        assert f"{flag} " in said
