"""Configs as plain data and back: frozen dataclasses to JSON values, with errors that name the key.

Where a field holds one of several dataclasses, the plain data says which under "kind": by the class's name for a union
such as ``SGD | AdamW``, and by the name that :func:`register` gave it for an abstract class such as ``ModelConfig``.
A name that is not registered is an error: plain data never makes the library import anything.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from cattrs import (
    AttributeValidationNote,
    BaseValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

T = TypeVar("T")
KIND = "kind"
_WRONG_VALUE = (TypeError, ValueError, KeyError, ArithmeticError)  # what the hooks and a dataclass's own checks raise
_MOST_PROBLEMS, _MOST_NAMES, _LONGEST = 8, 40, 100  # in an error


class ConfigError(ValueError):
    """A config with wrong values: one line per problem, each naming its dotted path."""


def to_json(value: Any, declared: Any = None) -> Any:
    """``value`` as lists, dicts and scalars. ``declared``: its type, where a union should leave its "kind"."""
    return _converter.unstructure(value, unstructure_as=declared)


def from_json(cls: type[T], data: Any) -> T:
    """The ``cls`` that ``data`` describes.

    Raises :class:`ConfigError` for an unknown, missing or wrong value, naming its path and the nearest known name.
    """
    try:
        return _converter.structure(data, cls)
    except (BaseValidationError, *_WRONG_VALUE) as error:
        root = getattr(cls, "__name__", str(cls))
        lines = [f"{path or root}: {text}" for path, text in islice(_problems(error, ""), _MOST_PROBLEMS)]
        raise ConfigError("\n".join(lines)) from None


def part_of(cls: type[T], data: Any) -> T:
    """The ``cls`` that is among ``data``, an object with fields of others, too, which are left out.

    Raises :class:`ConfigError`, as :func:`from_json` does.
    """
    known = {field.name for field in dataclasses.fields(cast(Any, cls))}
    if isinstance(data, Mapping):
        data = {name: value for name, value in cast("Mapping[str, Any]", data).items() if name in known}
    return from_json(cls, data)


_RENAMED = {"attends": "attention_type", "neighbours": "neighbors", "greyscale": "grayscale"}


def renamed(data: Any) -> Any:
    """Plain data of version 0.1 with the names that its keys have now; its objectives, all alike, had no kind."""
    if isinstance(data, Mapping):
        found = {_RENAMED.get(key, key): renamed(value) for key, value in data.items()}
        if isinstance(found.get("objective"), Mapping):
            found["objective"] = {KIND: "classification", **found["objective"]}
        return found
    return [renamed(item) for item in data] if isinstance(data, list) else data


def differences(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """(path, old, new) of every value of two configs, as plain data, that differs; "(absent)" where one has none."""

    def walk(a: Any, b: Any, path: str) -> Iterable[tuple[str, Any, Any]]:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in dict.fromkeys([*a, *b]):
                yield from walk(a.get(key, "(absent)"), b.get(key, "(absent)"), joined(path, key))
        elif a != b:
            yield path, a, b

    return list(walk(to_json(old, type(old)), to_json(new, type(new)), ""))


def nearest(name: str, known: Iterable[str]) -> str:
    """For the end of an error: "; did you mean 'batch_size'?", or the known names if none is similar."""
    names = list(known)
    close = difflib.get_close_matches(name[:_LONGEST].lower(), [n[:_LONGEST].lower() for n in names], n=1)
    if close:
        return f"; did you mean {next(n for n in names if n[:_LONGEST].lower() == close[0])!r}?"
    more = " ..." if len(names) > _MOST_NAMES else ""
    return f"; known: {', '.join(names[:_MOST_NAMES])}{more}" if names else ""


def shown(value: Any) -> str:
    """A value for an error: what ``repr`` says, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def joined(path: str, name: str | int) -> str:
    return f"{path}.{name}" if path else str(name)


# Unions and abstract classes -----------------------------------------------------------------------------------------


def _is_union(cls: Any) -> bool:
    return get_origin(cls) in (Union, types.UnionType)


def _is_abstract(cls: Any) -> bool:
    return inspect.isclass(cls) and dataclasses.is_dataclass(cls) and inspect.isabstract(cls)


_registered: dict[type, dict[str, type]] = {}


