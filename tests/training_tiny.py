"""A tiny ViViT and made-up minibatches, for tests of the loop without media."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from tubelet.data.batch import Batch
from tubelet.media.errors import MediaError
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import Backbone
from tubelet.specs import VideoSpec
from tubelet.training.average import MovingAverage
from tubelet.training.checkpoints import Checkpoints
from tubelet.training.experiment import SGD, Experiment, Length, Source, Task, Training
from tubelet.training.learner import Learner
from tubelet.training.loop import Hook, Loop, Update
from tubelet.training.objectives import Classification, Mixup
from tubelet.training.optimizers import build_optimizer
from tubelet.training.parallel import Ranks, parallelise
from tubelet.training.run import build_model

VIDEO = VideoSpec(frames=4, stride=1, size=(16, 16), short_side=16)
CLASSES = ("a", "b", "c")


def experiment(*, random_layers: bool = True, tasks: Sequence[str] = ("motion",), **changes: object) -> Experiment:
    """Dropout, stochastic depth and mixup all on, or all off."""
    drop = 0.2 if random_layers else 0.0
    backbone = Backbone(width=16, depth=2, heads=2, mlp=32, dropout=drop, attention_dropout=drop)
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


@dataclass
class Session:
    """What a run is made of, without its files: the parts of one process, and the loss of every update."""

    experiment: Experiment
    folder: Path | None = None
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        training = self.experiment.training
        self.ranks = Ranks(torch.device("cpu"))
        self.model = build_model(self.experiment)
        self.module = parallelise(Learner(self.model, self.experiment.tasks), training, self.ranks)
        self.optimizer = build_optimizer(self.experiment.optimizer, self.model.parameters())
        self.average = MovingAverage(self.model, training.ema) if training.ema else None
        self.checkpoints = Checkpoints(self.folder or Path(), self.model, self.optimizer, self.average, self.ranks)

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
        self.losses.append(float(update.loss))

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
