"""The model card: what someone who finds a model folder needs to know first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from tubelet.cards import ClassCard, RetrievalCard, TaskCard
from tubelet.metrics import written
from tubelet.models import ModelConfig
from tubelet.version import __version__
from tubelet.weights.loaded import LoadedModel

_EXAMPLES = {"video": "clip.mp4", "image": "picture.jpg", "audio": "sound.wav", "text": "words.txt"}
_METRICS = {"top1": "accuracy", "map": "mean_average_precision"}
"""The hub's names of metrics that it has others for."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What a model card says that the model does not know.

    ``name``: what it is loaded by, such as "org/name" on the hub. ``license``: the hub's identifier of it, such as
    "apache-2.0". ``datasets``: the hub's names of the data that it learned from.
    """

    name: str
    license: str = ""
    datasets: tuple[str, ...] = ()


def model_card(loaded: LoadedModel, about: Publication, peer: tuple[str, str] = ("", "")) -> str:
    """A README.md in Markdown, with the front matter that the Hugging Face hub reads.

    ``peer``: the library that the folder is for, if it is not this one, and what loads it there.
    """
    parameters = sum(p.numel() for p in loaded.model.parameters())
    library, loader = peer
    sections = [
        _front_matter(loaded, about, library or "tubelet"),
        f"# {about.name}\n\n{_kind(loaded.config)} with {parameters / 1e6:.1f} million parameters, by Tubelet "
        f"{__version__}.",
        "## Input\n\n" + "\n".join(_inputs(loaded.config)),
        *(_task(task, card) for task, card in loaded.tasks.items()),
        _usage(_use_there(about.name, library, loader) if library else _use(about.name, loaded)),
    ]
    if loaded.provenance:
        sections.append(f"## Where the weights come from\n\n```json\n{json.dumps(loaded.provenance, indent=2)}\n```")
    return "\n\n".join(sections) + "\n"


def _front_matter(loaded: LoadedModel, about: Publication, library: str) -> str:
    from huggingface_hub import ModelCardData

    inputs = _by_preference(loaded.config)
    classifies = any(isinstance(card, ClassCard) for card in loaded.tasks.values())
    results = [result for task, card in loaded.tasks.items() for result in _results(task, card, loaded, about)]
    data = ModelCardData(
        library_name=library,
        pipeline_tag=f"{inputs[0]}-classification" if classifies else "feature-extraction",
        license=about.license or None,
        datasets=list(about.datasets) or None,
        tags=list(dict.fromkeys([library, "tubelet", *inputs])),
        model_name=about.name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _results(task: str, card: TaskCard, loaded: LoadedModel, about: Publication) -> list[Any]:
    """The metrics of a task as the hub's model index has them: each with its views and coverage."""
    from huggingface_hub import EvalResult

    medium = _by_preference(loaded.config)[0]
    source = _source(task, loaded.provenance)
    scored, _, expected = card.coverage.partition("/")
    counted = scored.isdecimal() and expected.isdecimal()
    counts = {"scored": int(scored), "expected": int(expected)} if counted else {}
    return [
        EvalResult(
            task_type=f"{medium}-classification" if isinstance(card, ClassCard) else "other",
            task_name=task,
            dataset_type=about.datasets[0] if len(about.datasets) == 1 else "other",
            dataset_name=_dataset(source) or task,
            dataset_split=source.get("test") or None,
            metric_type=_METRICS.get(metric, metric),
            metric_name=f"{metric}{_conditions(card)}",
            metric_value=value,
            metric_args={"views": card.views, **counts},
        )
        for metric, value in card.metrics.items()
    ]


def _source(task: str, provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a training had a task's examples from; empty, where the provenance is not that of a training."""
    found: Any = provenance
    for key in ("experiment", "tasks", task, "source"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _dataset(source: Mapping[str, Any]) -> str:
    """The name of a data set: that of its folder, or of its manifest."""
    path = PurePath(str(source.get("path", "")))
    return path.parent.name if path.stem == "manifest" else path.stem


def _by_preference(config: ModelConfig) -> list[str]:
    """The kinds of media that the model takes; the hub lists it under the first."""
    modalities = {spec.modality for spec in config.inputs.values()}
    return [medium for medium in _EXAMPLES if medium in modalities]


def _kind(config: ModelConfig) -> str:
    return f"A {config.kind} (`{config.name}`)" if config.name else f"A {config.kind}"


def _inputs(config: ModelConfig) -> list[str]:
    return [f"- `{name}`: {spec.description}" for name, spec in config.inputs.items()]


def _task(name: str, card: TaskCard) -> str:
    lines = card.describe()
    lines += [f"- of {' and '.join(f'`{kind}`' for kind in card.inputs)}"] if card.inputs else []
    lines += [f"- {metric}: {written(metric, value)}{_conditions(card)}" for metric, value in card.metrics.items()]
    return f"## Task `{name}`\n\n" + "\n".join(lines)


def _conditions(card: TaskCard) -> str:
    """How metrics were measured: the views, and how many of the files could be scored."""
    told = [f"{card.views} views"] if card.views else []
    told += [f"{card.coverage} scored"] if card.coverage else []
    return f" ({', '.join(told)})" if told else ""


def _usage(code: str) -> str:
    return f"## Use\n\n```python\n{code}\n```"


def _use_there(name: str, library: str, loader: str) -> str:
    if library == "timm":
        return f'import timm\n\nmodel = timm.create_model("hf-hub:{name}", pretrained=True)'
    return f'from transformers import {loader}\n\nmodel = {loader}.from_pretrained("{name}")'


def _use(name: str, loaded: LoadedModel) -> str:
    examples = [_EXAMPLES[kind] for kind in _by_preference(loaded.config)]
    predicts = any(card.predicts for card in loaded.tasks.values())
    call = "predict" if predicts else "embed"
    calls = "".join(f'\nprint(model.{call}("{example}"))' for example in examples if example != _EXAMPLES["text"])
    compared = {other for card in loaded.tasks.values() if isinstance(card, RetrievalCard) for other in card.others}
    if "text" in compared:
        calls += '\nprint(model.similarity("clip.mp4", text="a dog runs over a meadow"))'
    if "audio" in compared:
        calls += '\nprint(model.similarity("clip.mp4", "sound.wav"))'
    source = f"hf:{name}" if "/" in name else name
    return f'import tubelet\n\nmodel = tubelet.load("{source}"){calls}'