def register(base: type, name: str, cls: type) -> None:
    """Make ``cls``, a dataclass below the abstract ``base``, known to plain data as ``name``.

    Registering the same class again changes nothing. Raises ValueError for a name that another class has: two classes
    that were defined in one place under one name, as when a file is run twice, count as the same.
    """
    known = _registered.setdefault(base, {})
    other = known.get(name, cls)
    if not _same(other, cls):
        raise ValueError(f"{base.__name__} {name!r} is {_where(other)} already: give {_where(cls)} another name")
    known[name] = cls


def registered(base: type) -> dict[str, type]:
    """The classes below ``base`` by the names that they are registered under."""
    return dict(_registered.get(base, {}))


def name_of(cls: type) -> str | None:
    """The name that a class, or the nearest class above it, is registered under."""
    for known in _registered.values():
        for name, other in known.items():
            if _same(other, cls):
                return name
    return None


def _same(one: type, other: type) -> bool:
    """Whether two classes are one, or were defined in one place under one name."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def kinds_of(cls: Any) -> dict[str, type]:
    """The dataclasses that a value declared as ``cls`` may be, by name."""
    if _is_abstract(cls):
        return registered(cls)
    if _is_union(cls):
        return {name: kind for member in get_args(cls) for name, kind in kinds_of(member).items()}
    return {name_of(cls) or cls.__name__: cls} if _is_dataclass(cls) else {}


def _kind(cls: Any, data: Any) -> type:
    kinds = kinds_of(cls)
    if not isinstance(data, Mapping):
        raise TypeError(f"must be an object with a {KIND!r}, one of {', '.join(kinds)}; got {shown(data)}")
    if KIND not in data:
        if len(kinds) == 1:
            return next(iter(kinds.values()))
        raise TypeError(f"needs a {KIND!r}, one of {', '.join(kinds)}")
    named = {**{kind.__name__: kind for kind in kinds.values()}, **kinds}  # "ViTConfig", as up to 0.1, is "vit"
    kind = data[KIND]
    if not isinstance(kind, str) or kind not in named:
        raise TypeError(f"no {KIND} {shown(kind)}{nearest(str(kind), kinds)}")
    return named[kind]


def _structure_union(cls: Any) -> Callable[[Any, Any], Any]:
    members = get_args(cls)

    def accepts(member: Any, data: Any) -> bool:
        base = get_origin(member) or member
        if base is type(None):
            return False
        if base is Literal:
            return data in get_args(member)
        if dataclasses.is_dataclass(base) or issubclass(base, Mapping):
            return isinstance(data, Mapping)
        if issubclass(base, tuple | list):
            return isinstance(data, list | tuple)
        return type(data) is base or (base is float and type(data) is int)

    def structure(data: Any, _: Any) -> Any:
        if data is None and type(None) in members:
            return None
        fitting = [member for member in members if accepts(member, data)]
        if kinds_of(cls) and (isinstance(data, Mapping) or not fitting):
            return _converter.structure(data, _kind(cls, data))
        if not fitting:
            raise TypeError(f"must be {' or '.join(map(_name, members))}; got {shown(data)}")
        return _converter.structure(data, fitting[0])

    return structure


def _unstructure_union(value: Any) -> Any:
    data = _converter.unstructure(value)
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return {KIND: type(value).__name__, **data} if is_dataclass and KIND not in data else data


# Strict values -------------------------------------------------------------------------------------------------------


def _name(cls: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(cls) or getattr(cls, "__name__", str(cls))


def _structure_scalar(data: Any, cls: Any) -> Any:
    fits = type(data) is cls or (cls is float and type(data) is int)
    if not fits or (cls is float and not math.isfinite(data)):
        raise TypeError(f"must be {_name(cls)}; got {shown(data)}")
    return cls(data)


def _structure_literal(data: Any, cls: Any) -> Any:
    if data not in get_args(cls):
        raise TypeError(f"{shown(data)} is none of {', '.join(map(repr, get_args(cls)))}{_hint(data, get_args(cls))}")
    return data


def _hint(data: Any, known: Sequence[Any]) -> str:
    hint = nearest(str(data), map(str, known))
    return hint if hint.startswith("; did") else ""


def _structure_tuple(data: Any, cls: Any) -> Any:
    if not isinstance(data, list | tuple):
        raise TypeError(f"must be a list; got {shown(data)}")
    inner = get_args(cls)
    inner = inner[:1] * len(data) if inner[1:] == (...,) else inner
    if len(inner) != len(data):
        raise TypeError(f"must have {len(inner)} values; got {shown(list(data))}")
    return tuple(_structure_item(x, t, i) for i, (x, t) in enumerate(zip(data, inner, strict=True)))


def _structure_item(data: Any, cls: Any, index: int | str) -> Any:
    try:
        return _converter.structure(data, cls)
    except Exception as error:
        error.add_note(IterableValidationNote(f"item {index}", index, cls))
        raise


def _structure_dataclass(cls: Any) -> Callable[[Any, Any], Any]:
    generated = make_dict_structure_fn(cls, _converter, _cattrs_forbid_extra_keys=True)

    def structure(data: Any, _: Any) -> Any:
        if not isinstance(data, Mapping):
            raise TypeError(f"must be an object with the fields of {cls.__name__}; got {shown(data)}")
        fields = {field.name for field in dataclasses.fields(cls)}
        if KIND in data and KIND not in fields and data[KIND] in (cls.__name__, name_of(cls)):
            data = {key: value for key, value in data.items() if key != KIND}
        return generated(data, cls)

    return structure


def _unstructure_dataclass(cls: Any) -> Callable[[Any], Any]:
    generated = make_dict_unstructure_fn(cls, _converter)
    tagged = any(_is_abstract(base) for base in cls.__mro__[1:])
    return lambda value: {KIND: _registered_name(cls), **generated(value)} if tagged else generated(value)


def _registered_name(cls: type) -> str:
    if name := name_of(cls):
        return name
    (base,) = [base for base in cls.__mro__[1:] if _is_abstract(base)][:1]
    raise ConfigError(f"{_where(cls)} is not registered, so it cannot be saved: register({base.__name__}, NAME, ...)")


def _is_dataclass(cls: Any) -> bool:
    return inspect.isclass(cls) and dataclasses.is_dataclass(cls)


def _structure_mapping(data: Any, cls: Any) -> Any:
    if not isinstance(data, Mapping):
        raise TypeError(f"must be an object; got {shown(data)}")
    _, inner = get_args(cls)
    found: dict[str, Any] = {}
    errors: list[Exception] = []
    for name, value in data.items():
        try:
            found[name] = _structure_item(value, inner, name)
        except Exception as error:
            errors.append(error)
            if len(errors) == _MOST_PROBLEMS:
                break
    if errors:
        raise IterableValidationError("", errors, cls)  # pyright: ignore[reportCallIssue]
    return found


def _is_mapping(cls: Any) -> bool:
    origin = get_origin(cls)
    return inspect.isclass(origin) and issubclass(origin, Mapping)


_converter = Converter(unstruct_collection_overrides={tuple: list, frozenset: list})
for _scalar in (int, float, bool, str):
    _converter.register_structure_hook(_scalar, _structure_scalar)
_converter.register_structure_hook_func(lambda cls: get_origin(cls) is Literal, _structure_literal)
_converter.register_structure_hook_func(lambda cls: get_origin(cls) is tuple, _structure_tuple)
_converter.register_structure_hook_func(_is_mapping, _structure_mapping)
_converter.register_structure_hook_factory(_is_dataclass, _structure_dataclass)
_converter.register_unstructure_hook_factory(_is_dataclass, _unstructure_dataclass)
_converter.register_structure_hook_func(_is_abstract, lambda data, cls: _converter.structure(data, _kind(cls, data)))
_converter.register_unstructure_hook_func(_is_abstract, lambda value: _converter.unstructure(value))
_converter.register_structure_hook_factory(_is_union, _structure_union)
_converter.register_unstructure_hook_func(_is_union, _unstructure_union)


# Errors --------------------------------------------------------------------------------------------------------------


def _problems(error: BaseException, path: str) -> Iterable[tuple[str, str]]:
    """(dotted path, what is wrong) of every leaf of cattrs' tree of errors."""
    if isinstance(error, BaseValidationError):
        for child in error.exceptions:
            yield from _problems(child, _extend(path, child))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in dataclasses.fields(cast(Any, error.cl))]
        for name in sorted(error.extra_fields):
            yield path, f"no field {shown(name)}{nearest(name, known)}"
    elif isinstance(error, KeyError):
        yield path, "is missing"
    elif isinstance(error, _WRONG_VALUE):
        yield path, str(error)
    else:  # a mistake of ours, or of whoever wrote the dataclass, is no wrong value
        raise error


def _extend(path: str, error: BaseException) -> str:
    for note in reversed(getattr(error, "__notes__", [])):
        if isinstance(note, AttributeValidationNote):
            path = joined(path, note.name)
        elif isinstance(note, IterableValidationNote):
            path = joined(path, note.index)
    return path
