"""``tubelet train``: a recipe, its parameters, and any field of its experiment as a flag."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro
from tyro.conf import Positional, PositionalRequiredArgs, arg

from tubelet.cli.command import STYLE, Status
from tubelet.cli.terminal import is_main_process, print_json, print_results, warn
from tubelet.configs import ConfigError, nearest
from tubelet.recipes.outline import flag

if TYPE_CHECKING:
    from tubelet.recipes import Outline

T = TypeVar("T")
_FIELDS = """Every field that --print-config shows is a flag too: --seed 1 --training.workers 4. A field with several
values takes them with commas: --model.patch 4,4. A flag below with several values takes them with spaces."""


def train(
    recipe: Annotated[Positional[str], arg(help="a name, or my_recipe.py:experiment", metavar="RECIPE")],
) -> Status:
    """Train a recipe: tubelet train folder DIR --out runs/mine.

    `tubelet recipes` lists them; `tubelet train RECIPE --help` shows what one takes. Every field of an experiment is a
    flag too, such as --training.workers 4. Several GPUs: torchrun --nproc-per-node 8 -m tubelet train ...
    """
    return train_recipe(recipe, [])


@dataclass(frozen=True, kw_only=True)
class _TrainOptions:
    out: Annotated[str, arg(help="the run's folder, runs/RECIPE if empty; a run that is there is resumed")] = ""
    print_config: Annotated[bool, arg(help="print the whole experiment as JSON instead of training it")] = False


def train_recipe(name: str, words: list[str]) -> Status:
    """``tubelet train NAME WORDS``."""
    began = time.monotonic()
    from tubelet.configs import override, to_json
    from tubelet.recipes import outline

    recipe = outline(name)
    arguments, options, rest = _parse(recipe, words)
    from tubelet.recipes.describe import in_words
    from tubelet.recipes.run import chosen_before, run
    from tubelet.training.experiment import Experiment  # imports torch, and so waits until there is something to train

    known = {*recipe.flags, *(flag(f.name) for f in (*fields(_TrainOptions), *fields(Experiment)))}
    changes = _changes(rest, sorted(known))
    out = options.out or f"runs/{Path(name.replace(':', '.')).name}"
    given = {word.partition("=")[0] for word in words}
    chosen = {key: value for key, value in chosen_before(out).items() if key in recipe.parameters}
    arguments.arguments.update(
        {key: value for key, value in chosen.items() if not {flag(key), flag(key, on=True)} & given}
    )
    experiment = override(recipe.recipe(*arguments.args, **arguments.kwargs), changes)
    if options.print_config:
        return print_json(to_json(experiment))
    result = run(experiment, out, changed=tuple(changes))
    if is_main_process():
        if result.results:
            print_results(result.results)
        print(f"Took {in_words(time.monotonic() - began)}.")
        quarantine, page = result.folder / "quarantine.jsonl", result.folder / "report.html"
        if quarantine.exists():
            warn(f"unreadable training files, left out: {len(quarantine.read_text().splitlines())}, see {quarantine}")
        look = f"look at {page}" if page.exists() else 'pip install "tubelet[demo]" gives runs a report'
        print(f"\nThe model is in {result.folder}/model; {look}")
    return 1 if result.problem else None


def _parse(recipe: Outline, words: list[str]) -> tuple[inspect.BoundArguments, _TrainOptions, list[str]]:
    """What the words say: the recipe's arguments, the options of training, and the words that are neither.

    The recipe's parameters without a default are positions, unless their flags are given.
    """
    given = {word.partition("=")[0] for word in words}
    required = [p.name for p in recipe.signature.parameters.values() if p.default is p.empty]
    by_position = not any(flag(name) in given for name in required)
    bind = _with_parameters(lambda *args, **kwargs: recipe.signature.bind(*args, **kwargs), recipe)
    call = tuple[Annotated[Any, arg(name="", constructor=bind)], Annotated[_TrainOptions, arg(name="")]]
    (arguments, options), rest = tyro.cli(
        call,
        args=words,
        prog=f"tubelet train {recipe.name}",
        description=f"{recipe.doc}\n\n{_FIELDS}",
        return_unknown_args=True,
        config=(*STYLE, PositionalRequiredArgs) if by_position else STYLE,
    )
    return arguments, options, rest


def _with_parameters(function: Callable[..., T], recipe: Outline) -> Callable[..., T]:
    """The function, with the recipe's name, docstring and parameters as what tyro sees of it."""
    parameters = recipe.signature.parameters.values()
    function.__signature__ = recipe.signature  # pyright: ignore[reportFunctionMemberAccess]
    function.__annotations__ = {p.name: p.annotation for p in parameters if p.annotation is not p.empty}
    function.__name__, function.__doc__ = recipe.name, recipe.doc
    return function


def _changes(words: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """``--tasks.motion.batch-size 32 --seed=3`` as {dotted path: text}; a flag without a value means true.

    ``known``: the flags, up to their first dot.
    """
    changes: dict[str, str] = {}
    rest = list(reversed(words))
    while rest:
        given = rest.pop()
        word, equals, value = given.partition("=")
        path = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--"):
            raise ConfigError(f"{given!r} follows no flag; the flags are {', '.join(known)}")
        if flag(path.partition(".")[0]) not in known:
            raise ConfigError(f"no flag {word}{nearest(word, known)}")
        if not equals:
            value = rest.pop() if rest and not rest[-1].startswith("--") else "true"
        changes[path] = value
    return changes
