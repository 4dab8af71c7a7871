"""``tubelet pictures``: what a model has learned, beside the same model before any training."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from tubelet.cli.command import Json, Run, Status
from tubelet.cli.terminal import print_json, print_tables, table, warn


def pictures(
    run: Run,
    *,
    data: Annotated[str, arg(help="a manifest or folder to look at, instead of the run's own test data")] = "",
    split: Annotated[str, arg(help="a split to look at, instead of the run's test split")] = "",
    task: Annotated[str, arg(help="the task whose inputs and common spaces are shown, if there are several")] = "",
    clips: Annotated[int, arg(help="how many clips at most, a random choice of all")] = 300,
    seed: Annotated[int, arg(help="random seed: of the choice of clips, and of t-SNE")] = 0,
    perplexity: Annotated[float, arg(help="t-SNE's: about how many neighbors count; less for few clips")] = 30.0,
    out: Annotated[str, arg(help="folder for the pictures and their numbers; RUN/pictures if empty")] = "",
    json: Json = False,
) -> Status:
    """Draw what a model has learned: its features by class, and what is seen, heard and said in a common space.

    Each picture shows the model before any training, too. PNG files, and pictures.json with all numbers. No labels are
    needed: what the model or its data lack is left out, and said.
    """
    if not find_spec("matplotlib"):
        raise ModuleNotFoundError('pictures need matplotlib: pip install "tubelet[demo]"')
    from tubelet.configs import ConfigError, to_json
    from tubelet.evaluation.results import RESULTS
    from tubelet.recipes.run import report
    from tubelet.reports.learned import PICTURES, learn, write_learned

    if not out and not Path(run).is_dir():
        raise ConfigError(f"{run}: say where the pictures go (--out)")
    learned = learn(
        run, data=data, split=split, task=task, clips=clips, seed=seed, perplexity=perplexity, progress=not json
    )
    written = write_learned(learned, out or Path(run, PICTURES))
    if not out and Path(run, RESULTS).is_file() and (page := report(run)):
        written.append(page)
    if json:
        return print_json(to_json(learned))
    print(f"{learned.about()}.\n")
    print_tables(table(("", "untrained", "trained", "chance"), learned.rows(), numbers=(1, 2, 3)))
    for note in learned.notes:
        warn(note)
    print(f"\nLook at {', '.join(map(str, written))}")
    return None
