"""The examples of a report: what they show or sound like, their labels, and what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path, PurePath

from tubelet.evaluation.predictions import Scored
from tubelet.media.errors import MediaError
from tubelet.reports.showcase import Preview, choose, cut


def gallery(examples: Sequence[Scored], media: Path, count: int, *, heard: bool = False) -> str:
    """HTML of at most ``count`` mistakes and as many right answers, whose files are written into ``media``.

    ``heard``: the model saw nothing but their sound. The page stands beside the folder ``media``.
    """
    mistakes, right = choose(examples, count)
    wrong_in_all = sum(not example.right for example in examples)
    html = ""

    def cards(shown: Sequence[Scored]) -> str:
        wide = " sounds" if heard else ""
        return f'<div class="clips{wide}">{"".join(_card(example, media, heard) for example in shown)}</div>'

    if mistakes:
        are = "file is" if wrong_in_all == 1 else "files are"
        order = "The mistakes that the model was surest of come first." if len(mistakes) > 1 else ""
        shown = f" {len(mistakes):,} of them are shown." if len(mistakes) < wrong_in_all else ""
        html += (
            f'<h3>Where it fails</h3><p class="soft">{wrong_in_all:,} of {len(examples):,} {are} named wrong.{shown} '
            f"{order} The percentages say how sure it was.</p>{cards(mistakes)}"
        )
    if right:
        html += f"<h3>What it gets right</h3>{cards(right)}"
    return html


def _card(example: Scored, media: Path, heard: bool) -> str:
    truth = ", ".join(label for labels in example.labels.values() for label in labels)
    state = "right" if example.right else "wrong"
    try:
        shown = _player(cut(example, media, heard=heard), media.name)
    except MediaError as error:
        shown = f'<div class="text soft">{escape(str(error))}</div>'
    answers = "".join(_answers(top[:3], example.labels.get(name, ())) for name, top in example.top.items())
    really = "" if example.right else '<span class="soft">really</span> '
    words = "" if example.right else '<div class="soft">but answered</div>'
    return (
        f'<div class="clip {state}" title="{escape(example.key)}">{shown}<div class="text">'
        f'<div class="file">{escape(PurePath(example.key).name)}</div>'
        f'<div class="truth">{really}{escape(truth)}</div>{words}{answers}</div></div>'
    )


def _player(preview: Preview, folder: str) -> str:
    source = f"{folder}/{preview.path.name}"
    style = ' class="pixels"' if preview.width < 128 else ""
    if preview.picture is not None:
        image = f'<img class="spectrogram" src="{folder}/{preview.picture.name}" alt="its spectrogram">'
        return f'{image}<audio src="{source}" controls preload="metadata"></audio>'
    if preview.kind == "video":
        return f'<video{style} src="{source}" autoplay muted loop playsinline></video>'
    return f'<img{style} src="{source}" alt="">'


def _answers(top: Sequence[tuple[str, float]], truth: Sequence[str]) -> str:
    def row(place: int, label: str, p: float) -> str:
        mark = " hit" if label in truth else " miss" if place == 0 else ""
        return (
            f'<div class="answer{mark}"><i style="width:{100 * p:.1f}%"></i>'
            f'<span class="label">{escape(label)}</span><span>{p:.0%}</span></div>'
        )

    return "".join(row(place, label, p) for place, (label, p) in enumerate(top))
