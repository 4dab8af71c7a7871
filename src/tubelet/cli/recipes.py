"""``tubelet recipes``: the list of recipes."""

from __future__ import annotations

from tubelet.cli.command import Json, Status
from tubelet.cli.terminal import print_json, print_tables, table


def recipes(*, json: Json = False) -> Status:
    """List the recipes; `tubelet train RECIPE --help` describes one."""
    from tubelet.recipes import outlines

    lines = {name: recipe.summary for name, recipe in outlines().items()}
    return print_json(lines) if json else print_tables(table(("recipe", "what it trains"), list(lines.items())))
