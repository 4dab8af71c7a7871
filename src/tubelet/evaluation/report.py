"""A run as one HTML page to look at: numbers with their views and coverage, curves, examples with their predictions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.configs import ConfigError
from tubelet.evaluation.comparison import Comparison, comparison_cells, read_comparison
from tubelet.evaluation.gallery import gallery
from tubelet.evaluation.kernels import learned_kernels
from tubelet.evaluation.predictions import Scored, read_predictions
from tubelet.evaluation.results import CLASSES, PREDICTIONS, RESULTS, headline
from tubelet.media.errors import MediaError
from tubelet.training.records import LOG
from tubelet.training.resolve import CONFIG, read_run
from tubelet.training.run import MODEL
from tubelet.version import __version__

_TITLES = {"top1": "top-1", "top5": "top-5", "map": "mAP", "mean_class_accuracy": "mean class accuracy"}


def write_report(run: str | Path, *, notes: str = "", clips: int = 18) -> Path:
    """Write ``report.html`` (and the media it shows, in ``report_media/``) into a run folder; returns the page's path.

    It reads what is there: ``results.json`` (needed), ``predictions.jsonl``, ``classes.json``, ``comparison.json``,
    ``log.jsonl``, ``config.json`` and ``model/``.
    ``notes``: paragraphs about the data (what is real, what is synthetic); without them, the experiment's own notes.
    ``clips``: how many mistakes, and how many right answers, are shown per task.
    """
    run = Path(run)
    if not (run / RESULTS).is_file():
        raise FileNotFoundError(f"{run} has no {RESULTS}: run `tubelet eval {run}` first")
    tasks = _read_json(run / RESULTS)["tasks"]
    classes = _read_json(run / CLASSES)
    experiment = _read_json(run / CONFIG).get("experiment", {})
    predictions = read_predictions(run / PREDICTIONS) if (run / PREDICTIONS).is_file() else []
    media = run / "report_media"
    media.mkdir(exist_ok=True)
    sections = [
        _head(run, experiment, notes or str(experiment.get("notes", ""))),
        _cards(tasks),
        _comparison(read_comparison(run)),
        _curves(run),
        *(
            _task(name, task, [e for e in predictions if e.task == name], classes.get(name, {}), media, clips)
            for name, task in tasks.items()
        ),
        _kernels(run),
        _settings(experiment),
    ]
    page = run / "report.html"
    page.write_text(_page(f"{run.resolve().name} · Tubelet", "\n".join(sections)), encoding="utf-8")
    return page


def read_log(path: Path) -> list[dict[str, Any]]:
    """The updates of a ``log.jsonl``; a last line that a killed run has not finished is left out."""
    whole = (text for text in path.read_text(encoding="utf-8").splitlines(keepends=True) if text.endswith("\n"))
    return [line for line in map(json.loads, whole) if "loss" in line]


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _page(title: str, body: str) -> str:
    css = files("tubelet.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{css}</style>\n</head>\n'
        f"<body><main>\n{body}\n<footer>Written by Tubelet {__version__}, {date.today():%d %B %Y}.</footer>\n"
        "</main></body>\n</html>\n"
    )


def _head(run: Path, experiment: Mapping[str, Any], notes: str) -> str:
    paragraphs = "".join(f"<p>{escape(part.strip())}</p>" for part in notes.split("\n\n") if part.strip())
    model = str(experiment.get("model", {}).get("kind", "")).removesuffix("Config")
    subtitle = f'<p class="soft">{escape(model)}</p>' if model else ""
    return f"<h1>{escape(run.resolve().name)}</h1>{subtitle}{paragraphs}"


def _title(metric: str) -> str:
    known = _TITLES.get(metric)
    return known or metric.replace("_top", " top-").replace("_", " ")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _coverage(task: Mapping[str, Any]) -> tuple[str, bool]:
    scored, expected = task["coverage"]["scored"], task["coverage"]["expected"]
    return f"{scored:,} of {expected:,} scored", scored == expected


def _cards(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    return f'<div class="cards">{"".join(_card(name, task) for name, task in tasks.items())}</div>'


def _card(name: str, task: Mapping[str, Any]) -> str:
    metrics = dict(task["metrics"])
    first = headline(metrics)
    value = metrics.pop(first)
    coverage, whole = _coverage(task)
    chips = [f'<span class="chip">{escape(name)}</span>' for name in task.get("inputs", ())]
    chips.append(f'<span class="chip">{escape(task["views"])} views</span>')
    chips.append(f'<span class="chip{"" if whole else " warn"}">{coverage}</span>')
    chips += [f'<span class="chip warn">{escape(warning)}</span>' for warning in task.get("warnings", ())]
    numbers = [(_title(metric), number) for metric, number in metrics.items()]
    single = task.get("single_view")
    if single:
        numbers += [
            (f"{_title(metric)}, {single['views']} view", number)
            for metric, number in single["metrics"].items()
            if metric == first
        ]
    rows = "".join(f"<dt>{escape(title)}</dt><dd>{_percent(number)}</dd>" for title, number in numbers)
    return (
        f'<div class="card"><div class="name">{escape(name)}</div>'
        f'<div class="headline">{_percent(value)}<small>{escape(_title(first))}</small></div>'
        f'<div class="chips">{"".join(chips)}</div><dl class="numbers">{rows}</dl></div>'
    )


def _comparison(comparison: Comparison | None) -> str:
    """PolyViT's Table 2 of this run."""
    if comparison is None:
        return ""
    header, *rows = comparison_cells(comparison)
    note = f'<p class="soft">{escape(comparison.note)}</p>' if comparison.note else ""
    return (
        f'<h2>Comparison</h2>{note}<div class="scroll"><table><thead>{_row("th", header)}</thead>'
        f"<tbody>{''.join(_row('td', row) for row in rows)}</tbody></table></div>"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    """A row of a table whose first column is a name and whose others are numbers."""
    first, *others = map(escape, cells)
    numbers = "".join(f'<{tag} class="number">{cell}</{tag}>' for cell in others)
    return f"<tr><{tag}>{first}</{tag}>{numbers}</tr>"


def _drawn(figure: Callable[[Any], Any]) -> str:
    """What ``figure`` makes with the module of pictures, or what to install for it."""
    try:
        from tubelet.evaluation import pictures
    except ModuleNotFoundError:
        return '<span class="soft">Pictures need matplotlib: pip install "tubelet[demo]"</span>'
    return pictures.svg(figure(pictures))


def _curves(run: Path) -> str:
    """Loss and learning rate by task, and which task trained when, where there are several."""
    path = run / LOG
    lines = read_log(path) if path.is_file() else []
    if len(lines) < 2:
        return ""
    html = f'<h2>Training</h2><div class="picture">{_drawn(lambda draw: draw.curves_picture(lines))}</div>'
    plan, together = _plan(run)
    if len(set(plan)) < 2:
        return html
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(Counter(plan).items()))
    how = f"each update sums the gradients of {together}" if together > 1 else "one an update"
    return (
        f'{html}<h3>Which task trained when</h3><p class="soft">Minibatches: {escape(counts)}; {how}.</p>'
        f'<div class="picture">{_drawn(lambda draw: draw.plan_picture(plan, together))}</div>'
    )


