"""Recipes: experiments as Python functions, one file per paper, plus ``folder`` and ``demo``.

A recipe is a function that returns an :class:`~tubelet.training.experiment.Experiment`. Its parameters are what people
usually change; every other field is changed in the experiment itself. A recipe does not need the data to be there,
unless it looks at them to choose, as ``folder`` does.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from functools import cache, partial
from pathlib import Path
from types import ModuleType

from tubelet.configs import ConfigError, nearest
from tubelet.recipes.outline import Names, Outline, Recipe

__all__ = ["Outline", "Recipe", "find", "outline", "outlines", "recipes"]


@cache
def outlines() -> dict[str, Outline]:
    """The recipes of the library by the name that ``tubelet train`` takes, without importing any of them."""
    found: dict[str, Outline] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        path = Path(__path__[0], module.name)
        names = Names(path / "__init__.py" if module.ispkg else path.with_suffix(".py"))
        for function, node in names.functions.items():
            if _is_recipe(node):
                name = function if function == module.name else f"{module.name}.{function}"
                found[name] = Outline(name, partial(_function, module.name, function), node, names)
    return found


def recipes() -> dict[str, Recipe]:
    """The recipes of the library by the name that ``tubelet train`` takes, such as ``folder``."""
    return {name: outline.recipe for name, outline in outlines().items()}


def outline(name: str) -> Outline:
    """The recipe called ``name``, or one of your own: ``my_recipe.py:experiment``, ``package.module:experiment``.

    Raises ConfigError with similar names if there is none.
    """
    if ":" in name:
        return _own(name)
    found = outlines()
    if name in found:
        return found[name]
    if name.endswith(".py"):
        raise ConfigError(f"{name}: name the function too, as in {name}:experiment")
    raise ConfigError(f"no recipe {name!r}{nearest(name, found)}; `tubelet recipes` lists them all")


def find(name: str) -> Recipe:
    """The function that :func:`outline` describes."""
    return outline(name).recipe


def _function(module: str, name: str) -> Recipe:
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def _is_recipe(node: ast.FunctionDef) -> bool:
    returns = ast.unparse(node.returns).strip("'") if node.returns else ""
    return returns == "Experiment" and not node.name.startswith("_")


def _own(name: str) -> Outline:
    source, _, function = name.rpartition(":")

    def load() -> Recipe:
        own = _functions_of(_load(source))
        if function in own:
            return own[function]
        raise ConfigError(f"{source}: no function {function!r}{nearest(function, own)}")

    file = Path(source)
    if file.suffix == ".py" and file.is_file():
        try:
            names = Names(file)
        except SyntaxError:  # importing it says so
            return Outline(name, load)
        if function in names.functions:
            return Outline(name, load, names.functions[function], names)
    return Outline(name, load)


def _functions_of(module: ModuleType) -> dict[str, Recipe]:
    """The public functions that a module defines, in the order of the file."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


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
