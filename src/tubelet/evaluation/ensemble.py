"""Several models as one: their probabilities, or numbers, for each example are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tubelet.cards import TaskCard
from tubelet.configs import ConfigError
from tubelet.data.dataset import ViewSet
from tubelet.data.views import Views
from tubelet.evaluation.evaluate import Row, score_task, task_result
from tubelet.evaluation.results import RESULTS, TaskResult, results_json, write_details
from tubelet.evaluation.run import TestData, choose, tasks_of_run, test_data, view_set
from tubelet.inference.kinds import fitting_views
from tubelet.media.errors import MediaError
from tubelet.training.ranks import Ranks, init_distributed
from tubelet.weights.folder import load_model
from tubelet.weights.loaded import LoadedModel
from tubelet.writing import write_json


@dataclass(frozen=True)
class _Member:
    """One model's answers to a task's examples."""

    card: TaskCard
    videos: ViewSet
    rows: dict[str, Row]
    errors: dict[str, MediaError]


def evaluate_ensemble(
    sources: Sequence[str | Path],
    *,
    data: str = "",
    split: str = "",
    task: str = "",
    views: Views | None = None,
    out: str | Path | None = None,
    workers: int = 2,
    progress: bool = True,
    **options: Any,
) -> dict[str, TaskResult]:
    """Evaluate several separately trained runs, model folders or ``hf:org/name`` as one model; the results by task.

    The first source decides the tasks, classes and test data; each model uses its own inputs and views. Probabilities
    are averaged, because logits of separate models share no scale. An example counts as scored if all models could read
    it. Results are written into ``out``, if given. The other arguments are those of
    :func:`~tubelet.evaluation.run.evaluate_run`, and so are the errors; also raises ConfigError where a source has no
    task with the same classes.
    """
    first, *others = (load_model(source) for source in sources)
    runs = [tasks_of_run(source) for source in sources]
    origin = str(sources[0])
    names = choose(origin, tuple(first.tasks), task, data)
    tests = {
        name: test_data(name, first.tasks[name], first.model, runs[0].get(name), origin, data, split, views)
        for name in names
    }
    results: dict[str, TaskResult] = {}
    with init_distributed() as ranks:
        options |= {"ranks": ranks, "workers": workers, "progress": progress}
        for name in names:
            members = [_score(first, name, tests[name], options)]
            for source, loaded, run in zip(sources[1:], others, runs[1:], strict=True):
                theirs = _task_of(loaded, name, first.tasks[name], str(source))
                specs = {key: loaded.config.inputs[key] for key in loaded.tasks[theirs].inputs or loaded.config.inputs}
                own = views or (run[theirs].views if theirs in run else loaded.tasks[theirs].views)
                test = replace(tests[name], views=fitting_views(own, specs), inputs=tuple(specs))
                members.append(_score(loaded, theirs, test, options))
            results[name] = _together(name, members)
        if out is not None and ranks.is_main:
            _write(Path(out), results)
        ranks.barrier()
    return results


def _task_of(loaded: LoadedModel, name: str, card: TaskCard, source: str) -> str:
    """The task of another model that answers the question of ``card``."""
    theirs = next(iter(loaded.tasks)) if len(loaded.tasks) == 1 else name
    found = loaded.tasks.get(theirs)
    if found is None or not card.same_question(found):
        raise ConfigError(f"{source}: has no task that answers what {name!r} does; an ensemble answers one question")
    return theirs


def _score(loaded: LoadedModel, task: str, test: TestData, options: Mapping[str, Any]) -> _Member:
    card, ranks = loaded.tasks[task], options["ranks"]
    assert isinstance(ranks, Ranks)
    model = loaded.model.to(ranks.device)
    videos = view_set(model, card, test)
    rows, errors = score_task(model, task, card, videos, **options)
    model.to("cpu")
    return _Member(card, videos, rows, errors)


def _together(task: str, members: Sequence[_Member]) -> TaskResult:
    first = members[0]
    errors = {key: error for member in members for key, error in member.errors.items()}
    rows = {
        key: replace(
            row,
            mean=first.card.averaged([(member.card, member.rows[key].mean) for member in members]),
            single=first.card.averaged([(member.card, member.rows[key].single) for member in members]),
        )
        for key, row in first.rows.items()
        if key not in errors
    }
    results = [task_result(task, m.card, m.videos, m.rows, m.errors) for m in members]
    warnings = dict.fromkeys(warning for result in results for warning in result.warnings)
    views = dict.fromkeys(str(member.videos.views) for member in members)
    inputs = dict.fromkeys(name for member in members for name in member.videos.specs)
    return replace(
        task_result(task, first.card, first.videos, rows, errors),
        views=" and ".join(views),
        inputs=tuple(inputs),
        warnings=tuple(warnings),
    )


def _write(folder: Path, results: Mapping[str, TaskResult]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULTS, results_json(results))
    write_details(folder, results)
