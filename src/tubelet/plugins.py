"""Code from outside the library that registers families of models, kinds of input and objectives.

A file is run by ``tubelet --plugin FILE``; an installed package names its module as an entry point of the group
``tubelet.plugins``. Nothing that is read from a model folder or a config ever loads a plugin.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from importlib.metadata import entry_points
from pathlib import Path

from tubelet.configs import ConfigError

GROUP = "tubelet.plugins"


def load_plugin(file: str | Path) -> None:
    """Run a Python file, which registers what it defines. Raises ConfigError where there is no such file."""
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"--plugin {file}: no such Python file (looked in {Path.cwd()})")
    name = f"tubelet_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look a class's module up by its name
    spec.loader.exec_module(module)


def load_installed() -> None:
    """Import the modules that installed packages name; one that fails is told and left out."""
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            warnings.warn(f"the plugin {entry.name} ({entry.value}) cannot be loaded: {error}", stacklevel=2)
