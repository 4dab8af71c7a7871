"""Sentences beside videos: their vectors, and classes that are told apart by sentences made of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tubelet.cards import RetrievalCard, TaskCard, ZeroShotCard
from tubelet.inference.scoring import Precision, evaluation_mode
from tubelet.media.words import word_ids, words_of
from tubelet.models import Model
from tubelet.specs import UNKNOWN, TextSpec
from tubelet.weights.loaded import LoadedModel

PROMPT = "a video of {}"
ZERO_SHOT = "zero_shot"
_NAMED = 5  # words or classes that a warning names


def comparing(model: Model, tasks: Mapping[str, TaskCard], other: str) -> tuple[str, RetrievalCard]:
    """The task that compares video with ``other``: "text" or "audio". Raises ValueError where there is none."""
    for name, card in tasks.items():
        if isinstance(card, RetrievalCard) and other in card.others and other in model.encoder.inputs:
            return name, card
    raise ValueError(f"this model does not compare video with {other}")


def text_spec(model: Model) -> TextSpec:
    """What the model wants of sentences. Raises ValueError where it takes none."""
    spec = model.encoder.inputs["text"]
    if not isinstance(spec, TextSpec):
        raise ValueError(f"the input 'text' of this model is a {type(spec).__name__}, which takes no sentences")
    if not spec.vocabulary:
        raise ValueError("this model has no vocabulary, so it reads no sentences; give its TextSpec one")
    return spec


def sentence_vectors(
    model: Model, tasks: Mapping[str, TaskCard], sentences: Sequence[str], precision: Precision = "float32"
) -> Float[Tensor, "N C"]:
    """The vectors of sentences in the space of video and captions, each of length 1: float32, on the CPU.

    Raises ValueError for a model that does not compare video with captions.
    """
    task, _ = comparing(model, tasks, "text")
    spec = text_spec(model)
    ids = torch.stack([word_ids(sentence, spec.id_of, spec.words) for sentence in sentences])[:, None]
    with evaluation_mode(model, precision):
        features = model.encoder({"text": ids.to(next(model.parameters()).device)})
        vectors = model.heads[task](features)["text_video"][:, 0]
    return F.normalize(vectors.float().cpu(), dim=-1)


def zero_shot(
    loaded: LoadedModel, classes: Sequence[str], prompt: str = PROMPT, *, several: bool = False
) -> LoadedModel:
    """The model with one task, "zero_shot", whose ``classes`` are told apart by the sentences of their names.

    A clip's logits are the cosines of its vector with those of the sentences, divided by 0.07. ``several``: an example
    may have any number of the classes. Nothing is trained, and the encoder is that of ``loaded``. Raises ValueError for
    a prompt without {}, and for a model that does not compare video with captions.
    """
    task, compared = comparing(loaded.model, loaded.tasks, "text")
    card = ZeroShotCard(
        classes=tuple(classes),
        multilabel=several,
        inputs=("video",),
        prompt=prompt,
        audio_width=compared.audio_width,
        text_width=compared.text_width,
        views=compared.views,
    )
    head = card.head(loaded.model.encoder)
    head.space.load_state_dict(loaded.model.heads[task].state_dict())
    head.sentences.copy_(sentence_vectors(loaded.model, loaded.tasks, [sentence_of(name, prompt) for name in classes]))
    model = Model(loaded.model.encoder, {ZERO_SHOT: head.to(next(loaded.model.parameters()).device)})
    return replace(loaded, model=model, tasks={ZERO_SHOT: card})


def sentence_of(name: str, prompt: str) -> str:
    """The prompt with a class's name in words: "ApplyEyeMakeup" and "apply_eye-makeup" are three."""
    if "{}" not in prompt:
        raise ValueError(f"{prompt=} must hold {{}}, where the name of a class comes, as in {PROMPT!r}")
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[_\-/.]+", " ", name))
    return prompt.replace("{}", spaced.strip())


def unclear(spec: TextSpec, classes: Sequence[str], prompt: str) -> list[str]:
    """What makes the sentences doubtful: words that the model does not know, and classes that sound the same to it."""
    sentences = {name: sentence_of(name, prompt) for name in classes}
    words = dict.fromkeys(word for sentence in sentences.values() for word in words_of(sentence))
    unknown = [word for word in words if word not in spec.id_of]
    found: list[str] = []
    if unknown:
        found.append(
            f"{len(unknown)} of the {len(words)} words of the classes' sentences are not in the model's vocabulary, "
            f"and all count as {UNKNOWN}: {_listed(unknown)}"
        )
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, sentence in sentences.items():
        alike.setdefault(tuple(word_ids(sentence, spec.id_of, spec.words).tolist()), []).append(name)
    if same := [name for names in alike.values() if len(names) > 1 for name in names]:
        found.append(
            f"{len(same)} of the {len(classes)} classes have the same sentence as another, as far as the model can "
            f"tell, so that the first of them is always chosen: {_listed(same)}"
        )
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*map(repr, names[:_NAMED])] + ["..."] * (len(names) > _NAMED))
