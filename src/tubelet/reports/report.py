"""A run as one HTML page: did it work, compared with what, where it fails, what to do next, and then all numbers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.configs import ConfigError, registered
from tubelet.evaluation.predictions import Scored, read_predictions
from tubelet.evaluation.results import CLASSES, PREDICTIONS, RESULTS, headline
from tubelet.media.errors import MediaError
from tubelet.metrics import written
from tubelet.models import ModelConfig
from tubelet.reports.comparison import Comparison, comparison_cells, read_comparison
from tubelet.reports.examples import report_examples
from tubelet.reports.kernels import learned_kernels
from tubelet.reports.learned import PICTURES, read_learned
from tubelet.reports.verdict import Evidence, Learning, Verdict, percent
from tubelet.training.logger import LOG
from tubelet.training.records import read_records
from tubelet.training.resolve import CONFIG, read_run
from tubelet.training.run import MODEL
from tubelet.version import __version__
from tubelet.writing import write_text

_TITLES = {
    "top1": "named right at the first try",
    "top5": "right among the first five answers",
    "map": "mean average precision",
    "mean_class_accuracy": "mean of the classes, each counted the same",
    "r2": "of the numbers' variance explained (R2)",
    "mae": "mean absolute error",
    "r1": "of the sounds and sentences find their own video at the first try",
}
_NOTHING = "Nothing stands out. Try it on files of your own: <code>tubelet predict RUN FILE</code>."
_INSTALL = '<span class="soft">Pictures need matplotlib: pip install "tubelet[demo]"</span>'
_LONG = 30  # rows above which a table scrolls


def write_report(run: str | Path, *, notes: str = "", clips: int = 18) -> Path:
    """Write ``report.html``, and the media it shows in ``report_media/``, into a run's folder; returns the page's path.

    It reads what is there: ``results.json`` (needed), ``predictions.jsonl``, ``classes.json``, ``comparison.json``,
    ``log.jsonl``, ``config.json``, ``model/`` and ``pictures/``.

    ``notes``: paragraphs about the data (what is real, what is synthetic); if empty, the experiment's own notes.
    ``clips``: how many mistakes, and how many right answers, are shown per task.
    """
    run = Path(run)
    if not (run / RESULTS).is_file():
        raise FileNotFoundError(f"{run} has no {RESULTS}: run `tubelet eval {run}` first")
    tasks = _read_json(run / RESULTS)["tasks"]
    classes = _read_json(run / CLASSES)
    config = _read_json(run / CONFIG)
    experiment = config.get("experiment", {})
    predictions = read_predictions(run / PREDICTIONS) if (run / PREDICTIONS).is_file() else []
    lines = read_records(run / LOG)
    media = run / "report_media"
    media.mkdir(exist_ok=True)
    several = len(tasks) > 1
    told: list[str] = []
    for name, task in tasks.items():
        examples = [example for example in predictions if example.task == name]
        learning = _learning(lines, name, config, several)
        evidence = Evidence.of(name, task, examples, experiment, learning)
        section = _task(task, Verdict.of(task, evidence), examples, classes.get(name, {}), media, clips)
        told.append(f"<h2>{escape(name)}</h2>{section}" if several and section else section)
    cards = _cards(tasks)
    sections = [
        _head(run, experiment, notes or str(experiment.get("notes", ""))),
        cards if several else "",
        *told,
        _comparison(read_comparison(run)),
        _learned(run),
        _curves(run, lines, _learning(lines, next(iter(tasks), ""), config, several=False), several),
        "" if several else f"<h2>All numbers</h2>{cards}",
        _kernels(run),
        _settings(experiment),
    ]
    page = run / "report.html"
    write_text(page, _page(f"{run.resolve().name} · Tubelet", "\n".join(sections)))
    return page


def read_log(path: Path) -> list[dict[str, Any]]:
    """The updates in a ``log.jsonl``. A last line that a killed run left unfinished is skipped."""
    return [line for line in read_records(path) if "loss" in line]


def _learning(lines: Sequence[Mapping[str, Any]], task: str, config: Mapping[str, Any], several: bool) -> Learning:
    """The task's learning. ``several``: there are several tasks, whose mean validation says nothing about one."""
    if several:
        lines = [line for line in lines if "validation" not in line]
    updates = [data.get("updates", 0) for data in config.get("data", {}).values()]
    return Learning.of(lines, task, planned=sum(updates) or None)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _page(title: str, body: str) -> str:
    css = files("tubelet.reports").joinpath("report.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{css}</style>\n</head>\n'
        f"<body><main>\n{body}\n<footer>Written by Tubelet {__version__}, {date.today():%d %B %Y}.</footer>\n"
        "</main></body>\n</html>\n"
    )


