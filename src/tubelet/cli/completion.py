"""``tubelet completion``: a script with which a shell completes commands, recipes and flags, without Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

from tyro.conf import Positional, arg

from tubelet.cli import data, weights
from tubelet.cli.command import Commands, Status
from tubelet.recipes import outlines
from tubelet.recipes.outline import flag

Shell = Literal["bash", "zsh", "fish"]

_TRAIN_FLAGS = ("--out", "--print-config")

# Where nothing fits, all three complete the names of files.
_BASH = """_tubelet() {{
    local IFS=' ' typed="${{COMP_WORDS[COMP_CWORD]}}" offered=""
    case "${{COMP_WORDS[*]:1:COMP_CWORD-1}} " in
{cases}
    esac
    COMPREPLY=()
    if [[ -n $typed || $offered != --* ]]; then
        IFS=$'\\n' COMPREPLY=($(IFS=' '; compgen -W "$offered" -- "$typed"))
    fi
}}
complete -o default -F _tubelet tubelet
"""
_ZSH = """#compdef tubelet
_tubelet() {{
    local offered=""
    case "${{(j: :)words[2,CURRENT-1]}} " in
{cases}
    esac
    [[ $offered != --* || $PREFIX == -* ]] && compadd -- ${{=offered}} || _files
}}
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
compdef _tubelet tubelet
"""
_FISH = """function __tubelet_offered
    set -l before (commandline -opc)
    set -l place (string join ' ' $before[2..])
    switch "$place "
{cases}
    end
end
complete -c tubelet -a '(__tubelet_offered)'
complete -c tubelet -f -n 'test (count (commandline -opc)) -eq 1'
"""


def completion(shell: Annotated[Positional[Shell], arg(help="bash, zsh or fish", metavar="SHELL")]) -> Status:
    """Print a script that completes commands, recipes and flags: put eval "$(tubelet completion bash)" into ~/.bashrc.

    For zsh the same in ~/.zshrc; for fish: tubelet completion fish > ~/.config/fish/completions/tubelet.fish
    """
    from tubelet.cli import COMMANDS

    print(_script(shell, COMMANDS, {"data": data.COMMANDS, "weights": weights.COMMANDS}), end="")


def _script(shell: Shell, commands: Commands, groups: Mapping[str, Commands]) -> str:
    """The script for a shell. ``commands``: by name; ``groups``: the commands below those that have some."""
    words = _words(commands, groups).items()
    if shell == "fish":
        cases = [f"        case '{place}'\n            string split -- ' ' '{offered}'" for place, offered in words]
        return _FISH.format(cases="\n".join(cases))
    cases = [f"        {_pattern(place)}) offered='{offered}' ;;" for place, offered in words]
    return (_BASH if shell == "bash" else _ZSH).format(cases="\n".join(cases))


def _words(commands: Commands, groups: Mapping[str, Commands]) -> dict[str, str]:
    """The words that may follow each place. The first place that matches counts; ``*`` matches anything."""
    recipes = outlines()
    words = {" ": " ".join([*commands, "--help", "--version"]), "train ": " ".join(recipes)}
    for name, recipe in recipes.items():
        words[f"train {name} *"] = " ".join([*recipe.flags, *_TRAIN_FLAGS])
    words["train *"] = " ".join(_TRAIN_FLAGS)
    words["completion "] = " ".join(get_args(Shell))
    for group, below in groups.items():
        words[f"{group} "] = " ".join(below)
        words |= {f"{group} {name} *": " ".join(_flags(command)) for name, command in below.items()}
    return words | {f"{name} *": " ".join(_flags(command)) for name, command in commands.items() if name != "train"}


def _flags(command: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(command).parameters.values()
    return [flag(p.name.rstrip("_"), on=p.default is True) for p in parameters if p.kind is p.KEYWORD_ONLY]


def _pattern(place: str) -> str:
    """The place as a pattern of ``case``: its words quoted, but not the star at its end."""
    return f"'{place.removesuffix('*')}'*" if place.endswith("*") else f"'{place}'"
