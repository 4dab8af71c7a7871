"""Finding recipes by name, and one's own by file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import pytest
import torch

from tubelet.configs import ConfigError
from tubelet.recipes import Outline, find, outline, outlines, recipes
from tubelet.training.experiment import Experiment


def test_names_are_the_papers_file_and_the_function() -> None:
    found = recipes()
    assert {"demo", "folder", "vivit.kinetics400_b16x2", "vivit.epic_kitchens_l16x2_fe"} <= set(found)
    assert not any(part.startswith("_") for name in found for part in name.split("."))
    assert all(find(name) is recipe for name, recipe in found.items())


def test_every_recipe_has_a_line_that_fits_the_list() -> None:
    for name, recipe in outlines().items():
        assert 10 < len(recipe.summary) <= 100, name


def test_the_source_tells_what_the_function_tells() -> None:
    for name, read in outlines().items():
        asked = Outline(name, lambda recipe=read.recipe: recipe)
        assert read.signature == asked.signature, name
        assert (read.doc, read.parameters, read.flags) == (asked.doc, asked.parameters, asked.flags), name


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


_OWN = """
from typing import Annotated, Literal
import torch
from typing_extensions import Doc
Size = Literal["b", "l"]
RATE = 0.5
HALF = RATE / 2
class Kind: ...
def plain(data: "tuple[str, ...]", /, *more: int, size: Annotated[Size, Doc("how large")] = "b", rate=HALF, **rest): ...
def special(data: str, kind: Kind = Kind(), tensor: torch.Tensor = torch.zeros(1)): ...
"""


def test_what_the_source_of_ones_own_recipe_tells(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(_OWN)
    plain = outline(f"{file}:plain")
    data, more, size, rate, rest = plain.signature.parameters.values()
    assert "recipe" not in vars(plain), "not imported"
    assert (data.annotation, data.kind, data.default) == (tuple[str, ...], data.POSITIONAL_ONLY, data.empty)
    assert (more.kind, rest.kind) == (more.VAR_POSITIONAL, rest.VAR_KEYWORD)
    assert get_args(size.annotation)[0] == Literal["b", "l"]
    assert (size.default, rate.default, rate.annotation) == ("b", 0.25, rate.empty)
    special = outline(f"{file}:special")
    assert special.parameters == ("data", "kind", "tensor")
    assert special.signature.parameters["tensor"].annotation is torch.Tensor, "imported, as the source is not enough"
    with pytest.raises(ConfigError, match="no function 'Kind'"):
        outline(f"{file}:Kind").signature  # noqa: B018


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
