"""``tubelet probe``: how much a frozen model's features tell about data that are new to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from tubelet.cli.command import Json, Run, Status
from tubelet.cli.terminal import print_json, print_tables, table, warn

if TYPE_CHECKING:
    from tubelet.probing.probe import Probe


def probe(
    run: Run,
    *,
    data: Annotated[str, arg(help="a folder of class folders, or a manifest")],
    input: Annotated[
        Literal["", "image", "video", "audio"], arg(help="what to read from the files; by their names if empty")
    ] = "",
    test: Annotated[str, arg(help="the test split; if empty, 'test', or 'val' where there is none")] = "",
    classifier: Annotated[
        Literal["linear", "low-rank", "svm", "few-shot"],
        arg(help="PolyViT's; VATT's two for its Table 8, or few-shot, which compute the features once"),
    ] = "linear",
    shots: Annotated[int, arg(help="training examples of each class for few-shot; 10 if 0")] = 0,
    fast: Annotated[bool, arg(help="compute the features once, and fit a linear classifier and k-NN to them")] = False,
    knn: Annotated[bool, arg(help="also classify by k-NN")] = False,
    steps: Annotated[int, arg(help="number of updates; the paper's if 0")] = 0,
    batch_size: Annotated[int, arg(help="examples per minibatch; if 0 the paper's, or fewer for a small data set")] = 0,
    rates: Annotated[
        tuple[float, ...],
        arg(help="learning rates to try, such as 0.1 0.3, the SVM's C or few-shot's penalty; the paper's if none"),
    ] = (),
    views: Annotated[str, arg(help="clips x crops per test video, such as 4x3; the paper's if empty")] = "",
    augment: Annotated[bool, arg(help="augment the training data, mirroring videos too; this turns it off")] = True,
    frames: Annotated[int, arg(help="frames of the new input, if the model is converted; the paper's if 0")] = 0,
    size: Annotated[int, arg(help="height and width of the new input; the model's or the paper's if 0")] = 0,
    seed: Annotated[int, arg(help="random seed")] = 0,
    workers: Annotated[int, arg(help="processes that read files")] = 2,
    out: Annotated[str, arg(help="a folder for the runs and probe.json; runs/probe_DATA if empty")] = "",
    json: Json = False,
) -> Status:
    """Probe a frozen model: train a new head on its features, with PolyViT's settings, and test it (its Sec. 5.4).

    ``--classifier low-rank`` and ``svm`` are the linear evaluation of VATT (its Table 8), ``few-shot`` that of ViT and
    TokenLearner: least squares on ``--shots`` examples of each class.

    A model that never had the data's kind of input is converted to it, as PolyViT's Appendix D says.
    """
    from tubelet.data.views import Views
    from tubelet.probing.data import ProbeData, data_name
    from tubelet.probing.probe import probe
    from tubelet.probing.training import ProbeOptions

    options = ProbeOptions(
        classifier=classifier,
        fast=fast,
        knn=knn,
        shots=shots,
        steps=steps,
        batch_size=batch_size,
        rates=rates,
        views=Views.parse(views) if views else None,
        augment=augment,
        frames=frames,
        size=size,
        seed=seed,
        workers=workers,
    )
    asked = ProbeData(path=data, input=input, test=test)
    found = probe(run, asked, out or f"runs/probe_{data_name(asked)}", options=options, progress=not json)
    return print_json(found.as_json()) if json else _print(found)


def _print(found: Probe) -> None:
    from tubelet.probing.probe import COLUMNS

    print_tables(table(COLUMNS, [row.cells() for row in found.rows], numbers=(3, 5, 7, 8)))
    print(f"\nThe head: {found.settings}.")
    for note in found.notes:
        print(f"Note: {note.rstrip('.')}.")
    for file in found.unreadable:
        warn(f"{file['split']}: left out: {file['path']}: {file['reason']}")
