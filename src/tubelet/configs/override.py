"""Change single values of a config by dotted path, from what a person types on a command line."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tubelet.configs.convert import KIND, ConfigError, from_json, joined, kinds_of, nearest, to_json

T = TypeVar("T")


def override(value: T, changes: Mapping[str, Any]) -> T:
    """``value`` with the fields at dotted paths changed: ``override(experiment, {"tasks.motion.batch_size": "32"})``.

    A change is plain data or the text a person types: numbers, ``true``, ``224,224`` or JSON for tuples, a class's name
    for a kind. Changes are applied together, so that fields which only make sense together can be given together.
    """
    cls = type(value)
    data = to_json(value, cls)
    for path in sorted(changes, key=lambda path: path.count(".")):
        _set(data, cls, path, changes[path])
    return from_json(cls, data)


def _set(data: Any, cls: Any, path: str, change: Any) -> None:
    """Set the value at ``path`` of plain ``data`` that describes a ``cls``."""
    walked = ""
    *parents, last = path.split(".")
    for name in parents:
        cls = _child(cls, data, name, walked)
        data, walked = data[int(name) if isinstance(data, list) else name], joined(walked, name)
    declared = _child(cls, data, last, walked)
    try:
        plain = _from_text(change, declared) if isinstance(change, str) else to_json(change, declared)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    data[int(last) if isinstance(data, list) else last] = plain


def _child(cls: Any, data: Any, name: str, path: str) -> Any:
    """The declared type of ``name`` in ``data``, which describes a ``cls`` and stands at ``path``."""
    if isinstance(data, list):
        if not name.isdigit() or int(name) >= len(data):
            raise ConfigError(f"{path}: no item {name!r}; it has {len(data)}, counted from 0")
        inner = get_args(next((c for c in _options(cls) if get_origin(c) is tuple), cls))
        return inner[0] if inner[1:] == (...,) else inner[int(name)]
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: is {data!r} and has no field {name!r}")
    if not (kinds := kinds_of(cls)):
        if name not in data:
            raise ConfigError(f"{path}: no {name!r}{nearest(name, data)}")
        return get_args(next(c for c in _options(cls) if issubclass(get_origin(c) or c, Mapping)))[1]
    kind = kinds[data[KIND]] if data.get(KIND) in kinds else next(iter(kinds.values()))
    hints = get_type_hints(kind)
    if name not in (known := [field.name for field in dataclasses.fields(kind)]):
        raise ConfigError(f"{path or kind.__name__}: no field {name!r}{nearest(name, known)}")
    return hints[name]


def _options(cls: Any) -> tuple[Any, ...]:
    return get_args(cls) if get_origin(cls) in (Union, types.UnionType) else (cls,)


def _from_text(text: str, cls: Any) -> Any:
    """The plain data that ``text`` means where a ``cls`` is expected."""
    options = _options(cls)
    if type(None) in options and text in ("none", "null"):
        return None
    if str in options or text in (x for c in options if get_origin(c) is Literal for x in get_args(c)):
        return text
    if len(kinds_of(cls)) > 1 and text.isidentifier():
        return {KIND: text}
    for option in options:
        if hasattr(option, "parse"):
            return to_json(option.parse(text), option)
        if get_origin(option) is tuple and text[:1] not in ("[", "{"):
            inner = get_args(option)
            parts = [part.strip() for part in text.split(",")] if text.strip() else []
            types_ = inner[:1] * len(parts) if inner[1:] == (...,) else inner
            return [_from_text(part, t) for part, t in zip(parts, [*types_, *types_[-1:] * len(parts)], strict=False)]
    try:
        return json.loads({"True": "true", "False": "false", "None": "null", "none": "null"}.get(text, text))
    except json.JSONDecodeError:
        number = text.replace("_", "")
        try:
            return float(number)  # .5 and 1e-3 are numbers to people, if not to JSON
        except ValueError:
            return text
