"""Configs as plain data: frozen dataclasses to JSON values and back, with errors that name the dotted path."""

from tubelet.configs.convert import (
    ConfigError,
    differences,
    from_json,
    name_of,
    nearest,
    part_of,
    register,
    registered,
    renamed,
    shown,
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
    "part_of",
    "register",
    "registered",
    "renamed",
    "shown",
    "to_json",
]
