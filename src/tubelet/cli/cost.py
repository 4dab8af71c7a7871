"""``tubelet cost``: what a model costs, beside the figures printed in the papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional, arg

from tubelet.cli.command import Json, Status
from tubelet.cli.terminal import print_json, print_tables, table
from tubelet.configs import ConfigError

if TYPE_CHECKING:
    from tubelet.costs.cost import Cost
    from tubelet.costs.published import PublishedRow


def cost(
    name: Annotated[Positional[str], arg(help="a model, such as vivit-b/16x2-fe", metavar="NAME")] = "",
    *,
    classes: Annotated[int, arg(help="number of classes")] = 400,
    frames: Annotated[int, arg(help="frames per clip; the paper's if 0")] = 0,
    size: Annotated[int, arg(help="height and width in pixels; the paper's if 0")] = 0,
    published: Annotated[bool, arg(help="compare with the figures printed in the papers")] = False,
    json: Json = False,
) -> Status:
    """Count tokens, parameters, multiply-adds and bytes of activations of a model."""
    from tubelet.costs.cost import costs
    from tubelet.costs.published import published_rows
    from tubelet.models import examples, model_config

    if bool(name) == published:
        raise ConfigError(f"give a model's name, such as {', '.join(examples())}, or --published")
    if published:
        rows = published_rows()
        if json:
            return print_json([asdict(row) for row in rows])
        return print_tables(_published_table(rows))
    counted = costs(model_config(name, frames=frames, size=size), classes)
    if json:
        described = [asdict(c) | {"parameter_bytes": c.parameter_bytes} for c in counted]
        return print_json(described if len(described) > 1 else described[0])
    return print_tables(*cost_tables(counted))


def cost_tables(costs: Sequence[Cost]) -> tuple[Table, Table]:
    """Two tables: the whole model, by modality if it takes one at a time, and its parts.

    Activations are those of one training example in float32.
    """
    return _whole(costs[0]) if len(costs) == 1 else _by_modality(costs), _parts(costs)


def _whole(cost: Cost) -> Table:
    rows = [
        ("input", _shapes(cost)),
        ("tokens", f"{cost.tokens:,}"),
        ("parameters", f"{cost.parameters / 1e6:.3f} M"),
        ("multiply-adds", f"{cost.multiply_adds / 1e9:.2f} G"),
        ("activations, float32", f"{cost.activation_bytes / 2**20:,.0f} MiB a training example"),
        ("weights, float32", f"{cost.parameter_bytes / 2**20:,.0f} MiB"),
    ]
    return table(("", ""), rows)


def _by_modality(costs: Sequence[Cost]) -> Table:
    rows = [
        (
            _shapes(cost),
            f"{cost.tokens:,}",
            f"{cost.used_parameters / 1e6:.3f}",
            f"{cost.multiply_adds / 1e9:.2f}",
            f"{cost.activation_bytes / 2**20:,.0f}",
        )
        for cost in costs
    ]
    rows.append(("all of the model", "", f"{costs[0].parameters / 1e6:.3f}", "", ""))
    columns = ("input", "tokens", "parameters M", "multiply-adds G", "activations MiB")
    return table(columns, rows, numbers=(1, 2, 3, 4))


def _shapes(cost: Cost) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in cost.inputs.items())


def _parts(costs: Sequence[Cost]) -> Table:
    """A column of multiply-adds for each modality; the parts that all of them use come last."""
    sizes = {part.name: part.parameters for cost in costs for part in cost.parts}
    work = [{part.name: f"{part.multiply_adds / 1e9:.3f}" for part in cost.parts} for cost in costs]
    names = sorted(sizes, key=lambda name: all(name in column for column in work))
    rows = [(name, f"{sizes[name] / 1e6:.3f}", *(column.get(name, "") for column in work)) for name in names]
    several = [f"{' and '.join(cost.inputs)}, G" for cost in costs]
    columns = ("part", "parameters M", *(several if len(costs) > 1 else ["multiply-adds G"]))
    return table(columns, rows, numbers=range(1, len(columns)))


def _published_table(rows: Sequence[PublishedRow]) -> Table:
    """A line per printed figure, and all multiply-adds of one view; below the table, why some cannot be reproduced."""
    lines = [
        (
            *(row.source, row.model, row.input, name),
            *(f"{value:g}", f"{row.ours[name]:.5g}", f"{row.ratio[name]:.4f}"),
            "" if row.multiply_adds_g is None else f"{row.multiply_adds_g:.1f}",
        )
        for row in rows
        for name, value in row.published.items()
    ]
    columns = ("source", "model", "input", "quantity", "published", "ours", "ratio", "multiply-adds G")
    made = table(columns, lines, numbers=(4, 5, 6, 7))
    reasons = [f"{row.source}, {row.model}: cannot be met, {row.reason}" for row in rows if row.reason]
    reasons.append(
        "gflops_tf, tflops_tf_12_views: as VATT counts, in TensorFlow's operations: two for a multiply-add, and none "
        "for the products of queries and keys"
    )
    made.caption, made.caption_justify = escape("\n".join(reasons)), "left"
    return made
