"""``tubelet eval``: the metrics of a run, or of several together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from tubelet.cli.command import Json, Run, Status
from tubelet.cli.terminal import is_main_process, print_json, print_results
from tubelet.configs import ConfigError


def evaluate(
    run: Run,
    *,
    data: Annotated[str, arg(help="a manifest or folder to evaluate on, instead of the run's own data")] = "",
    split: Annotated[str, arg(help="a split to evaluate on, instead of the run's test split")] = "",
    task: Annotated[str, arg(help="evaluate this task only")] = "",
    views: Annotated[str, arg(help="clips x crops per video, such as 4x3; the run's own if empty")] = "",
    inputs: Annotated[str, arg(help="use only these of the task's inputs, such as video; all if empty")] = "",
    zero_shot: Annotated[
        bool, arg(help="tell the classes of --data apart by sentences of their names, without training")
    ] = False,
    prompt: Annotated[
        str, arg(help="the sentence of zero-shot, with {} for a class's name; 'a video of {}' if empty")
    ] = "",
    dual_softmax: Annotated[
        bool, arg(help="of retrieval: weigh candidates by all queries, which is another protocol")
    ] = False,
    model: Annotated[
        tuple[str, ...], arg(metavar="FIELD=VALUE", help="fields of the model to change: --model.FIELD VALUE")
    ] = (),
    ensemble: Annotated[tuple[str, ...], arg(help="more runs, whose scores are averaged with this run's")] = (),
    out: Annotated[str, arg(help="folder for results.json and the predictions of each file")] = "",
    json: Json = False,
) -> Status:
    """Evaluate all tasks of a run as the papers do: several views, every number with its views and coverage.

    Any field of the model that its weights allow is a flag: --model.tubes.0.stride 8,32,32 --model.video.frames 64.
    """
    from tubelet.data.views import Views
    from tubelet.evaluation.ensemble import evaluate_ensemble
    from tubelet.evaluation.results import results_json
    from tubelet.evaluation.run import evaluate_run
    from tubelet.inference.sentences import PROMPT
    from tubelet.recipes.run import report

    asked = Views.parse(views) if views else None
    for given, flag in ((inputs, "inputs"), (zero_shot, "zero-shot"), (dual_softmax, "dual-softmax"), (model, "model")):
        if ensemble and given:
            raise ConfigError(f"--{flag} is of one model, not of an ensemble; leave it out")
    if prompt and not zero_shot:
        raise ConfigError("--prompt is of --zero-shot; give both, or neither")
    results = (
        evaluate_ensemble(
            (run, *ensemble), data=data, split=split, task=task, views=asked, out=out or None, progress=not json
        )
        if ensemble
        else evaluate_run(
            run,
            data=data,
            split=split,
            task=task,
            views=asked,
            inputs=tuple(filter(None, inputs.split(","))),
            prompt=(prompt or PROMPT) if zero_shot else "",
            dual_softmax=dual_softmax,
            model=dict(_field(change) for change in model),
            out=out or None,
            progress=not json,
        )
    )
    if is_main_process():
        told = results_json(results, None if data or split or model or ensemble else Path(run))
        print_json(told) if json else print_results(told)
        if (out or not ensemble) and Path(out or run, "results.json").is_file():
            report(out or run)
    return None


def with_fields(words: Sequence[str]) -> list[str]:
    """The words with every ``--model.FIELD VALUE`` in one ``--model FIELD=VALUE ...``, which :func:`evaluate` takes."""
    rest, fields = list[str](), list[str]()
    left = list(reversed(words))
    while left:
        word, equals, value = left.pop().partition("=")
        if not word.startswith("--model."):
            rest.append(word + equals + value)
            continue
        if not equals and (not left or left[-1].startswith("--")):
            raise ConfigError(f"{word}: give it a value")
        fields.append(f"{word.removeprefix('--model.')}={value if equals else left.pop()}")
    return [*rest, "--model", *fields] if fields else rest


def _field(change: str) -> tuple[str, str]:
    path, equals, value = change.partition("=")
    if not equals:
        raise ConfigError(f"--model {change}: write FIELD=VALUE")
    return path.replace("-", "_"), value
