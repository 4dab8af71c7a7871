"""Recipes: experiments as Python functions, one file per paper, plus ``folder`` and ``demo``.

A recipe is a function that returns an :class:`~tubelet.training.experiment.Experiment`. Its parameters are what a user
usually changes; every other field is changed in the experiment itself. It builds without the data being there, unless
it looks at the data to choose, as ``folder`` does.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tubelet.configs import ConfigError, nearest

if TYPE_CHECKING:
    from tubelet.training.experiment import Experiment

Recipe = Callable[..., "Experiment"]


def recipes() -> dict[str, Recipe]:
    """The recipes that come with the library, by the name that ``tubelet train`` takes, such as ``folder``."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {
        module if module == name else f"{module}.{name}": function
        for module in modules
        for name, function in _recipes_of(importlib.import_module(f"{__name__}.{module}")).items()
    }


def find(name: str) -> Recipe:
    """The recipe called ``name``, or of one's own: ``my_recipe.py:experiment``, ``package.module:experiment``.

    Raises ConfigError with the nearest names if there is none.
    """
    if ":" in name:
        source, _, function = name.rpartition(":")
        own = _functions_of(_load(source))
        if function in own:
            return own[function]
        raise ConfigError(f"{source}: no function {function!r}{nearest(function, own)}")
    found = recipes()
    if name in found:
        return found[name]
    if name.endswith(".py"):
        raise ConfigError(f"{name}: name the function too, as in {name}:experiment")
    raise ConfigError(f"no recipe {name!r}{nearest(name, found)}; `tubelet recipes` lists them all")


def summary(recipe: Recipe) -> str:
    """The first line of a recipe's docstring."""
    return (inspect.getdoc(recipe) or "").partition("\n")[0]


def _functions_of(module: ModuleType) -> dict[str, Recipe]:
    """The public functions that a module defines, in the order of the file."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def _recipes_of(module: ModuleType) -> dict[str, Recipe]:
    functions = _functions_of(module)
    return {name: function for name, function in functions.items() if _returns(function) == "Experiment"}


def _returns(function: Recipe) -> str:
    annotation = function.__annotations__.get("return", "")
    return annotation if isinstance(annotation, str) else annotation.__name__


def _load(source: str) -> ModuleType:
    path = Path(source)
    if path.suffix != ".py":
        try:
            return importlib.import_module(source)
        except ModuleNotFoundError as error:
            if error.name is None or not source.startswith(error.name):
                raise
            raise ConfigError(f"no module {source!r}; a file is named with its ending: {source}.py:FUNCTION") from None
    if not path.is_file():
        raise ConfigError(f"{source}: no such file (looked in {Path.cwd()})")
    name = f"tubelet_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look a class's module up by its name
    spec.loader.exec_module(module)
    return module
