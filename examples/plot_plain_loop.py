"""
A plain PyTorch loop on arrays in memory
========================================

No recipe, no files, no manifest: a ViViT by name, clips as NumPy arrays, and a loop that you write yourself. The clips
are generated here (synthetic: squares that move in one of four ways), so the accuracy says nothing about real video.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

import tubelet
from tubelet.models import ViViTConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.specs import VideoSpec

# %%
# Clips as they come from a camera or a simulator: uint8, frames first, channels last.

DIRECTIONS = {"down": (1, 0), "left": (0, -1), "right": (0, 1), "up": (-1, 0)}
random = np.random.default_rng(0)


def clip_of(direction: str, frames: int = 8) -> np.ndarray:
    """(frames, 32, 32, 3): a square of any color, from any place."""
    square = np.zeros((32, 32, 3), np.uint8)
    square[:10, :10] = random.integers(100, 256, 3)
    y, x = random.integers(0, 32, 2)
    dy, dx = DIRECTIONS[direction]
    return np.stack([np.roll(square, (y + 2 * dy * t, x + 2 * dx * t), (0, 1)) for t in range(frames)])


names = list(DIRECTIONS)
labels = np.arange(320) % len(names)
clips = np.stack([clip_of(names[label]) for label in labels])
train, test = slice(0, 240), slice(240, 320)

# %%
# A model: by a name such as ``"vivit-b/16x2"``, with ``weights="hf:..."`` to start from an image model; or, as here, by
# a config of one's own. ``start="mimetic"`` lets a small model learn from little data.

torch.manual_seed(0)
config = ViViTConfig(
    backbone=TransformerConfig(width=64, depth=2, heads=4, mlp=128, start="mimetic"),
    tubelet=(2, 8, 8),
    video=VideoSpec(frames=8, stride=1, size=(32, 32), short_side=32),
    pool="mean",
)
model = tubelet.create_model(config, num_classes=names)

# %%
# ``preprocess`` makes normalized tensors of arrays; the rest is PyTorch.

videos, targets = model.preprocess(clips), torch.from_numpy(labels)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
losses = []
for _ in range(12):
    for rows in torch.randperm(240).split(16):
        loss = F.cross_entropy(model(videos[train][rows]), targets[train][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

model.eval()
with torch.no_grad():
    accuracy = (model(videos[test]).argmax(1) == targets[test]).float().mean().item()
print(f"{accuracy:.0%} of {test.stop - test.start} test clips (synthetic)")

figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(losses)
axes.set(xlabel="update", ylabel="loss", title=f"{accuracy:.0%} of the test clips are right")
figure.tight_layout()

# %%
# Where the model looked: attention rollout over the tokens of one clip, drawn over its frames.

with tubelet.capture_attention(model.encoder) as maps, torch.no_grad():
    model(videos[test][:1])
shares = model.config.rollout(maps, "video")[0]
figure, axes = plt.subplots(2, shares.shape[0], figsize=(6, 3))
for t in range(shares.shape[0]):
    axes[0, t].imshow(clips[test][0][2 * t])
    axes[1, t].imshow(shares[t], vmin=0, vmax=shares.max())
for axis in axes.flat:
    axis.axis("off")
figure.tight_layout()

# %%
# A prediction is a value with the classes and their probabilities. ``model.save("mine")`` keeps all of it in a folder
# that ``tubelet.load`` and the command ``tubelet predict`` read.

model.predict(clips[test][0])
