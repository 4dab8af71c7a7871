"""The examples of a report: what they show or sound like, their labels, and what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tubelet.evaluation.predictions import Scored
from tubelet.evaluation.showcase import Cutting, choose, cut
from tubelet.media.errors import MediaError


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
        shown = "" if len(mistakes) == wrong_in_all else f", the {len(mistakes)} most confident"
        title = f"{wrong_in_all:,} mistake{'s' if wrong_in_all > 1 else ''} in {len(examples):,}{shown}"
        html += f"<h3>{title}</h3>{cards(mistakes)}"
    if right:
        html += f"<h3>Right answers</h3>{cards(right)}"
    return html


def _card(example: Scored, media: Path, heard: bool) -> str:
    try:
        cutting = cut(example, media, heard=heard)
    except MediaError as error:
        return f'<div class="clip wrong"><div class="text">{escape(str(error))}</div></div>'
    truth = ", ".join(label for labels in example.labels.values() for label in labels)
    answers = "".join(_answers(top[:3], example.labels.get(name, ())) for name, top in example.top.items())
    state = "right" if example.right else "wrong"
    return (
        f'<div class="clip {state}" title="{escape(example.key)}">{_player(cutting, media.name)}'
        f'<div class="text"><div class="truth">{escape(truth)}</div>{answers}</div></div>'
    )


def _player(cutting: Cutting, folder: str) -> str:
    source = f"{folder}/{cutting.path.name}"
    style = ' class="pixels"' if cutting.width < 128 else ""
    if cutting.picture is not None:
        image = f'<img class="spectrogram" src="{folder}/{cutting.picture.name}" alt="its spectrogram">'
        return f'{image}<audio src="{source}" controls preload="metadata"></audio>'
    if cutting.kind == "video":
        return f'<video{style} src="{source}" autoplay muted loop playsinline></video>'
    return f'<img{style} src="{source}" alt="">'


def _answers(top: Sequence[tuple[str, float]], truth: Sequence[str]) -> str:
    def row(place: int, label: str, p: float) -> str:
        mark = " hit" if label in truth else " miss" if place == 0 else ""
        return (
            f'<div class="answer{mark}"><i style="width:{100 * p:.1f}%"></i>'
            f'<span class="label">{escape(label)}</span><span>{100 * p:.0f} %</span></div>'
        )

    return "".join(row(place, label, p) for place, (label, p) in enumerate(top))
