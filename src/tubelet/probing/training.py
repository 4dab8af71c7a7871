"""How a head is trained on a frozen encoder, with PolyViT's settings (Sec. 5.4, Appendices A and D) or VATT's.

A probe trains on the files, as PolyViT does, or on cached features. Where training does not augment (images), both
give the same head up to rounding: the same minibatches, learning rates and first weights. For videos and sounds, which
that paper augments, cached features are a departure: every training example is seen in one view. VATT's two classifiers
(its Table 8) are of cached features.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tubelet.data.augment import Augmentation
from tubelet.data.kinds import Kind
from tubelet.data.manifest import Record
from tubelet.data.views import Views
from tubelet.evaluation.run import evaluator
from tubelet.nn.heads import HeadInit
from tubelet.probing.data import TRAIN, ProbeExamples, choosing_source
from tubelet.probing.encoder import Trunk
from tubelet.training.experiment import SGD, Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Mixup
from tubelet.training.run import CHECKPOINTS, train
from tubelet.training.unreadable import QUARANTINE
from tubelet.weights.transfer import Init

FINAL = "final"
ON_FILES, ON_FEATURES, KNN = "linear, trained on files", "linear, cached features", "k-NN"
LOW_RANK, SVM = "low-rank, cached features", "SVM, cached features"
LEAST_SQUARES = "least squares, cached features"
Classifier = Literal["linear", "low-rank", "svm", "few-shot"]
METHODS: dict[Classifier, str] = {
    "linear": ON_FEATURES,
    "low-rank": LOW_RANK,
    "svm": SVM,
    "few-shot": LEAST_SQUARES,
}
_LEAST_BATCH, _MINIBATCHES = 8, 16  # of video and audio: a pass over few examples has this many minibatches


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What you may change about a probe. 0 and empty mean the paper's value, see :func:`settings_for`.

    ``classifier``: "linear", or one that is fitted to features which are computed once: "low-rank" and "svm" of VATT's
    linear evaluation, and "few-shot", least squares on ``shots`` training examples of each class (10, if 0). ``fast``:
    compute the features once and fit a linear classifier and k-NN to them, instead of training on the files. ``knn``:
    run k-NN after training on the files, too. ``rates``: learning rates, or values of the SVM's C or of the penalty of
    least squares; of several, the one with the best validation score is taken. ``validation``: the share of the
    training examples that is held out for that choice. ``augment``: whether videos and sounds are augmented in training
    on files, and drawn at random for the SVM. ``neighbors``: the k of k-NN. ``frames`` and ``size`` (pixels): those of
    the new input, if the model is converted to another kind of media. ``features_per_forward``: views in one forward,
    which bounds its memory.
    """

    classifier: Classifier = "linear"
    fast: bool = False
    knn: bool = False
    shots: int = 0
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
        for name in ("shots", "steps", "batch_size", "frames", "size", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.classifier in ("svm", "few-shot") and (self.steps or self.batch_size):
            solved = "an SVM is" if self.classifier == "svm" else "least squares are"
            raise ValueError(f"{solved} solved as a whole, with neither steps nor a batch size; leave them out")
        if self.shots and self.classifier != "few-shot":
            raise ValueError(f'shots={self.shots} are of the classifier "few-shot", not of {self.classifier!r}')
        if any(rate <= 0 for rate in self.rates):
            raise ValueError(f"rates={self.rates}: learning rates must be above 0")
        if not 0 < self.validation < 1:
            raise ValueError(f"{self.validation=} must be a share between 0 and 1")
        if self.neighbors < 1:
            raise ValueError(f"{self.neighbors=} must be at least 1")

    @property
    def shots_of_each(self) -> int:
        """Training examples of each class of a few-shot probe."""
        return self.shots or 10

    @property
    def on_features(self) -> bool:
        """Whether the features are computed once."""
        return self.fast or self.classifier != "linear"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The hyper-parameters of a probe's training. ``warmup`` is part of ``length``.

    ``rates``: of the SVM, values of its C. ``passes``: how often the features of a training example are cached, each
    time as ``augment`` draws it; if once, those of its middle view.
    """

    length: Length
    warmup: Length
    batch_size: int
    rates: tuple[float, ...]
    head_init: HeadInit
    augment: Augmentation
    mixup: Mixup
    views: Views
    passes: int = 1

    @property
    def augments(self) -> bool:
        return self.augment != Augmentation.none() or self.mixup != Mixup()


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


# The released code of VATT for the low-rank classifier (the paper: 50,000 updates). For the SVM, that of MMV (Alayrac
# et al. 2020), whose pipeline VATT's paper says it has; it gives C for UCF101 alone, and VATT's paper gives none.
VATT: dict[Classifier, Settings] = {
    "low-rank": Settings(
        length=Length(epochs=1000),
        warmup=Length(),
        batch_size=64,
        rates=(5e-4,),
        head_init="glorot_normal",
        augment=Augmentation.none(),
        mixup=Mixup(),
        views=Views(clips=4),
    ),
    "svm": Settings(
        length=Length(),
        warmup=Length(),
        batch_size=1,
        rates=(0.001,),
        head_init="zeros",
        augment=Augmentation(scale_jitter=0.0, color=0.0, grayscale=0.0, frequency_masks=0),
        mixup=Mixup(),
        views=Views(clips=10),
        passes=10,
    ),
}


# The few-shot evaluation of Dosovitskiy et al. 2021 (Sec. 4.1), which TokenLearner uses; the penalty is big_vision's.
FEW_SHOT = Settings(
    length=Length(),
    warmup=Length(),
    batch_size=1,
    rates=(1024.0,),
    head_init="zeros",
    augment=Augmentation.none(),
    mixup=Mixup(),
    views=Views(clips=4),
)


def settings_for(modality: Kind, examples: int, options: ProbeOptions = ProbeOptions()) -> Settings:
    """The paper's settings for ``modality`` and the classifier of ``options``, which may change them.

    They are fitted to a training set of ``examples``.

    A minibatch has the paper's size, or less where that is too large for the data: at most all examples, and of videos
    and sounds a sixteenth of them (8 at least), so that few examples still give enough updates; the low-rank classifier
    has 64, or all. Fast probes do not augment.
    """
    if options.classifier != "linear":
        return _settings_on_features(modality, examples, options)
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


def _settings_on_features(modality: Kind, examples: int, options: ProbeOptions) -> Settings:
    paper = FEW_SHOT if options.classifier == "few-shot" else VATT[options.classifier]
    made = replace(
        paper,
        length=Length(steps=options.steps) if options.steps else paper.length,
        batch_size=min(options.batch_size or paper.batch_size, examples),
        rates=options.rates or paper.rates,
        views=options.views or (Views() if modality == "image" else paper.views),
    )
    if modality == "image" or not options.augment:
        made = replace(made, augment=Augmentation.none(), passes=1)
    return made


def _batch_size(modality: Kind, examples: int) -> int:
    most = PAPER[modality].batch_size
    return most if modality == "image" else min(most, max(_LEAST_BATCH, examples // _MINIBATCHES))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A frozen encoder, a data set, and how a head is trained on them."""

    trunk: Trunk
    examples: ProbeExamples
    settings: Settings
    options: ProbeOptions

    def describe(self, examples: int) -> str:
        """How the head is made of so many training examples, in a sentence."""
        settings = self.settings
        if self.options.classifier == "svm":
            seen = f"{settings.passes} random clips of each example" if settings.passes > 1 else "the middle of each"
            return f"a linear SVM, one class against the rest, on standardized features of {seen} (VATT, Table 8)"
        if self.options.classifier == "few-shot":
            return (
                f"a linear map to 1 for the class and -1 for others, by least squares on the standardized features of "
                f"{self.options.shots_of_each} examples of each class (Dosovitskiy et al. 2021, Sec. 4.1)"
            )
        updates = settings.length.resolve(examples, settings.batch_size)
        if self.options.classifier == "low-rank":
            return (
                f"a linear map of 128 components, nine in ten of which are dropped at a time, {updates:,} updates of "
                f"Adam in minibatches of {settings.batch_size} (VATT, A.3.2); probabilities averaged over views"
            )
        warmup = settings.warmup.resolve(examples, settings.batch_size)
        return (
            f"{updates:,} updates ({warmup:,} of warm-up, then a cosine) in minibatches of {settings.batch_size}, SGD "
            f"with momentum 0.9, head of {'zeros' if settings.head_init == 'zeros' else 'LeCun normal weights'}, "
            f"{'the augmentation of training' if settings.augments else 'no augmentation'}"
        )

    def experiment(self, rate: float, source: Source | None = None) -> Experiment:
        """The training of the head at a learning rate; on the data set's own splits, unless ``source`` is given."""
        examples, settings = self.examples, self.settings
        task = Task(
            source=source or Source(path=examples.path, train=TRAIN, test=examples.test_split),
            objective=replace(examples.objective, head_init=settings.head_init, mixup=settings.mixup),
            inputs=(self.trunk.input,),
            augment=settings.augment,
            batch_size=settings.batch_size,
            length=settings.length,
            warmup=settings.warmup,
            learning_rate=rate,
            views=settings.views,
        )
        return Experiment(
            model=self.trunk.config,
            tasks={examples.name: task},
            optimizer=SGD(),
            training=Training(workers=self.options.workers),
            init=(Init(source=self.trunk.source),),
            trainable=("heads.*",),
            seed=self.options.seed,
            notes=f"A linear probe of {self.trunk.source}. {self.trunk.note}".strip(),
        )

    def choose(self, score_of: Callable[[float, Sequence[Record], Sequence[Record]], float]) -> Choice:
        """The learning rate with the best ``score_of(rate, fit, validation)``; the smallest of equals.

        A single learning rate is taken without trying it.
        """
        if len(self.settings.rates) == 1:
            return Choice(rate=self.settings.rates[0])
        fit, validation, which = self.examples.for_choosing(self.options.validation, self.options.seed)
        scores = {rate: score_of(rate, fit, validation) for rate in sorted(self.settings.rates)}
        best = max(scores, key=lambda rate: scores[rate])
        reached = ", ".join(f"{rate:g}: {value:.1%}" for rate, value in scores.items())
        what = {"svm": "C of", "few-shot": "a penalty of"}.get(self.options.classifier, "learning rate")
        note = f"{what} {best:g} chosen by {which} ({reached}); then trained on all training examples"
        return Choice(rate=best, scores={f"{rate:g}": value for rate, value in scores.items()}, note=note)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The learning rate, and the validation score of each that was tried."""

    rate: float
    scores: dict[str, float] = field(default_factory=dict[str, float])
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A trained head's results. ``result``: its entry in ``results.json``; ``lost``: unreadable training files."""

    choice: Choice
    result: Mapping[str, Any]
    train: int
    lost: tuple[dict[str, Any], ...]


def train_on_files(plan: Plan, out: Path, progress: bool) -> Linear:
    """Train and test. ``out`` gets a run for each learning rate that is tried, and the run ``final``.

    The runs that try a rate read a manifest of training examples only.
    """
    name, metric = plan.examples.name, plan.examples.objective.metric

    def run(folder: Path, experiment: Experiment) -> Mapping[str, Any]:
        found = train(experiment, folder, evaluate=evaluator(folder, progress=progress), progress=progress)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # a finished run needs its model and results only
        return found.results["tasks"][name]

    def score_of(rate: float, fit: Sequence[Record], validation: Sequence[Record]) -> float:
        source = choosing_source(out, fit, validation)
        return run(out / f"rate_{rate:g}", plan.experiment(rate, source))["metrics"][metric]

    choice = plan.choose(score_of)
    result = run(out / FINAL, plan.experiment(choice.rate))
    lost = _quarantined(out / FINAL / QUARANTINE)
    return Linear(choice=choice, result=result, train=len(plan.examples.train) - len(lost), lost=lost)


def _quarantined(path: Path) -> tuple[dict[str, Any], ...]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return tuple({key: json.loads(line)[key] for key in ("path", "time", "reason")} for line in lines)
