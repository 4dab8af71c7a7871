"""The ``tubelet`` command: a module per command, which calls the packages below it and prints what they return.

Heavy imports wait inside the functions, so that ``tubelet --help`` answers at once. Exit status: 0 done, 1 failed,
2 asked for something that does not exist, 130 after SIGINT, 143 after SIGTERM.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

from tubelet.cli import (
    completion,
    convert,
    cost,
    data,
    demo,
    doctor,
    evaluate,
    pictures,
    predict,
    probe,
    recipes,
    train,
    weights,
)
from tubelet.cli.command import Commands, Status, choose
from tubelet.cli.terminal import print_versions, warn
from tubelet.configs import ConfigError

COMMANDS: Commands = {
    "demo": demo.demo,
    "train": train.train,
    "eval": evaluate.evaluate,
    "predict": predict.predict,
    "probe": probe.probe,
    "pictures": pictures.pictures,
    "convert": convert.convert,
    "cost": cost.cost,
    "doctor": doctor.doctor,
    "data": data.data,
    "weights": weights.weights,
    "recipes": recipes.recipes,
    "completion": completion.completion,
}
_ABOUT = (
    "Video understanding with transformers. --version prints the versions of Tubelet and PyTorch; --traceback shows "
    "the whole traceback of an error; --plugin FILE runs a Python file first, which may add models."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, TextIOWrapper):  # names may have bytes in them that are no letters
        sys.stdout.reconfigure(errors="backslashreplace")
    # Options of every command, before or after its name, are taken out of the words here.
    if traceback := "--traceback" in words:
        words.remove("--traceback")
    try:
        _load_plugins(words)
        return _dispatch(words) or 0
    except KeyboardInterrupt:
        warn("interrupted")
        return 130
    except Exception as error:
        ours = type(error).__module__.startswith("tubelet.")
        if traceback or not (ours or isinstance(error, OSError | ValueError | ModuleNotFoundError)):
            raise
        warn(str(error))
        return 2 if isinstance(error, ConfigError) else 1


def _load_plugins(words: list[str]) -> None:
    """Run the files that ``--plugin FILE`` names, and take these words out."""
    while "--plugin" in words:
        at = words.index("--plugin")
        if at + 1 == len(words):
            raise ConfigError("--plugin: name a Python file, as in tubelet --plugin my_model.py cost NAME")
        from tubelet.plugins import load_plugin

        load_plugin(words[at + 1])
        del words[at : at + 2]


def _dispatch(words: list[str]) -> Status:
    match words:
        case ["--version"]:
            return print_versions()
        case ["train", recipe, *rest] if not recipe.startswith("-"):
            return train.train_recipe(recipe, rest)
        case ["eval", *rest]:
            return choose(["eval", *evaluate.with_fields(rest)], COMMANDS, prog="tubelet", about=_ABOUT)
        case ["data", *rest]:
            return data.choose_data(rest)
        case ["weights", *rest]:
            return weights.choose_weights(rest)
        case _:
            return choose(words, COMMANDS, prog="tubelet", about=_ABOUT)
