"""An experiment as a value: frozen dataclasses all the way down, saved beside the run and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from tubelet.configs import register
from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Manifest, read_manifest
from tubelet.data.parts import read_parts
from tubelet.data.views import Views
from tubelet.models import ModelConfig
from tubelet.training.classification import Classification
from tubelet.training.contrastive import Contrastive
from tubelet.training.objectives import Objective
from tubelet.training.regression import Regression
from tubelet.training.schedules import Decay, Schedule, TaskByTask, Weighted
from tubelet.weights.transfer import Init

OBJECTIVES: dict[str, type[Objective]] = {
    "classification": Classification,
    "contrastive": Contrastive,
    "regression": Regression,
}

for _name, _objective in OBJECTIVES.items():
    register(Objective, _name, _objective)


def _check(of: object, *names: str, least: float = 0.0, below: float = math.inf) -> None:
    """Raise ValueError for a field out of its range, or a rate of ``rates`` below 0."""
    for name in names:
        if not least <= (value := getattr(of, name)) < below:
            said = f"at least {least:g}{f' and below {below:g}' if below < math.inf else ', and finite'}"
            raise ValueError(f"{name}={value:g} must be {said}")


def _check_rates(rates: Mapping[str, float]) -> None:
    for pattern, factor in rates.items():
        if not 0 <= factor < math.inf:
            raise ValueError(f"rates[{pattern!r}]={factor:g} must be at least 0, and finite")


def _check_betas(betas: tuple[float, float]) -> None:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas={betas} must each be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a task's examples come from: a manifest file (CSV, JSONL, Parquet) or a folder of class folders.

    ``validation`` names the split that chooses among the weights of a training (see :class:`Training`); where there is
    none, ``held_out`` is the share of the training examples, in whole groups where possible, that is held out for it.
    ``also``: further manifests, whose ``train`` splits have the same share of every minibatch as the first, whatever
    their sizes (VATT A.1.1); tests and validation are the first one's. ``parts``: seconds; files are cut into parts of
    this length, each an example, and a folder's files have no labels (:func:`~tubelet.data.parts.read_parts`).
    """

    path: str
    train: str = "train"
    test: str = "val"
    validation: str = ""
    held_out: float = 0.0
    also: tuple[str, ...] = ()
    parts: float = 0.0

    def __post_init__(self) -> None:
        _check(self, "parts")
        if not 0 <= self.held_out < 1 or (self.held_out and self.validation):
            raise ValueError(f"{self.held_out=} must be in [0, 1), and 0 beside the split {self.validation=}")

    def read(self) -> Manifest:
        """The manifest, which has the validation and test examples. Raises ManifestError."""
        return self._read(self.path)

    def read_others(self) -> list[Manifest]:
        """The further manifests that only train. Raises ManifestError."""
        return [self._read(path) for path in self.also]

    def _read(self, path: str) -> Manifest:
        return read_parts(path, self.parts, self.test) if self.parts else read_manifest(path)


