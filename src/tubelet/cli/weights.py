"""``tubelet weights``: which pretrained weights there are, and what a file or folder of weights is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from tubelet.cli.command import Commands, Json, Status, choose
from tubelet.cli.terminal import print_json, print_tables, table

if TYPE_CHECKING:
    from tubelet.weights.inspection import Inspection

_SHOWN = 8  # of names in a row


def weights() -> Status:
    """Pretrained weights: which there are, and what a file or folder is: tubelet weights inspect SOURCE."""
    return choose_weights([])


def choose_weights(words: list[str]) -> Status:
    """``tubelet weights WORDS``; the list without any."""
    return choose(words or ["list"], COMMANDS, prog="tubelet weights", about="Which pretrained weights there are.")


def list_weights(*, json: Json = False) -> Status:
    """List the formats that load, and public checkpoints that people start from."""
    from tubelet.weights.catalog import CATALOG
    from tubelet.weights.formats import FORMATS

    formats = ["model folders of Tubelet, and runs", *(one.LOADS for one in FORMATS)]
    if json:
        return print_json({"formats": formats, "checkpoints": [asdict(one) for one in CATALOG]})
    print("What loads:")
    for one in formats:
        print(f"  {one}")
    print("\nPublic checkpoints, by what their pages on the Hugging Face hub say; none was downloaded for this list:\n")
    rows = [(f"hf:{c.name}", c.medium, c.model, str(c.parameters), c.license, c.good_for) for c in CATALOG]
    print_tables(table(("source", "input", "model", "parameters M", "license", "good for"), rows, numbers=(3,)))
    print("\ntubelet weights inspect SOURCE says what a file, a folder or one of these is; hf: needs the network.")
    return None


def inspect(
    source: Annotated[
        Positional[str], arg(help="a file or folder of weights, a run, or hf:org/name", metavar="SOURCE")
    ],
    *,
    for_: Annotated[
        str, arg(name="for", help="a model's name: say what of it would start from the weights, and what not")
    ] = "",
    like: Annotated[
        str, arg(help="the name of the same model, for what a checkpoint without a config.json does not tell")
    ] = "",
    json: Json = False,
) -> Status:
    """Say what a file or folder of weights is: format, model, input, classes, and which of our models it can start."""
    from tubelet.models import model_config
    from tubelet.weights.folder import load_model
    from tubelet.weights.inspection import fit, inspect_weights

    target = model_config(for_) if for_ else None
    loaded = load_model(source, model_config(like) if like else target)
    if for_:
        report = fit(source, loaded, for_)
        return print_json({"for": for_, **asdict(report)}) if json else print(report)
    found = inspect_weights(source, loaded)
    return print_json(found.as_json()) if json else _print(found)


def _print(found: Inspection) -> None:
    rows = [
        ("format", found.format),
        ("model", f"{found.model}, {found.parameters / 1e6:.1f} million parameters"),
        *((f"tower {name}", description) for name, description in found.towers.items()),
        *((f"input {name}", description) for name, description in found.inputs.items()),
        *((f"task {name}", description) for name, description in found.tasks.items()),
        *((name, str(value)) for name, value in found.provenance.items() if name != "source"),
        ("dropped", _listed(found.dropped)),
        ("can start", _listed(found.starts, len(found.starts)) or "a model of its own size, given as a config"),
    ]
    print(f"{found.source}\n")
    print_tables(table(("", ""), [row for row in rows if row[1]]))
    print("\n--for NAME says what of a model would be loaded, resized, left fresh, and not used.")


def _listed(names: tuple[str, ...], most: int = _SHOWN) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


COMMANDS: Commands = {"list": list_weights, "inspect": inspect}
