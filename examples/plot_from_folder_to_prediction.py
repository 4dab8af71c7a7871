"""
From a folder of clips to a prediction
======================================

Train, evaluate, predict and look inside, from Python, in under a minute on a laptop. The clips are generated here:
squares that move in one of four ways. A folder of your own takes their place.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import tubelet
from tubelet.data.augment import Augmentation
from tubelet.data.views import Views
from tubelet.evaluation.run import evaluate_run, evaluator
from tubelet.media.write import write_video
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import VideoSpec
from tubelet.training.experiment import AdamW, Experiment, Length, Source, Task, Training
from tubelet.training.run import train

# %%
# A folder of class folders, with ``train`` and ``val`` above them, is all that training needs.

folder = Path(tempfile.mkdtemp())
directions = {"down": (1, 0), "left": (0, -1), "right": (0, 1), "up": (-1, 0)}
draw = torch.Generator().manual_seed(0)


def square_moving(direction, frames=12):
    """(frames, 3, 32, 32): a square of any color, from any place, over the edges of the picture and back in."""
    square = torch.zeros(3, 32, 32)
    square[:, :10, :10] = torch.randint(100, 256, (3, 1, 1), generator=draw)
    y, x = torch.randint(0, 32, (2,), generator=draw).tolist()
    dy, dx = directions[direction]
    moved = [square.roll((y + 2 * dy * t, x + 2 * dx * t), dims=(1, 2)) for t in range(frames)]
    return torch.stack(moved).to(torch.uint8)


for split, clips in {"train": 40, "val": 10}.items():
    for direction in directions:
        (folder / "clips" / split / direction).mkdir(parents=True)
        for number in range(clips):
            path = folder / "clips" / split / direction / f"{number}.mp4"
            write_video(path, square_moving(direction), fps=12)

# %%
# An experiment is a value: a model, and tasks with their data, length and rates. This one is a ViViT of two layers.
# ``flip=0``: a mirrored clip would move the other way, and its label would be wrong.

experiment = Experiment(
    model=ViViTConfig(
        backbone=TransformerConfig(width=64, depth=2, heads=4, mlp=128),
        tubelet=(2, 8, 8),
        video=VideoSpec(frames=8, stride=1, size=(32, 32), short_side=32),
    ),
    tasks={
        "direction": Task(
            source=Source(path=str(folder / "clips")),
            augment=Augmentation(flip=0),
            batch_size=16,
            length=Length(steps=200),
            warmup=Length(steps=20),
            learning_rate=2e-3,
            views=Views(clips=2),
        )
    },
    optimizer=AdamW(),
    training=Training(workers=0, cache_gib=0.5),
)
run = folder / "run"
result = train(experiment, run, evaluate=evaluator(run, progress=False), progress=False)
print(result.results["tasks"]["direction"]["metrics"])

# %%
# The run's folder holds everything: its configuration, log, checkpoints, results and the model.
# It can be evaluated again, with other views or on other data; a number never comes without its views and coverage.

for name, task in evaluate_run(run, views=Views(clips=1), workers=0, progress=False).items():
    print(f"{name}: top-1 {task.metrics['top1']:.1%}, {task.views} views, {task.coverage} scored")

# %%
# Two lines use the model on any file.

model = tubelet.load(run)
for label, probability in model.predict(folder / "clips" / "val" / "up" / "0.mp4").labels:
    print(f"{label:6} {probability:.1%}")

# %%
# A longer video gets a timeline: this one moves right, then down, then left.

film = folder / "film.mp4"
write_video(film, torch.cat([square_moving(direction, frames=24) for direction in ("right", "down", "left")]), fps=12)
for segment in model.timeline(film):
    print(f"{segment.start:4.1f} to {segment.end:4.1f} s: {segment.label} ({segment.probability:.0%})")

# %%
# Attention rollout shows where in the clip the answer comes from; ``explanation.write("overlay.mp4")`` writes it as a
# video.

explanation = model.explain(folder / "clips" / "val" / "up" / "0.mp4")
figure, axes = plt.subplots(2, 4, figsize=(8, 4.2))
for t, (above, below) in enumerate(axes.T):
    above.imshow(explanation.frames[2 * t].permute(1, 2, 0))
    below.imshow(explanation.overlay()[2 * t].permute(1, 2, 0))
    for axis in (above, below):
        axis.set(xticks=[], yticks=[])
figure.tight_layout()
