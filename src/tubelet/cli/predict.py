"""``tubelet predict``: the classes of files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, TypeVar

from tyro.conf import Positional, arg

from tubelet.cli.command import Run, Status
from tubelet.cli.terminal import print_json, print_tables, warn
from tubelet.configs import ConfigError
from tubelet.media.errors import MediaError

T = TypeVar("T")


def predict(
    run: Run,
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
    """The results, up to an exception if there is one.

    A MediaError, raised or among the results, is printed and added to ``broken``.
    """
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
