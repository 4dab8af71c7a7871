"""Contrastive learning: what is seen, heard and said at one moment belongs together (VATT Sec. 3.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tubelet.cards import RetrievalCard
from tubelet.data.batch import Batch
from tubelet.data.manifest import Manifest
from tubelet.models.model import MASK, Model
from tubelet.training.objectives import Objective
from tubelet.training.ranks import Ranks

Formula = Literal["released", "paper"]
Gather = Callable[[Tensor], Tensor]

_NEVER = -1e9  # the similarity of what is left out, as in the released code
_SHORTEST = 1e-6  # that a vector is taken for


@dataclass(frozen=True, kw_only=True)
class Contrastive(Objective):
    """NCE between video and sound, MIL-NCE between video and captions, with the whole minibatch as negatives.

    The negatives are those of all ranks. ``video_audio``, ``video_text``: the weights of the two losses; the widths of
    the common spaces are ``audio_width`` and ``text_width`` (A.2.3). A clip without sound or without captions
    (``"audio_mask"``, ``"text_mask"``) takes no part in that loss.

    ``formula`` "released": one logarithm of both directions, in whose denominator the positives are twice, and the
    weighted mean of the two losses; "paper": Eq. 4 and 5, whose denominator has the positives once, and Eq. 6, their
    weighted sum. ``mean`` "batch" divides by the clips of the whole minibatch that take part, so that the number of
    ranks changes nothing; "rank" divides by each rank's own, as the released code does.
    ``empty_captions``: where a clip has fewer captions than the model takes, the rest are empty. "positives": they
    count as captions of it, as in the released code; "ignored": they count as nothing.

    All examples of a minibatch are needed at once, so that micro-batches are refused: they would have fewer negatives.
    """

    summed: ClassVar[bool] = False
    by_class: ClassVar[bool] = False

    temperature: float = 0.07
    video_audio: float = 1.0
    video_text: float = 1.0
    audio_width: int = 512
    text_width: int = 256
    formula: Formula = "released"
    mean: Literal["batch", "rank"] = "batch"
    empty_captions: Literal["positives", "ignored"] = "positives"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"{self.temperature=} must be positive, and finite")
        weights = (self.video_audio, self.video_text)
        if not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
            raise ValueError(f"{self.video_audio=} and {self.video_text=} must not be negative, and not both 0")

    def resolved(self, manifest: Manifest, split: str) -> Contrastive:
        return self

    def card(self, inputs: tuple[str, ...] = ()) -> RetrievalCard:
        return RetrievalCard(audio_width=self.audio_width, text_width=self.text_width, inputs=inputs)

    def __call__(self, model: Model, batch: Batch, ranks: Ranks) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = model.preprocess(batch.inputs)
        vectors: Mapping[str, Tensor] = model(inputs, batch.task)  # pyright: ignore[reportAssignmentType]
        some = next(iter(vectors.values()))
        pairs = {"audio": self.video_audio, "text": self.video_text}
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for other, weight in pairs.items():
            if not weight or f"{other}_video" not in vectors:
                continue
            present = inputs.get(f"{other}{MASK}", some.new_ones(len(batch))) > 0
            said = present[:, None]
            if other == "text":
                given = (inputs["text"] != 0).any(-1)
                said = said & (given | (self.empty_captions == "positives"))
                present = said.any(1)
            candidates = vectors[f"{other}_video"].float()
            candidates = candidates if candidates.ndim == 3 else candidates[:, None]
            each, right = nce(
                vectors[f"video_{other}"].float(),
                candidates,
                said.expand(candidates.shape[:2]),
                temperature=self.temperature,
                formula=self.formula,
                gather=ranks.gather,
                first=ranks.rank * len(batch),
            )
            losses[other] = self._mean(each, present, ranks)
            metrics[f"video_{other}_loss"] = losses[other].detach()
            metrics[f"video_{other}_top1"] = self._mean(right, present, ranks)
        if not losses:
            raise ValueError(f"nothing to compare: the task has the inputs {', '.join(batch.inputs)}")
        total = torch.stack([pairs[name] * loss for name, loss in losses.items()]).sum()
        if self.formula == "released":
            total = total / sum(pairs[name] for name in losses)
        return total, metrics

    def _mean(self, values: Float[Tensor, " B"], present: Bool[Tensor, " B"], ranks: Ranks) -> Float[Tensor, ""]:
        """Of the examples that take part. The ranks' gradients are averaged, so that a sum over all ranks, divided by
        the number of all that take part, is to be multiplied by the number of ranks."""
        mine = torch.where(present, values, torch.zeros_like(values)).sum()
        if self.mean == "rank":
            return mine / present.sum().clamp(min=1)
        return mine * ranks.world_size / ranks.gather(present.float()).sum().clamp(min=1)


def nce(
    video: Float[Tensor, "b C"],
    other: Float[Tensor, "b P C"],
    present: Bool[Tensor, "b P"],
    *,
    temperature: float = 0.07,
    formula: Formula = "released",
    gather: Gather = lambda x: x,
    first: int = 0,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """-log(positives / all) of each clip, and whether its best match in the whole minibatch is its own, as 0. or 1.

    With v_i and t_jl of length 1, s_ijl = v_i t_jl / temperature, and only those (j, l) that are ``present``, the
    positives of clip i are the sum over l of exp(s_iil). All is the sum over j and l of exp(s_ijl), plus the sum over k
    and l of exp(s_kil); "paper" subtracts the positives once, so that they are in it once. One caption (P = 1) makes it
    NCE, several MIL-NCE (VATT Eq. 4 and 5).

    ``gather`` puts the rows of all ranks one after the other; ``first`` is where this rank's rows then begin. A clip
    of which nothing is present has a value that means nothing.
    """
    video, other = (F.normalize(x, dim=-1, eps=_SHORTEST) for x in (video, other))
    videos, others, there = gather(video), gather(other), gather(present.to(video.dtype)) > 0
    row = (torch.einsum("ic,jlc->ijl", video, others) / temperature).masked_fill(~there, _NEVER)
    column = (torch.einsum("kc,ilc->ikl", videos, other) / temperature).masked_fill(~present[:, None], _NEVER)
    place = torch.arange(len(videos), device=video.device)
    own = place == place[first : first + len(video), None]
    right = row.detach().amax(-1).argmax(-1) == place[first : first + len(video)]
    if formula == "paper":
        column = column.masked_fill(own[..., None], _NEVER)
    everything = torch.cat([row.flatten(1), column.flatten(1)], 1)
    return everything.logsumexp(1) - row[own].logsumexp(1), right.to(video.dtype)