def _plan(run: Path) -> tuple[list[str], int]:
    """The task of each minibatch, and the minibatches of an update; none for a folder that is no whole run."""
    with suppress(ConfigError):
        resolved = read_run(run)
        return resolved.plan(), resolved.experiment.schedule.tasks_per_update(len(resolved.experiment.tasks))
    return [], 1


def _task(
    name: str,
    task: Mapping[str, Any],
    examples: Sequence[Scored],
    classes: Mapping[str, Mapping[str, Any]],
    media: Path,
    clips: int,
) -> str:
    unread = "".join(f"<li><code>{escape(str(MediaError(**error)))}</code></li>" for error in task.get("errors", ()))
    parts = [
        gallery(examples, media, clips, heard=task.get("inputs") == ["audio"]) if examples else "",
        f"<h3>Not scored, because they cannot be read</h3><ul>{unread}</ul>" if unread else "",
        *(_classes(label_set, table["classes"], table["confusion"]) for label_set, table in classes.items()),
    ]
    return f"<h2>{escape(name)}</h2>{''.join(parts)}" if any(parts) else ""


def _classes(label_set: str, rows: Sequence[Mapping[str, Any]], confusion: Sequence[Sequence[int]] | None) -> str:
    title = "Classes" if label_set == "label" else f"Classes: {label_set}"
    table = _class_table(rows)
    if confusion is None:
        return f"<h3>{escape(title)}</h3>{table}"
    names = [row["name"] for row in rows]
    picture = _drawn(lambda draw: draw.confusion_picture(np.array(confusion), names))
    return (
        f'<h3>{escape(title)}</h3><div class="columns"><div class="picture square">{picture}</div>'
        f'<div class="scroll">{table}</div></div>'
    )


def _class_table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [key for key in rows[0] if key != "name"]
    head = "".join(f'<th class="{_align(name)}">{escape(name.replace("_", " "))}</th>' for name in names)
    body = "".join(
        f"<tr><td>{escape(row['name'])}</td>{''.join(_cell(name, row[name]) for name in names)}</tr>" for row in rows
    )
    return f"<table><thead><tr><th>class</th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _align(name: str) -> str:
    return "" if name == "mistaken_for" else "number"


def _cell(name: str, value: object) -> str:
    if value is None:
        return f'<td class="{_align(name)} soft">–</td>'
    if isinstance(value, float):
        bar = f'<span class="bar"><i style="width:{100 * value:.1f}%"></i></span>'
        return f'<td class="number">{_percent(value)}{bar}</td>'
    return f'<td class="{_align(name)}">{escape(str(value))}</td>'


def _kernels(run: Path) -> str:
    """What the tokenizers look for, where the run has a model that takes images or videos."""
    kernels = learned_kernels(run) if (run / MODEL).is_dir() else {}
    if not kernels:
        return ""
    return (
        "<h2>Learned patches and tubes</h2>"
        '<p class="soft">The principal components of each tokenizer\'s kernels, the strongest first; frames x height x '
        "width. Frames run to the right; grey is zero.</p>"
        f'<div class="picture">{_drawn(lambda draw: draw.kernels_picture(kernels))}</div>'
    )


def _settings(experiment: Mapping[str, Any]) -> str:
    if not experiment:
        return ""
    text = escape(json.dumps(experiment, indent=2, ensure_ascii=False))
    return f"<h2>Experiment</h2><details><summary>every setting of this run</summary><pre>{text}</pre></details>"
