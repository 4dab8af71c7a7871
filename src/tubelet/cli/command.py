"""What the commands share: arguments, and choosing one by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from tubelet.configs import ConfigError, nearest

STYLE = (FlagCreatePairsOff,)
Status = int | None  # a command's exit status; None is 0
Commands = Mapping[str, Callable[..., Status]]

Json = Annotated[bool, arg(help="print JSON that a script can read")]
Run = Annotated[Positional[str], arg(help="a run, a model folder, or hf:org/name", metavar="RUN")]


def choose(words: list[str], commands: Commands, *, prog: str, about: str) -> Status:
    """Run the command that the words ask for; its help without any. Raises ConfigError for an unknown one."""
    if words and not words[0].startswith("-") and words[0] not in commands:
        raise ConfigError(f"no command {f'{prog} {words[0]}'!r}{nearest(words[0], commands)}")
    return tyro.extras.subcommand_cli_from_dict(
        dict(commands), prog=prog, description=about, args=words or ["--help"], config=STYLE
    )