def _head(run: Path, experiment: Mapping[str, Any], notes: str) -> str:
    parts = (part for paragraph in notes.split("\n\n") for part in paragraph.split("\n"))
    paragraphs = "".join(f"<p>{escape(part.strip())}</p>" for part in parts if part.strip())
    kind = str(experiment.get("model", {}).get("kind", ""))
    family = registered(ModelConfig).get(kind)
    model = (family.__name__ if family else kind).removesuffix("Config")
    subtitle = f'<p class="soft">{escape(model)}</p>' if model else ""
    return f'<h1>{escape(run.resolve().name)}</h1>{subtitle}<div class="notes">{paragraphs}</div>'


def _title(metric: str) -> str:
    if found := re.fullmatch(r"(\w+)_to_(\w+)_(r1|r5|r10|median_rank|pool)", metric):
        asked, wanted, what = found.groups()
        match what:
            case "r1":
                return f"{asked} finds its own {wanted} at the first try"
            case "median_rank":
                return f"{asked} to {wanted}: median place of its own"
            case "pool":
                return f"{asked} to {wanted}: candidates"
            case _:
                return f"{asked} to {wanted}: its own among the first {what.removeprefix('r')}"
    known = _TITLES.get(metric)
    return known or metric.replace("_top", " top-").replace("_", " ")


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
    numbers = [(_title(metric), written(metric, number)) for metric, number in metrics.items()]
    single = task.get("single_view")
    if single:
        numbers += [
            (f"{_title(metric)}, {single['views']} view", written(metric, number))
            for metric, number in single["metrics"].items()
            if metric == first
        ]
    rows = "".join(f"<dt>{escape(title)}</dt><dd>{number}</dd>" for title, number in numbers)
    return (
        f'<div class="card"><div class="name">{escape(name)}</div>'
        f'<div class="headline">{percent(value)}<small>{escape(_title(first))}</small></div>'
        f'<div class="chips">{"".join(chips)}</div><dl class="numbers">{rows}</dl></div>'
    )


