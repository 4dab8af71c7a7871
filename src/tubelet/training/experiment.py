"""An experiment as a value: frozen dataclasses all the way down, saved beside the run and read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.models.model import ModelConfig
from tubelet.training.objectives import Classification


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a task's examples come from: a manifest file (CSV, JSONL, Parquet) or a folder of class folders."""

    path: str
    train: str = "train"
    test: str = "val"


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a task trains: in passes over its data, or in updates; exactly one of the two is given."""

    epochs: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        if (self.epochs > 0) == (self.steps > 0):
            raise ValueError(f"give either epochs or steps, above zero: {self}")

    def resolve(self, examples: int, batch_size: int) -> int:
        """Updates: epochs * floor(examples / batch_size), as the released code counts them; at least one."""
        return self.steps or max(1, int(self.epochs * max(1, examples // batch_size)))


@dataclass(frozen=True, kw_only=True)
class Task:
    """A source of examples, an objective, and the hyper-parameters of training on it."""

    source: Source
    objective: Classification = Classification()
    inputs: tuple[str, ...] = ("video",)
    augment: Augmentation = Augmentation()
    batch_size: int = 64
    length: Length = Length(epochs=30)
    warmup: Length = Length(epochs=2.5)
    learning_rate: float = 0.1
    stochastic_depth: float = 0.0
    views: Views = Views(clips=4, crops=3)


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """Every task gets exactly its own number of minibatches, in a random order. With one task: that task's length."""


Schedule = Weighted


@dataclass(frozen=True, kw_only=True)
class SGD:
    """m = momentum * m + g; p -= lr * m, as the released ViViT, MTV, MBT and PolyViT code."""

    momentum: float = 0.9
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Adam:
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class AdamW:
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.05


Optimizer = SGD | Adam | AdamW


@dataclass(frozen=True, kw_only=True)
class Init:
    """Weights to start from: ``source`` is a model folder, ``hf:org/name``, ``timm:NAME.safetensors`` or a file.

    ``into``: the part of the encoder that takes them ("" for the whole). ``kernel``: how a 2D patch kernel becomes a
    tubelet kernel (ViViT Sec. 3.4). ``positions``: how a table of positions changes its length. ``temporal``: what
    Model 3's temporal attention starts from ("residual": the block starts as a residual connection and can learn).
    """

    source: str
    into: str = ""
    kernel: Literal["central", "average", "random"] = "central"
    positions: Literal["tile", "resize", "resize_tile"] = "resize_tile"
    temporal: Literal["residual", "copy", "zero", "fresh"] = "residual"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train, apart from what: nothing here changes which examples are seen."""

    micro_batches: int = 1
    clip_norm: float = 1.0
    decay: Literal["cosine", "linear", "constant"] = "cosine"
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
    evaluate_every: int = 0
    replace_budget: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides a training run."""

    model: ModelConfig
    tasks: dict[str, Task]
    schedule: Schedule = Weighted()
    optimizer: Optimizer = SGD()
    training: Training = Training()
    init: tuple[Init, ...] = ()
    trainable: tuple[str, ...] = ("*",)
    seed: int = 0
    notes: str = field(default="")
