"""``tubelet convert``: a model in the layout of another library."""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tubelet.cli.command import Run, Status
from tubelet.cli.terminal import warn


def convert(
    run: Run,
    dest: Annotated[Positional[str], arg(help="the folder to write, which must be new", metavar="DEST")],
    *,
    to: Annotated[Literal["transformers", "timm"], arg(help="the library that shall load it")],
    task: Annotated[str, arg(help="the task whose head becomes the classifier, if there are several")] = "",
    check: Annotated[bool, arg(help="load it there, and compare both on the same input")] = False,
) -> Status:
    """Write a model into a folder that transformers or timm loads, with its class names and its preprocessing.

    --check needs that library, and prints the largest difference of tokens and logits (exit status 1 above 1e-4).
    """
    from tubelet.weights.folder import load_model
    from tubelet.weights.layouts import save_layout
    from tubelet.weights.peers import TOLERANCE, check_installed, compare

    if check:
        check_installed(to)
    loaded = load_model(run)
    made = save_layout(dest, loaded, to, task, origin=run)
    print(f"{dest}: {made.kind} of {to}" if to == "transformers" else f"{dest}: for {made.kind}")
    if not check:
        return None
    found = compare(dest, made, loaded, to, task)
    print(f"largest difference from {to} on random input: {', '.join(f'{k} {v:.1e}' for k, v in found.items())}")
    if max(found.values()) <= TOLERANCE:
        return None
    warn(f"{dest}: {to} computes something else than Tubelet: more than {TOLERANCE:g} apart")
    return 1
