"""Classes that were never trained on, told apart by their names."""

from __future__ import annotations

from dataclasses import dataclass

from tubelet.cards.classes import ClassCard
from tubelet.models.model import Encoder
from tubelet.nn.common_space import CommonSpace, NearestSentence


@dataclass(frozen=True, kw_only=True)
class ZeroShotCard(ClassCard):
    """Classes by the sentences that ``prompt`` makes of their names, such as "a video of {}".

    ``audio_width`` and ``text_width`` are those of the :class:`~tubelet.cards.RetrievalCard` whose common space the
    sentences lie in. :func:`tubelet.inference.sentences.zero_shot` makes the head; none is trained.
    """

    prompt: str
    audio_width: int = 512
    text_width: int = 256

    def head(self, encoder: Encoder) -> NearestSentence:  # pyright: ignore[reportIncompatibleMethodOverride]
        space = CommonSpace(encoder.widths, self.audio_width, self.text_width)
        return NearestSentence(space, len(self.classes), self.text_width)

    def describe(self) -> list[str]:
        return [f"{line}, told apart by the sentences {self.prompt!r}" for line in super().describe()]