def _comparison(comparison: Comparison | None) -> str:
    """The comparison as a table in the form of PolyViT's Table 2."""
    if comparison is None:
        return ""
    header, *rows = comparison_cells(comparison)
    note = f'<p class="soft">{escape(comparison.note)}</p>' if comparison.note else ""
    return (
        f'<h2>Comparison</h2>{note}<div class="scroll"><table><thead>{_row("th", header)}</thead>'
        f"<tbody>{''.join(_row('td', row) for row in rows)}</tbody></table></div>"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    """A row of a table: a name, then numbers."""
    first, *others = map(escape, cells)
    numbers = "".join(f'<{tag} class="number">{cell}</{tag}>' for cell in others)
    return f"<tr><{tag}>{first}</{tag}>{numbers}</tr>"


def _learned(run: Path) -> str:
    """What ``tubelet pictures`` found, drawn."""
    learned = read_learned(run / PICTURES)
    if learned is None:
        return ""
    said = f"Each picture shows the model before any training, too. {learned.about()}."
    notes = "".join(f"<li>{escape(note)}</li>" for note in learned.notes)
    head = f'<h2>What it learned</h2><p class="soft">{escape(said)}</p>{f"<ul>{notes}</ul>" if notes else ""}'
    try:
        from tubelet.reports.learned_pictures import CAPTIONS, TITLES, draw_learned
    except ModuleNotFoundError:
        return head + _INSTALL
    return head + "".join(
        f'<h3>{escape(TITLES[name])}</h3><p class="soft">{escape(CAPTIONS[name])}</p>'
        f'<div class="picture">{_drawn(lambda _, figure=figure: figure)}</div>'
        for name, figure in draw_learned(learned).items()
    )


def _drawn(figure: Callable[[Any], Any]) -> str:
    """The SVG of the figure that ``figure`` makes, or a note about what to install for it."""
    try:
        from tubelet.reports import pictures
    except ModuleNotFoundError:
        return _INSTALL
    return pictures.svg(figure(pictures))


def _curves(run: Path, lines: Sequence[Mapping[str, Any]], learning: Learning, several: bool) -> str:
    """Validation and loss, or loss and learning rate. With several tasks, also which one trained when."""
    updates = [line for line in lines if "loss" in line]
    if len(updates) < 2:
        return ""
    if learning.steps:
        which = "files held out of the training" + (", the mean over the tasks" if several else "")
        text = (
            f"Left: how well the model does on the validation files ({which}) as it learns; the band is the "
            f"uncertainty that comes of their number. {learning} Right: the loss, which is how far the answers are "
            "from the truth on the training files; it should fall."
        )
        picture = _drawn(lambda draw: draw.learning_picture(updates, learning))
    else:
        text = (
            "Left: the loss, which is how far the answers are from the truth on the training files; it should fall. "
            "Right: the learning rate, the size of each step."
        )
        picture = _drawn(lambda draw: draw.curves_picture(updates))
    html = f'<h2>How it learned</h2><p class="soft">{escape(text)}</p><div class="picture">{picture}</div>'
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
    """The task of each minibatch, and the number of minibatches per update; none if the folder isn't a complete run."""
    with suppress(ConfigError):
        resolved = read_run(run)
        return resolved.plan(), resolved.experiment.schedule.tasks_per_update(len(resolved.experiment.tasks))
    return [], 1


def _task(
    task: Mapping[str, Any],
    verdict: Verdict | None,
    examples: Sequence[Scored],
    classes: Mapping[str, Mapping[str, Any]],
    media: Path,
    clips: int,
) -> str:
    unread = "".join(f"<li><code>{escape(str(MediaError(**error)))}</code></li>" for error in task.get("errors", ()))
    parts = [
        _verdict(verdict) if verdict else "",
        report_examples(examples, media, clips, audio_only=task.get("inputs") == ["audio"]) if examples else "",
        f"<h3>Not scored, because they cannot be read</h3><ul>{unread}</ul>" if unread else "",
        _numbers(examples),
        _panel(task.get("baseline")),
        *(_classes(label_set, table["classes"], table["confusion"]) for label_set, table in classes.items()),
    ]
    return "".join(parts)


def _verdict(verdict: Verdict) -> str:
    """The verdict in words and as bars, and what to do next."""
    bars = ""
    if verdict.chance is not None:
        share, how = verdict.chance
        bars += _bar("Chance", how, share)
    if verdict.baseline is not None:
        bars += _bar(f"Best simple {verdict.simple}", verdict.name, verdict.baseline)
    kind = "worse" if verdict.useless else verdict.outcome.replace(" ", "-")
    bars += _bar(
        "This model", f"uncertainty ±{100 * verdict.error:.1f} points", verdict.model, verdict.error, f"model {kind}"
    )
    text = f"<p>{escape(verdict.text)}</p>" if verdict.text else ""
    advice = "".join(f"<li>{_with_code(sentence)}</li>" for sentence in verdict.advice())
    steps = (
        f"<ol>{advice}</ol>"
        if advice
        else "<p>Nothing stands out. Try it on new files: <code>tubelet predict</code></p>"
    )
    return (
        f'<div class="verdict {kind}"><div class="outcome">{escape(verdict.title)}</div>'
        f'{text}<div class="bars">{bars}</div></div><h3>What to do next</h3>{steps}'
    )


def _bar(title: str, detail: str, share: float, error: float = 0.0, kind: str = "") -> str:
    """A row of the bar chart: a share, with a line that extends one standard ``error`` to both sides."""
    low, high = max(0.0, share - error), min(1.0, max(0.0, share + error))
    line = f'<b style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></b>' if error else ""
    return (
        f'<div class="row {kind}"><div class="what">{escape(title)}<small>{escape(detail)}</small></div>'
        f'<div class="track"><i style="width:{100 * max(0.0, share):.1f}%"></i>{line}</div>'
        f'<div class="share">{percent(share)}</div></div>'
    )


def _with_code(sentence: str) -> str:
    """HTML of a sentence in which commands stand in backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(sentence, quote=False))


def _panel(baseline: Mapping[str, Any] | None) -> str:
    """The simple classifiers or regressors, the best first."""
    if not baseline:
        return ""
    numbers = "r2" in baseline["metrics"]
    simple, of = ("regressors", "R2 on held-out files") if numbers else ("classifiers", "held-out files named right")
    tried = sorted(baseline["tried"].items(), key=lambda pair: (pair[0] != baseline["name"], -pair[1]))
    rows = "".join(f"<tr><td>{escape(name)}</td>{_cell('', value)}</tr>" for name, value in tried)
    return (
        f'<h3>What it was compared with</h3><p class="soft">{len(tried):,} simple {simple}, each a standard method '
        "on a handful of measurements of a file, were fitted to the same training files. The one that did best on "
        f"files held out of them, {escape(baseline['name'])}, was then fitted to {baseline['train']:,} files and "
        f"tested on the same test files. All of it took {baseline['seconds']:.0f} s.</p>"
        f"<details><summary>all {len(tried):,} simple {simple}</summary><table><thead><tr><th>which</th>"
        f'<th class="number">{of}</th></tr></thead><tbody>{rows}</tbody></table></details>'
    )


def _numbers(examples: Sequence[Scored]) -> str:
    """Truth against answer, of each number."""
    pictures = [
        f'<div class="picture square">{_drawn(lambda draw, name=name: draw.numbers_picture(examples, name))}</div>'
        for name in (examples[0].numbered if examples else ())
    ]
    return f'<h3>Truth and answer</h3><div class="columns">{"".join(pictures)}</div>' if pictures else ""


def _classes(label_set: str, rows: Sequence[Mapping[str, Any]], confusion: Sequence[Sequence[int]] | None) -> str:
    title = "Classes" if label_set == "label" else f"Classes: {label_set}"
    table = _class_table(rows)
    if confusion is None:
        return f"<h3>{escape(title)}</h3>{table}"
    names = [row["name"] for row in rows]
    picture = _drawn(lambda draw: draw.confusion_picture(np.array(confusion), names))
    return (
        f'<h3>{escape(title)}</h3><div class="columns"><div class="picture square">{picture}</div>'
        f'<div class="scroll{" long" if len(rows) > _LONG else ""}">{table}</div></div>'
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
        bar = f'<span class="bar"><i style="width:{100 * max(0.0, value):.1f}%"></i></span>'
        return f'<td class="number">{percent(value)}{bar}</td>'
    return f'<td class="{_align(name)}">{escape(str(value))}</td>'


def _kernels(run: Path) -> str:
    """The learned kernels, if the run has a model that takes images or videos."""
    kernels = learned_kernels(run) if (run / MODEL).is_dir() else {}
    if not kernels:
        return ""
    return (
        "<h2>Learned patches and tubes</h2>"
        '<p class="soft">The principal components of each tokenizer\'s kernels, the strongest first; frames x height x '
        "width. Frames run to the right; gray is zero.</p>"
        f'<div class="picture">{_drawn(lambda draw: draw.kernels_picture(kernels))}</div>'
    )


def _settings(experiment: Mapping[str, Any]) -> str:
    if not experiment:
        return ""
    text = escape(json.dumps(experiment, indent=2, ensure_ascii=False))
    return (
        f"<h2>Technical settings</h2><details><summary>every setting of this run</summary><pre>{text}</pre></details>"
    )
