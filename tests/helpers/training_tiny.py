"""A tiny ViViT, a tiny PolyViT and made-up minibatches, for tests of the loop without media."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from tubelet.data.batch import Batch
from tubelet.media.errors import MediaError
from tubelet.models.polyvit import Modality, PolyViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import ImageSpec, SpectrogramSpec, VideoSpec
from tubelet.training.average import MovingAverage
from tubelet.training.checkpoints import Checkpoints
from tubelet.training.classification import Classification
from tubelet.training.experiment import SGD, Experiment, Length, Source, Task, Training
from tubelet.training.loop import Hook, Loop, Update
from tubelet.training.module import TrainingModule
from tubelet.training.objectives import Mixup
from tubelet.training.optimizers import build_optimizer
from tubelet.training.parallel import parallelize
from tubelet.training.ranks import Ranks
from tubelet.training.run import initial_model

VIDEO = VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16)
CLASSES = ("a", "b", "c")
MODALITIES = {  # with 5, 9 and 7 tokens
    "image": Modality(spec=ImageSpec(size=(16, 16), short_side=16), patch=(1, 8, 8)),
    "video": Modality(spec=VIDEO, patch=(2, 8, 8)),
    "audio": Modality(spec=SpectrogramSpec(frames=24, bins=16), patch=(1, 8, 8)),
}
POLYVIT_RATES = {"image": 0.0, "video": 0.1, "audio": 0.3}  # stochastic depth, by task


def experiment(*, random_layers: bool = True, tasks: Sequence[str] = ("motion",), **changes: object) -> Experiment:
    """Dropout, stochastic depth and mixup all on, or all off."""
    drop = 0.2 if random_layers else 0.0
    backbone = TransformerConfig(width=16, depth=2, heads=2, mlp=32, dropout=drop, attention_dropout=drop)
    objective = Classification(classes=CLASSES, head_init="lecun", mixup=Mixup(0.4 if random_layers else 0.0))
    length = Length(steps=8)
    task = Task(source=Source(path=""), objective=objective, batch_size=6, stochastic_depth=drop, length=length)
    made = Experiment(
        model=ViViTConfig(backbone=backbone, tubelet=(2, 8, 8), video=VIDEO),
        tasks=dict.fromkeys(tasks, task),
        optimizer=SGD(),
        training=Training(workers=0, log_every=1),
    )
    return replace(made, **changes)


def minibatch(task: str, number: int, replaced: Sequence[MediaError] = ()) -> Batch:
    draw = torch.Generator().manual_seed(number)
    video = torch.randint(0, 256, (6, 4, 3, 16, 16), dtype=torch.uint8, generator=draw)
    targets = torch.randint(0, len(CLASSES), (6,), generator=draw)
    return Batch(task, {"video": video}, targets, [f"clip-{number}-{i}" for i in range(6)], list(replaced))


def polyvit_experiment(*, random_layers: bool = True, adaptor_depth: int = 1, **changes: object) -> Experiment:
    """A task for each of three modalities, called after it, each with its own loss, rates and learning rate."""
    backbone = TransformerConfig(width=16, depth=3, heads=2, mlp=32, dropout=0.1 if random_layers else 0.0)
    one = Classification(classes=CLASSES, head_init="lecun")
    objectives = {
        "image": replace(one, loss="sigmoid"),
        "video": replace(one, label_sets=("verb", "noun"), classes={"verb": CLASSES[:2], "noun": CLASSES}),
        "audio": replace(one, mixup=Mixup(0.3 if random_layers else 0.0)),
    }
    tasks = {
        name: Task(
            source=Source(path=""),
            objective=objectives[name],
            inputs=(name,),
            batch_size=6,
            length=Length(steps=length),
            warmup=Length(),
            learning_rate=rate,
            stochastic_depth=POLYVIT_RATES[name] if random_layers else 0.0,
        )
        for name, length, rate in (("image", 3, 0.03), ("video", 4, 0.1), ("audio", 5, 0.05))
    }
    made = Experiment(
        model=PolyViTConfig(backbone=backbone, modalities=MODALITIES, adaptor_depth=adaptor_depth),
        tasks=tasks,
        training=Training(workers=0, log_every=1),
    )
    return replace(made, **changes)


def polyvit_batch(task: str, number: int, size: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(number)
    if task == "audio":
        x = torch.randn(size, 24, 16, generator=draw)
    else:
        shape = (3, 16, 16) if task == "image" else (4, 3, 16, 16)
        x = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=draw)
    target = torch.randint(0, 2, (size,), generator=draw)
    targets = {"verb": target, "noun": target + 1} if task == "video" else target
    return Batch(task, {task: x}, targets, [f"{task}-{number}-{i}" for i in range(size)])


@dataclass
class Session:
    """What a run is made of, without its files: the parts of one process, and the loss of every update."""

    experiment: Experiment
    folder: Path | None = None
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        training = self.experiment.training
        self.ranks = Ranks(torch.device("cpu"))
        self.model = initial_model(self.experiment)
        self.module = parallelize(TrainingModule(self.model, self.experiment.tasks, self.ranks), training, self.ranks)
        self.optimizer = build_optimizer(self.experiment.optimizer, self.model.parameters())
        self.average = MovingAverage(self.model, training.ema) if training.ema else None
        others = {"average": self.average.average} if self.average else {}
        self.checkpoints = Checkpoints(self.folder or Path(), self.model, self.optimizer, others, self.ranks)

    def batches(self, start: int) -> Iterator[Batch]:
        names = list(self.experiment.tasks)
        while True:
            yield minibatch(names[start % len(names)], start)
            start += 1

    def run(self, start: int, end: int, hooks: Sequence[Hook] = (), tasks_per_update: int = 1) -> None:
        training = self.experiment.training
        loop = Loop(
            module=self.module,
            optimizer=self.optimizer,
            ranks=self.ranks,
            seed=self.experiment.seed,
            learning_rate=lambda step, _: 0.05 * (1 - step / 20),
            tasks_per_update=tasks_per_update,
            micro_batches=training.micro_batches,
            clip_norm=training.clip_norm,
            precision=torch.bfloat16 if training.precision == "bfloat16" else torch.float32,
        )
        averages = [self.average] if self.average else []
        loop.run(self.batches(start * tasks_per_update), start, end, [*averages, self._note, *hooks])

    def _note(self, update: Update) -> None:
        self.losses.append(float(sum(update.losses)))

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
