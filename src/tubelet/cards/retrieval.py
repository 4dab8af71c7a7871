"""Vectors in common spaces, by which what is seen, heard and said finds each other (VATT Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tubelet.cards.card import Answers, Arrays, TaskCard
from tubelet.data.dataset import VideoViews
from tubelet.metrics import cosine, dual_softmax, retrieval, share_error
from tubelet.models.model import Encoder
from tubelet.nn.common_space import CommonSpace

_OTHERS = ("text", "audio")
_DUAL = "dual_softmax"


@dataclass(frozen=True, kw_only=True)
class RetrievalCard(TaskCard):
    """A vector of each input, in a space of ``audio_width`` for video and sound, and one of ``text_width`` for video
    and captions. No labels are needed.

    ``dual_softmax``: in scoring, each query's softmax over candidates is multiplied by each candidate's over all
    queries (:func:`~tubelet.metrics.dual_softmax`); the names of the metrics then begin with ``dual_softmax_``.

    The head's outputs are "video_audio", "audio_video" (B, audio_width), "video_text" (B, text_width) and "text_video"
    (B, P, text_width), of those inputs that the task has.
    """

    audio_width: int = 512
    text_width: int = 256
    dual_softmax: bool = False

    @property
    def others(self) -> tuple[str, ...]:
        """What video is compared with: captions, sound."""
        return tuple(name for name in _OTHERS if not self.inputs or name in self.inputs)

    @property
    def predicts(self) -> bool:
        return False

    @property
    def metric(self) -> str:
        return f"{self._prefix}r1"

    @property
    def _prefix(self) -> str:
        return f"{_DUAL}_" if self.dual_softmax else ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for other in self.others for name in (f"video_{other}", f"{other}_video"))

    @property
    def label_sets(self) -> tuple[str, ...]:
        return ()

    def head(self, encoder: Encoder) -> CommonSpace:
        return CommonSpace(encoder.widths, self.audio_width, self.text_width)

    def targets(self) -> None:
        return None

    def truth(self, example: VideoViews) -> dict[str, NDArray[Any]]:
        """What the example has: of captions (P,), which of them are not empty."""
        found: dict[str, NDArray[Any]] = {}
        for other in self.others:
            present = np.asarray(other not in example.missing)
            if other == "text":
                present = (example.inputs["text"][0] != 0).any(-1).numpy()
            paired = present.any() and "video" not in example.missing
            found |= {f"video_{other}": np.asarray(paired), f"{other}_video": present}
        return found

    def measure(self, outputs: Arrays, targets: Arrays) -> dict[str, float]:
        """``r1``: the mean over what is compared of ``text_to_video_r1`` and ``audio_to_video_r1``.

        Of each direction, such as ``text_to_video``: ``_r1``, ``_r5``, ``_r10``, the shares of queries whose own
        clip is among the first 1, 5 and 10 of all, and ``_median_rank``, from 1; ``_pool``: how many clips there are.

        Every caption that is not empty is a query; the first one of a clip is what a video finds. What an example lacks
        is neither query nor candidate. Raises ValueError where nothing can be compared.
        """
        found: dict[str, float] = {}
        for other in self.others:
            has = np.flatnonzero(targets[f"video_{other}"])
            if not len(has):
                continue
            videos, others = outputs[f"video_{other}"][has], outputs[f"{other}_video"][has]
            present = targets[f"{other}_video"][has]
            if other == "text":
                clip, caption = np.nonzero(present)
                queries = others[clip, caption]
                _, first = np.unique(clip, return_index=True)
                candidates = queries[first]
            else:
                clip, queries, candidates = np.arange(len(has)), others, others
            for name, scores in (
                (f"{other}_to_video", retrieval(self._compared(queries, videos), clip)),
                (f"video_to_{other}", retrieval(self._compared(videos, candidates), np.arange(len(has)))),
            ):
                found |= {f"{name}_{metric}": value for metric, value in scores.items()}
        if not found:
            raise ValueError(f"none of the examples has {' or '.join(self.others)} beside its pictures to compare")
        firsts = [found[f"{other}_to_video_r1"] for other in self.others if f"{other}_to_video_r1" in found]
        mean = {"r1": sum(firsts) / len(firsts), **found}
        return {f"{self._prefix}{metric}": value for metric, value in mean.items()}

    def _compared(self, queries: NDArray[Any], candidates: NDArray[Any]) -> NDArray[np.floating[Any]]:
        similarities = cosine(queries, candidates)
        return dual_softmax(similarities) if self.dual_softmax else similarities

    def protocol(self, targets: Arrays, views: str) -> str:
        said = [f"vectors of {views} views averaged, then their cosine"]
        for other in self.others:
            has = targets[f"video_{other}"].astype(bool)
            if not has.any():
                continue
            clips = int(has.sum())
            if other == "text":
                each = targets["text_video"][has].sum(1)
                count = f"{each.min()}" if each.min() == each.max() else f"{each.min()} to {each.max()}"
                said.append(
                    f"{each.sum():,} captions ({count} of each video) look for their own among {clips:,} videos, and a "
                    f"video for its first caption among {clips:,}"
                )
            else:
                said.append(f"{clips:,} sounds and {clips:,} videos look for each other")
        said.append("of candidates that are equally near, the earlier one comes first")
        if self.dual_softmax:
            said.append("dual softmax over all queries, so that none is answered alone")
        return "; ".join(said)

    def standard_error(self, value: float, examples: int) -> float:
        return share_error(value, examples)

    def answers(self, outputs: Arrays, top: int) -> Answers:
        """None: a vector says nothing by itself."""
        return Answers()

    def averaged(self, members: Sequence[tuple[TaskCard, Arrays]]) -> dict[str, NDArray[Any]]:
        raise ValueError("the vectors of different models lie in different spaces: they have no mean")

    def same_question(self, other: TaskCard) -> bool:
        return False

    def same_head(self, other: TaskCard) -> bool:
        return isinstance(other, RetrievalCard) and (self.names, self.audio_width, self.text_width) == (
            other.names,
            other.audio_width,
            other.text_width,
        )

    def describe(self) -> list[str]:
        pairs = " and ".join(f"video and {other}" for other in self.others)
        return [f"- vectors of {pairs} that can be compared"]