@dataclass(frozen=True, kw_only=True)
class Length:
    """A number of updates, or of passes over a task's data; ``Length()`` is none at all."""

    epochs: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        _check(self, "epochs", "steps")
        if self.epochs > 0 and self.steps > 0:
            raise ValueError(f"give either epochs or steps, and set the other to 0: {self}")

    @classmethod
    def parse(cls, text: str) -> Length:
        """The length that "30 epochs" or "5000 steps" says."""
        match text.split():
            case [number, "epoch" | "epochs"]:
                return cls(epochs=float(number))
            case [number, "step" | "steps"]:
                return cls(steps=int(number))
            case _:
                raise ValueError(f"{text!r} is no length; write '30 epochs' or '5000 steps'")

    def resolve(self, examples: int, batch_size: int) -> int:
        """Updates: epochs * floor(examples / batch_size), as the released code counts them; one at least, if any."""
        if not self.epochs:
            return self.steps
        return max(1, int(self.epochs * max(1, examples // batch_size)))


@dataclass(frozen=True, kw_only=True)
class Task:
    """A source of examples, an objective, and the hyper-parameters of training on it.

    ``batch_size`` is global: all ranks and micro-batches together. ``warmup`` is part of ``length``. ``learning_rate``
    is the highest one. ``length`` is that of the task alone: the schedule says how many updates it has beside others.
    A task whose length is zero does not train: it is scored beside those that do, by the head that an ``Init`` brings.
    ``stochastic_depth`` is the rate of the last block while this task trains (ViViT Eq. 10). ``may_miss``: examples
    that lack some of the inputs, such as a video without captions, train with the others; else they count as
    unreadable. The test scores them wherever the model can do without.
    """

    source: Source
    objective: Objective = Classification()
    inputs: tuple[str, ...] = ("video",)
    augment: Augmentation = Augmentation()
    batch_size: int = 64
    length: Length = Length(epochs=30.0)
    warmup: Length = Length(epochs=2.5)
    learning_rate: float = 0.1
    stochastic_depth: float = 0.0
    views: Views = Views(clips=4, crops=3)
    may_miss: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate:g} must be above 0, and finite")
        _check(self, "batch_size", least=1)
        _check(self, "stochastic_depth", below=1)

    @property
    def trains(self) -> bool:
        return self.length != Length()


Decays = Literal["all", "weights"]
"""What weight decay applies to: all parameters, as in the papers' recipes, or the matrices of linear layers and
convolutions alone: not biases, norms, class and other tokens, and positions."""


@dataclass(frozen=True, kw_only=True)
class SGD:
    """m = momentum * m + g; p -= lr * m, as the released ViViT, MTV, MBT and PolyViT code.

    ``rates``, of every optimizer: factors of the learning rate by pattern of the parameters' names, such as
    ``{"heads.*": 10.0}``; where several match, the last one counts.
    """

    momentum: float = 0.9
    weight_decay: float = 0.0
    decay: Decays = "all"
    rates: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        _check(self, "momentum", below=1)
        _check(self, "weight_decay")
        _check_rates(self.rates)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """``keras``: ``eps`` is added before the bias of the second moment is corrected, as Keras does, and not after, as
    the paper of Adam and PyTorch do; the first updates are then smaller.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    keras: bool = False
    rates: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        _check(self, "eps")
        _check_betas(self.betas)
        _check_rates(self.rates)


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """``layer_decay``: each layer of a transformer learns at so many times the rate of the one after it, from the
    tokenizer up; the final norm, the heads and what no image model has learn at the whole rate. 1: all do.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.05
    decay: Decays = "all"
    layer_decay: float = 1.0
    rates: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        _check(self, "eps", "weight_decay")
        _check_betas(self.betas)
        _check_rates(self.rates)
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"{self.layer_decay=} must be above 0, and at most 1")


Optimizer = SGD | Adam | AdamW


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train, apart from what: nothing here changes which examples are seen.

    ``micro_batches`` splits a rank's part of a minibatch to fit memory. ``clip_norm`` bounds the global norm of the
    gradient; 0 does not. ``decay_to``: the share of the highest learning rate that is left at the end. ``ema`` is the
    decay of a moving average of the weights, which is then what is evaluated and exported; 0 keeps none. ``parallel``
    says how several ranks share the work. ``compile`` and ``activation_checkpointing`` apply to every transformer
    block. ``cache_gib``: memory for decoded videos, and as much for sounds, shared out to the workers of a rank.
    ``probe_first``: before the first update, linear heads are set by logistic regression on the features of the encoder
    as it starts (:func:`~tubelet.training.probing.probe_heads`); where the training validates, it does so then, too.
    ``validate_every``: updates between evaluations on the tasks' validation examples, which choose the weights that are
    evaluated and exported; 0 takes the last ones. ``patience``: so many validations without a new best end the
    training; 0 never does.
    ``evaluate_every``: updates between evaluations on the test examples; 0 evaluates at the end alone.
    ``replace_budget``: the share of a
    task's training examples that may be unreadable before the run stops.
    """

    micro_batches: int = 1
    clip_norm: float = 1.0
    decay: Decay = "cosine"
    decay_to: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    ema: float = 0.0
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    activation_checkpointing: bool = False
    workers: int = 2
    cache_gib: float = 0.0
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    probe_first: bool = False
    validate_every: int = 0
    patience: int = 0
    evaluate_every: int = 0
    replace_budget: float = 0.01

    def __post_init__(self) -> None:
        _check(self, "micro_batches", "log_every", "checkpoint_every", "keep_checkpoints", least=1)
        _check(self, "clip_norm", "workers", "cache_gib", "evaluate_every", "validate_every", "patience")
        if not 0 <= self.decay_to <= 1:
            raise ValueError(f"{self.decay_to=} is a share of the highest learning rate: 0 to 1")
        if not 0 <= self.ema < 1 or not 0 <= self.replace_budget <= 1:
            raise ValueError(f"{self.ema=} must be in [0, 1), {self.replace_budget=} in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides a training run.

    ``trainable``: patterns over parameter names (``encoder.*``, ``heads.motion.*``); what none matches stays frozen.
    ``learning_rates``: those of its single task to choose from, by the examples that its source holds out, before it
    trains on all of them (:func:`~tubelet.recipes.search.with_chosen_rate`); none: the task's own is taken.
    ``baseline``: whether simple classifiers are fitted on the same examples, to compare with.
    ``chosen``: parameters of the recipe that were measured on the machine where the training began, by name; the same
    command goes on with them.
    """

    model: ModelConfig
    tasks: dict[str, Task]
    schedule: Schedule = Weighted()
    optimizer: Optimizer = SGD()
    training: Training = Training()
    init: tuple[Init, ...] = ()
    trainable: tuple[str, ...] = ("*",)
    learning_rates: tuple[float, ...] = ()
    seed: int = 0
    notes: str = ""
    baseline: bool = False
    chosen: dict[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks must have at least one task")
        scored = [name for name, task in self.tasks.items() if not task.trains]
        if len(scored) == len(self.tasks) or (scored and not self.init):
            raise ValueError(
                f"tasks.{scored[0]}.length must be above zero, such as Length(epochs=30) or Length(steps=10_000): a "
                "task without updates stands beside others that train, and its head comes from init"
            )
        if self.learning_rates and (len(self.tasks) > 1 or not all(0 < r < math.inf for r in self.learning_rates)):
            raise ValueError(f"{self.learning_rates=} must be above 0, finite, and of a single task")
        trained = [name for name in self.tasks if name not in scored]
        if isinstance(self.schedule, TaskByTask):
            self.schedule.plan(dict.fromkeys(trained, 0), self.seed)
        heads = nn.ModuleDict()
        for name in self.tasks:
            if not name or "." in name or hasattr(heads, name):
                raise ValueError(f"no task can be called {name!r}: torch gives its head no such name; rename the task")
