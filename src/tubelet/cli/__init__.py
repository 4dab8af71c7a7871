"""The ``tubelet`` command: one function per subcommand; the work itself is done in the packages below.

Heavy imports wait inside the functions, so that ``tubelet --help`` answers at once. Exit status: 0 done, 1 failed,
2 asked for something that does not exist, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro
from tyro.conf import Positional, arg

from tubelet.cli.completion import Shell, script
from tubelet.cli.data import DATA
from tubelet.cli.probe import probe
from tubelet.cli.terminal import (
    cost_tables,
    findings_table,
    is_main_process,
    print_json,
    print_results,
    print_tables,
    published_table,
    table,
    warn,
)
from tubelet.cli.train import STYLE, train, train_recipe
from tubelet.configs import ConfigError, nearest
from tubelet.media.errors import MediaError

T = TypeVar("T")
Status = int | None
Json = Annotated[bool, arg(help="print JSON that a script can read")]
Model = Annotated[Positional[str], arg(help="a run, a model folder, or hf:org/name", metavar="RUN")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
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


def demo(*, out: Annotated[str, arg(help="the run's folder")] = "runs/demo") -> Status:
    """Train a small PolyViT on pictures, videos and sounds, and a model for each alone; compare, write a report."""
    from tubelet.evaluation.comparison import comparison_table
    from tubelet.inference.predictor import load
    from tubelet.recipes.demo import run_demo, unseen

    print_tables(comparison_table(run_demo(out)))
    model, files = load(out), unseen()
    print("\nFiles of writers and voices that it never saw:")
    for task, record in files.items():
        print(f"  {task}, really {record.labels['label'][0]}: {model.predict(record.path, top=3, task=task)}")
    print(f"Look at {out}/report.html, and try: tubelet predict {out} {files['motion'].path}")


def evaluate(
    run: Model,
    *,
    data: Annotated[str, arg(help="a manifest or folder to evaluate on, instead of the run's own data")] = "",
    split: Annotated[str, arg(help="a split to evaluate on, instead of the run's test split")] = "",
    task: Annotated[str, arg(help="evaluate this task only")] = "",
    views: Annotated[str, arg(help="clips x crops per video, such as 4x3; the run's own if empty")] = "",
    inputs: Annotated[str, arg(help="use only these of the task's inputs, such as video; all if empty")] = "",
    ensemble: Annotated[tuple[str, ...], arg(help="more runs, whose scores are averaged with this run's")] = (),
    out: Annotated[str, arg(help="folder for results.json and the predictions of each file")] = "",
    json: Json = False,
) -> Status:
    """Evaluate all tasks of a run as the papers do: several views, every number with its views and coverage."""
    from tubelet.data.views import Views
    from tubelet.evaluation.ensemble import evaluate_ensemble
    from tubelet.evaluation.results import results_json
    from tubelet.evaluation.run import evaluate_run
    from tubelet.recipes.run import report

    asked = Views.parse(views) if views else None
    if ensemble and inputs:
        raise ConfigError("--inputs is of one model: those of an ensemble have each their own; leave it out")
    given = tuple(filter(None, inputs.split(",")))
    results = (
        evaluate_ensemble(
            (run, *ensemble), data=data, split=split, task=task, views=asked, out=out or None, progress=not json
        )
        if ensemble
        else evaluate_run(
            run, data=data, split=split, task=task, views=asked, inputs=given, out=out or None, progress=not json
        )
    )
    if is_main_process():
        told = results_json(results, None if data or split or ensemble else Path(run))
        print_json(told) if json else print_results(told)
        if (out or not ensemble) and Path(out or run, "results.json").is_file():
            report(out or run)
    return None


def predict(
    run: Model,
    files: Annotated[Positional[tuple[str, ...]], arg(help="videos, images or sounds", metavar="FILE ...")],
    *,
    top: Annotated[int, arg(help="how many classes to show per file")] = 5,
    task: Annotated[str, arg(help="the task to predict; all that fit a file if empty")] = "",
    views: Annotated[str, arg(help="clips x crops per file, such as 4x3; the model's own if empty")] = "",
    timeline: Annotated[bool, arg(help="predict over time, with a sliding window")] = False,
    window: Annotated[float, arg(help="length of the timeline's window in seconds; that of a clip if 0")] = 0.0,
    stride: Annotated[float, arg(help="seconds from one window to the next; the window's length if 0")] = 0.0,
    format: Annotated[Literal["table", "json", "csv"], arg(help="output format")] = "table",
    json: Annotated[bool, arg(help="the same as --format json")] = False,
) -> Status:
    """Predict the classes of files.

    A file that cannot be read is named on stderr and the rest are predicted; the exit status is then 1.
    """
    from tubelet.inference import answers
    from tubelet.inference.predictor import load

    if not files:
        raise ConfigError(f"nothing to predict on: tubelet predict {run} FILE ...")
    model, form = load(run), "json" if json else format
    broken: list[MediaError] = []
    if timeline:
        lines = {file: _kept(model.segments(file, window=window, stride=stride, task=task), broken) for file in files}
        match form:
            case "json":
                print_json([answers.timeline_json(file, segments) for file, segments in lines.items()])
            case "csv":
                print(answers.timelines_csv(lines), end="")
            case "table":
                print_tables(
                    *(answers.timeline_table(file, answers.merged(segments)) for file, segments in lines.items())
                )
    else:
        results = _kept(model.predict_many(files, top=top, views=views, task=task), broken)
        said = [result for result in results if not isinstance(result, MediaError)]
        for prediction in said:
            for warning in prediction.warnings:
                warn(f"{prediction.path}: {prediction.task}: {warning}")
        match form:
            case "json":
                print_json([answers.as_json(result) for result in results])
            case "csv":
                print(answers.as_csv(results), end="")
            case "table":
                print_tables(answers.predictions_table(said))
    return 1 if broken else 0


def _kept(results: Iterable[T], broken: list[MediaError]) -> list[T]:
    """All results, also those from before an error; errors, raised or among them, are reported and join ``broken``."""
    kept: list[T] = []
    try:
        for result in results:
            kept.append(result)
            if isinstance(result, MediaError):
                broken.append(result)
                warn(str(result))
    except MediaError as error:
        broken.append(error)
        warn(str(error))
    return kept


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
        return print_tables(published_table(rows))
    counted = costs(model_config(name, frames=frames, size=size), classes)
    if json:
        described = [asdict(c) | {"parameter_bytes": c.parameter_bytes} for c in counted]
        return print_json(described if len(described) > 1 else described[0])
    return print_tables(*cost_tables(counted))


def doctor(*, json: Json = False) -> Status:
    """Check versions, decoders, devices, threads, memory and disk, and say how to fix what is missing."""
    from tubelet.doctor import examine

    findings = examine()
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_tables(findings_table(findings))
    return 1 if any(finding.state == "missing" for finding in findings) else 0


def recipes(*, json: Json = False) -> Status:
    """List the recipes; `tubelet train RECIPE --help` describes one."""
    from tubelet.recipes import outlines

    lines = {name: recipe.summary for name, recipe in outlines().items()}
    return print_json(lines) if json else print_tables(table(("recipe", "what it trains"), list(lines.items())))


def data() -> Status:
    """Index, check or make data: tubelet data index DIR."""
    return _choose([], DATA, prog="tubelet data", about=_ABOUT_DATA)


def completion(shell: Annotated[Positional[Shell], arg(help="bash, zsh or fish", metavar="SHELL")]) -> Status:
    """Print a script that completes commands, recipes and flags: put eval "$(tubelet completion bash)" into ~/.bashrc.

    For zsh the same in ~/.zshrc; for fish: tubelet completion fish > ~/.config/fish/completions/tubelet.fish
    """
    print(script(shell, _COMMANDS, {"data": DATA}), end="")


_COMMANDS: dict[str, Callable[..., Status]] = {
    "demo": demo,
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "probe": probe,
    "cost": cost,
    "doctor": doctor,
    "data": data,
    "recipes": recipes,
    "completion": completion,
}
_ABOUT = (
    "Video understanding with transformers. --version prints the versions of Tubelet and PyTorch; --traceback shows "
    "the whole traceback of an error; --plugin FILE runs a Python file first, which may add models."
)
_ABOUT_DATA = "Index, check or make data."


def _dispatch(words: list[str]) -> Status:
    match words:
        case ["--version"]:
            return _version()
        case ["train", recipe, *rest] if not recipe.startswith("-"):
            return train_recipe(recipe, rest)
        case ["data", *rest]:
            return _choose(rest, DATA, prog="tubelet data", about=_ABOUT_DATA)
        case _:
            return _choose(words, _COMMANDS, prog="tubelet", about=_ABOUT)


def _version() -> Status:
    from importlib.metadata import PackageNotFoundError, version

    from tubelet.version import __version__

    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    print(f"tubelet {__version__}, torch {torch}")


def _choose(words: list[str], commands: Mapping[str, Callable[..., Status]], *, prog: str, about: str) -> Status:
    if words and not words[0].startswith("-") and words[0] not in commands:
        raise ConfigError(f"no command {f'{prog} {words[0]}'!r}{nearest(words[0], commands)}")
    return tyro.extras.subcommand_cli_from_dict(
        dict(commands), prog=prog, description=about, args=words or ["--help"], config=STYLE
    )
