"""How a linear probe trains: PolyViT's settings by modality (Sec. 5.4, Appendices A and D, Tables 6, 7 and 9)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tubelet.data.augment import Augmentation
from tubelet.data.kinds import Kind
from tubelet.data.views import Views
from tubelet.training.experiment import Length
from tubelet.training.objectives import Mixup

_LEAST_BATCH, _MINIBATCHES = 8, 16  # of video and audio: a pass over few examples has this many minibatches


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What a person may change about a probe; 0 and empty mean the paper's, see :func:`settings_for`.

    ``fast``: a linear classifier on features that are computed once, and k-NN beside it, instead of a training on the
    files. ``knn``: k-NN beside the training, too. ``rates``: learning rates; several are chosen from by the validation
    score. ``validation``: the share of the training examples that is kept for that choice. ``augment``: of videos and
    sounds, in training on files. ``neighbors``: the k of k-NN. ``frames`` and ``size``: of the input of a model that
    is converted to another kind of media. ``features_per_forward`` bounds a forward's memory.
    """

    fast: bool = False
    knn: bool = False
    steps: int = 0
    batch_size: int = 0
    rates: tuple[float, ...] = ()
    views: Views | None = None
    augment: bool = True
    validation: float = 0.02
    neighbors: int = 20
    frames: int = 0
    size: int = 0
    seed: int = 0
    workers: int = 2
    features_per_forward: int = 12

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "frames", "size", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if any(rate <= 0 for rate in self.rates):
            raise ValueError(f"rates={self.rates}: learning rates must be above 0")
        if not 0 < self.validation < 1:
            raise ValueError(f"{self.validation=} must be a share between 0 and 1")
        if self.neighbors < 1:
            raise ValueError(f"{self.neighbors=} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The hyper-parameters of a probe's training. ``warmup`` is part of ``length``."""

    length: Length
    warmup: Length
    batch_size: int
    rates: tuple[float, ...]
    head_init: Literal["zeros", "lecun"]
    augment: Augmentation
    mixup: Mixup
    views: Views

    @property
    def augments(self) -> bool:
        return self.augment != Augmentation.none() or self.mixup != Mixup()

    def told(self, examples: int) -> str:
        """The settings in a sentence."""
        updates = self.length.resolve(examples, self.batch_size)
        warmup = self.warmup.resolve(examples, self.batch_size)
        return (
            f"{updates:,} updates ({warmup:,} of warm-up, then a cosine) in minibatches of {self.batch_size}, SGD with "
            f"momentum 0.9, head of {'zeros' if self.head_init == 'zeros' else 'LeCun normal weights'}, "
            f"{'the augmentation of training' if self.augments else 'no augmentation'}"
        )


# Table 9; batch sizes of Table 7. Video has the rate, length and augmentation of Kinetics (Arnab et al. 2021), audio
# those of VGGSound (Nagrani et al. 2021) with mixup 0.3 (Appendix A). The frozen trunk has no stochastic depth.
PAPER: dict[Kind, Settings] = {
    "image": Settings(
        length=Length(steps=2500),
        warmup=Length(steps=200),
        batch_size=512,
        rates=(0.03, 0.1, 0.3),
        head_init="lecun",
        augment=Augmentation.none(),
        mixup=Mixup(),
        views=Views(),
    ),
    "video": Settings(
        length=Length(epochs=30),
        warmup=Length(epochs=2.5),
        batch_size=64,
        rates=(0.1,),
        head_init="zeros",
        augment=Augmentation(),
        mixup=Mixup(),
        views=Views(clips=4, crops=3),
    ),
    "audio": Settings(
        length=Length(epochs=30),
        warmup=Length(epochs=2.5),
        batch_size=64,
        rates=(0.5,),
        head_init="zeros",
        augment=Augmentation(),
        mixup=Mixup(alpha=0.3),
        views=Views(clips=4),
    ),
}


def settings_for(modality: Kind, examples: int, options: ProbeOptions = ProbeOptions()) -> Settings:
    """The paper's settings for ``modality``, fitted to a training set of ``examples`` and changed as ``options`` say.

    A minibatch has the paper's size, or less where that is too large for the data: at most all examples, and of videos
    and sounds a sixteenth of them (8 at least), so that few examples still give enough updates. Fast probes do not
    augment.
    """
    paper = PAPER[modality]
    made = replace(
        paper,
        batch_size=min(options.batch_size or _batch_size(modality, examples), examples),
        rates=options.rates or paper.rates,
        views=options.views or paper.views,
    )
    if options.steps:
        share = paper.warmup.steps / paper.length.steps if modality == "image" else 2.5 / 30
        made = replace(made, length=Length(steps=options.steps), warmup=Length(steps=round(share * options.steps)))
    if options.fast or not options.augment:
        made = replace(made, augment=Augmentation.none(), mixup=Mixup())
    return made


def _batch_size(modality: Kind, examples: int) -> int:
    most = PAPER[modality].batch_size
    return most if modality == "image" else min(most, max(_LEAST_BATCH, examples // _MINIBATCHES))
