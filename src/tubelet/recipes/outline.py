"""A recipe before it is imported: its name, docstring and parameters, read from its source.

Importing a recipe imports torch and the models, which takes seconds. Listing the recipes and their flags should not.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tubelet.training.experiment import Experiment

Recipe = Callable[..., "Experiment"]

_PACKAGE = Path(__file__).parents[1]  # of tubelet
_CHEAP = {*sys.stdlib_module_names, "typing_extensions", "tyro"}


def flag(name: str, *, on: bool = False) -> str:
    """``batch_size`` as ``--batch-size``; ``on``: as the flag that turns off what is on by default."""
    return f"--{'no-' * on}{name.replace('_', '-')}"


class Outline:
    """A recipe's name, docstring and parameters, read from its source if that is enough; otherwise it is imported.

    ``load`` imports it. ``node`` is its definition in ``names``, the names of its module; None if only importing helps.
    A decorator may return another function, so a decorated recipe is imported, too.
    """

    def __init__(
        self, name: str, load: Callable[[], Recipe], node: ast.FunctionDef | None = None, names: Names | None = None
    ) -> None:
        self.name, self._load, self._names = name, load, names
        self._node = None if node is None or node.decorator_list else node

    @cached_property
    def recipe(self) -> Recipe:
        """The function itself; imports it."""
        return self._load()

    @property
    def doc(self) -> str:
        return (ast.get_docstring(self._node) if self._node else inspect.getdoc(self.recipe)) or ""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters."""
        if not self._node:
            return tuple(self.signature.parameters)
        return tuple(parameter.arg for parameter in _parameters(self._node.args))

    @property
    def flags(self) -> tuple[str, ...]:
        """The parameters as flags: ``--init``, and ``--no-baseline`` for what is on by default."""
        if not self._node:
            on = {p.name for p in self.signature.parameters.values() if p.default is True}
        else:
            defaults = _defaults(self._node.args)
            on = {name for name, value in defaults.items() if isinstance(value, ast.Constant) and value.value is True}
        return tuple(flag(name, on=name in on) for name in self.parameters)

    @cached_property
    def signature(self) -> inspect.Signature:
        """The parameters with their types and defaults, without the return type."""
        if self._node and self._names is not None:
            try:
                return _signature(self._node.args, self._names)
            except Exception:  # only importing the module can make it: a class, or the result of a function
                pass
        return inspect.signature(self.recipe, eval_str=True).replace(return_annotation=inspect.Signature.empty)


class Names(dict[str, Any]):
    """The names of a module, each evaluated when it is asked for: type aliases, constants, and imports of these.

    Raises KeyError for a name that needs the import of something heavy, or that is no expression.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        body = ast.parse(file.read_text(encoding="utf-8"), str(file)).body
        self.functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self._makers: dict[str, Callable[[], Any]] = {}
        for node in body:
            self._makers.update(self._defined_by(node))

    def __missing__(self, name: str) -> Any:
        self[name] = value = self._makers[name]()
        return value

    def evaluate(self, node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), "<recipe>", "eval"), {}, self)

    def annotation(self, node: ast.expr) -> Any:
        """A type, which may stand in quotes."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        return self.evaluate(node)

    def _defined_by(self, node: ast.stmt) -> dict[str, Callable[[], Any]]:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                return {name: lambda: self.evaluate(value)}
            case ast.Import(names=names):
                return {
                    alias.asname or alias.name: lambda module=alias.name: _cheap_module(module)
                    for alias in names
                    if alias.asname or "." not in alias.name
                }
            case ast.ImportFrom(module=str(module), names=names, level=0):
                return {alias.asname or alias.name: lambda name=alias.name: _imported(module, name) for alias in names}
            case _:
                return {}


def _imported(module: str, name: str) -> Any:
    """What ``from module import name`` gives; of Tubelet's own modules, by their source."""
    if module.partition(".")[0] != "tubelet":
        return getattr(_cheap_module(module), name)
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    return Names(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))[name]


def _cheap_module(name: str) -> Any:
    if name.partition(".")[0] not in _CHEAP:
        raise KeyError(name)
    return import_module(name)


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    several = [arguments.vararg] if arguments.vararg else []
    named = [arguments.kwarg] if arguments.kwarg else []
    return [*arguments.posonlyargs, *arguments.args, *several, *arguments.kwonlyargs, *named]


def _defaults(arguments: ast.arguments) -> dict[str, ast.expr | None]:
    by_position = [*arguments.posonlyargs, *arguments.args]
    return {
        **dict(zip([a.arg for a in by_position][::-1], arguments.defaults[::-1], strict=False)),
        **{a.arg: default for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)},
    }


def _signature(arguments: ast.arguments, names: Names) -> inspect.Signature:
    Kind, empty = inspect.Parameter, inspect.Parameter.empty
    kinds = {
        **{a.arg: Kind.POSITIONAL_ONLY for a in arguments.posonlyargs},
        **{a.arg: Kind.POSITIONAL_OR_KEYWORD for a in arguments.args},
        **{a.arg: Kind.KEYWORD_ONLY for a in arguments.kwonlyargs},
        **({arguments.vararg.arg: Kind.VAR_POSITIONAL} if arguments.vararg else {}),
        **({arguments.kwarg.arg: Kind.VAR_KEYWORD} if arguments.kwarg else {}),
    }
    defaults = _defaults(arguments)
    return inspect.Signature(
        [
            inspect.Parameter(
                a.arg,
                kinds[a.arg],
                default=names.evaluate(default) if (default := defaults.get(a.arg)) else empty,
                annotation=names.annotation(a.annotation) if a.annotation else empty,
            )
            for a in _parameters(arguments)
        ]
    )
