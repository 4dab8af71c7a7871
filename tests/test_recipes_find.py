"""Finding recipes by name, and one's own by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tubelet.configs import ConfigError
from tubelet.recipes import find, recipes, summary
from tubelet.training.experiment import Experiment


def test_names_are_the_papers_file_and_the_function() -> None:
    found = recipes()
    assert {"demo", "folder", "vivit.kinetics400_b16x2", "vivit.epic_kitchens_l16x2_fe"} <= set(found)
    assert not any(part.startswith("_") for name in found for part in name.split("."))
    assert all(find(name) is recipe for name, recipe in found.items())


def test_every_recipe_has_a_line_that_fits_the_list() -> None:
    for name, recipe in recipes().items():
        assert 10 < len(summary(recipe)) <= 100, name


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"vivit\.kinetics40_b16x2.*did you mean 'vivit\.kinetics400_b16x2"):
        find("vivit.kinetics40_b16x2")


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from tubelet.recipes import vivit\n"
        "def experiment(data: str, seed: int = 3):\n"
        "    return replace(vivit.kinetics400_b16x2(data), seed=seed)\n"
    )
    made = find(f"{file}:experiment")("here", seed=5)
    assert isinstance(made, Experiment)
    assert (made.seed, made.tasks["k400"].source.path) == (5, "here")
    with pytest.raises(ConfigError, match=r"no function 'experimint'.*did you mean 'experiment'"):
        find(f"{file}:experimint")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.py:experiment", "no such file"),
        ("no_such_package.recipes:experiment", "no module 'no_such_package.recipes'"),
        ("mine.py", "mine.py:experiment"),
    ],
)
def test_a_source_that_is_not_there(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find(name)


def test_an_error_inside_ones_own_file_is_its_own(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import a_package_that_is_missing\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        find(f"{file}:experiment")
