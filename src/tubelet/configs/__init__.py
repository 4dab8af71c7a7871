"""Configs as plain data: frozen dataclasses to JSON values and back, with errors that name the dotted path."""

from tubelet.configs.convert import (
    ConfigError,
    differences,
    from_json,
    name_of,
    nearest,
    register,
    registered,
    renamed,
    to_json,
)
from tubelet.configs.override import override

__all__ = [
    "ConfigError",
    "differences",
    "from_json",
    "name_of",
    "nearest",
    "override",
    "register",
    "registered",
    "renamed",
    "to_json",
]
