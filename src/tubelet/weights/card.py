"""The model card: what someone who finds a model folder needs to know first."""

from __future__ import annotations

import json

from tubelet.cards import ClassCard, RetrievalCard, TaskCard
from tubelet.metrics import written
from tubelet.models import ModelConfig
from tubelet.version import __version__
from tubelet.weights.loaded import LoadedModel

_EXAMPLES = {"video": "clip.mp4", "image": "picture.jpg", "audio": "sound.wav", "text": "words.txt"}


def model_card(name: str, loaded: LoadedModel) -> str:
    """A README.md in Markdown, with the front matter that the Hugging Face hub reads."""
    parameters = sum(p.numel() for p in loaded.model.parameters())
    sections = [
        _front_matter(loaded),
        f"# {name}\n\n{_kind(loaded.config)} with {parameters / 1e6:.1f} million parameters, by Tubelet {__version__}.",
        "## Input\n\n" + "\n".join(_inputs(loaded.config)),
        *(_task(task, card) for task, card in loaded.tasks.items()),
        _usage(name, loaded),
    ]
    if loaded.provenance:
        sections.append(f"## Where the weights come from\n\n```json\n{json.dumps(loaded.provenance, indent=2)}\n```")
    return "\n\n".join(sections) + "\n"


def _front_matter(loaded: LoadedModel) -> str:
    inputs = _by_preference(loaded.config)
    tags = "".join(f"\n- {name}" for name in ("tubelet", *inputs))
    classifies = any(isinstance(card, ClassCard) for card in loaded.tasks.values())
    pipeline = f"{inputs[0]}-classification" if classifies else "feature-extraction"
    return f"---\nlibrary_name: tubelet\npipeline_tag: {pipeline}\ntags:{tags}\n---"


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
    views = f" ({card.views} views)" if card.views else ""
    lines += [f"- {metric}: {written(metric, value)}{views}" for metric, value in card.metrics.items()]
    return f"## Task `{name}`\n\n" + "\n".join(lines)


def _usage(name: str, loaded: LoadedModel) -> str:
    examples = [_EXAMPLES[kind] for kind in _by_preference(loaded.config)]
    predicts = any(card.predicts for card in loaded.tasks.values())
    call = "predict" if predicts else "embed"
    calls = "".join(f'\nprint(model.{call}("{example}"))' for example in examples if example != _EXAMPLES["text"])
    compared = {other for card in loaded.tasks.values() if isinstance(card, RetrievalCard) for other in card.others}
    if "text" in compared:
        calls += '\nprint(model.similarity("clip.mp4", text="a dog runs over a meadow"))'
    if "audio" in compared:
        calls += '\nprint(model.similarity("clip.mp4", "sound.wav"))'
    code = f'import tubelet\n\nmodel = tubelet.load("{name}"){calls}'
    return f"## Use\n\n```python\n{code}\n```"
