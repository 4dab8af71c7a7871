"""
Talking Digits
==============

The built-in data: handwritten digits that move, and voices that say them. It is made here, in a few seconds, as
ordinary mp4, wav and png files with ordinary manifests. :doc:`/data` says what of it is real.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from tubelet.data.manifest import read_manifest
from tubelet.data.talking_digits import make
from tubelet.media.video import open_video

folder = Path(tempfile.mkdtemp()) / "talking-digits"
manifests = make(folder, train=32, val=8)
for task, manifest in manifests.items():
    records = read_manifest(manifest).records
    print(f"{task:8} {len(records):5} files, for example {records[0].labels['label'][0]!r}: {records[0].text}")

# %%
# One frame says nothing about the direction: the field has no edges, and the digit may start anywhere on it. Several
# frames do.

clips = read_manifest(manifests["motion"]).split("val")[:4]
times = np.arange(0, 2, 0.24)
figure, axes = plt.subplots(len(clips), len(times), figsize=(8, 4.4))
for record, row in zip(clips, axes, strict=True):
    with open_video(record.path) as video:
        frames = video.frames_at(times.tolist()).frames
    for frame, axis in zip(frames, row, strict=True):
        axis.imshow(frame.permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
    row[0].set_title(record.text, loc="left", fontsize=9)
figure.tight_layout()

# %%
# The same files carry a voice that says the digit; where in the two seconds it does so is random.

figure, axes = plt.subplots(len(clips), 1, figsize=(8, 5), sharex=True, sharey=True)
for record, axis in zip(clips, axes, strict=True):
    with open_video(record.path) as video:
        sound = video.audio(0, 2, rate=16_000)
    hiss = 1e-6 * np.random.default_rng(0).standard_normal(len(sound))  # silence has no logarithm
    axis.specgram(sound + hiss, NFFT=512, Fs=16_000, noverlap=256)
    axis.set(ylim=(0, 5000), ylabel="Hz")
    axis.set_title(record.text, loc="left", fontsize=9)
axes[-1].set_xlabel("seconds")
figure.tight_layout()
