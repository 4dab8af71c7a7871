"""Any folder of class folders, or a manifest: a model that a small machine trains, chosen by looking at the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import median
from typing import Annotated

from typing_extensions import Doc

from tubelet.configs import ConfigError
from tubelet.data.augment import Augmentation
from tubelet.data.manifest import Manifest, Record, read_manifest
from tubelet.data.views import Views
from tubelet.media.errors import MediaError
from tubelet.media.info import probe
from tubelet.models.model import ModelConfig
from tubelet.models.vit import ViTConfig
from tubelet.models.vivit import ViViTConfig
from tubelet.nn.blocks import Backbone
from tubelet.specs import ImageSpec, VideoSpec
from tubelet.training.experiment import AdamW, Experiment, Length, Source, Task, Training
from tubelet.training.objectives import Classification
from tubelet.weights.folder import load_model
from tubelet.weights.initialise import Init

_LOOKED_AT = 40  # files probed to learn how long the clips are
_FRAMES, _LONGEST = 16, 3.0  # a clip: frames, and seconds at most
_TUBELET = (2, 16, 16)
# training examples below which a model from scratch has these layers and this width
_SIZES: dict[float, tuple[int, int]] = {2_000: (4, 192), 20_000: (12, 192), float("inf"): (12, 384)}
_EXAMPLES = 20_000  # seen in training at least, or half as many where weights to start from are given


def folder(
    data: Annotated[str, Doc("folder of class folders, or a manifest (CSV, JSONL, Parquet)")],
    init: Annotated[str, Doc("fine-tune these weights: a run, a model folder, an image ViT such as hf:org/name")] = "",
    epochs: Annotated[float, Doc("passes over the data; chosen by its size if 0")] = 0.0,
) -> Experiment:
    """Train on a folder of class folders (DIR/CLASS/clip.mp4), or a manifest.

    tubelet train folder DIR --out runs/mine

    Subfolders train and val (or test) above the class folders are respected; without them a fifth of the files, chosen
    by their names' hash, is kept for testing. Pictures instead of videos train an image ViT. The recipe looks at the
    data, chooses a model that a small machine can train, and says why; --print-config shows all of it. Training mirrors
    examples at random: --tasks.folder.augment.flip 0 where left and right matter. Expected metric, hardware and time:
    unknown, for they depend on the data.
    """
    manifest = read_manifest(data)
    look = _look(manifest)
    model, sizes = (_from_weights(init, look)) if init else _from_scratch(look)
    batch = max(2, min(16, len(look.train) // 4))
    length = Length(epochs=epochs or _epochs(len(look.train), started=bool(init)))
    task = Task(
        source=Source(path=data, train="train", test=look.test),
        objective=Classification(label_sets=manifest.label_sets, smoothing=0.1),
        inputs=tuple(model.inputs),
        augment=Augmentation(),
        batch_size=batch,
        length=length,
        warmup=Length(epochs=length.epochs / 10),
        learning_rate=1e-4 if init else 5e-4,
        views=Views(clips=min(4, max(1, ceil(look.seconds / _LONGEST)))),
    )
    return Experiment(
        model=model,
        tasks={"folder": task},
        optimizer=AdamW(),
        training=Training(checkpoint_every=200, cache_gib=0.5),
        init=(Init(source=init),) if init else (),
        notes=f"{look} {sizes} Epochs: {length.epochs:g}, in minibatches of {batch}.",
    )


@dataclass(frozen=True)
class _Look:
    """What the data are: ``seconds`` is the middle length of those files that were looked at; 0 for pictures."""

    train: Sequence[Record]
    held_out: Sequence[Record]
    test: str
    classes: int
    video: bool
    seconds: float

    def __str__(self) -> str:
        kind = f"clips, {self.seconds:.1f} s long in the middle," if self.video else "pictures"
        return f"{len(self.train):,} training and {len(self.held_out):,} test {kind} of {self.classes:,} classes."


def _look(manifest: Manifest) -> _Look:
    test = next((name for name in ("val", "test") if name in manifest.splits), "val")
    train, held_out = manifest.split("train"), manifest.split(test)
    classes = sum(len(manifest.classes(label_set, "train")) for label_set in manifest.label_sets)
    if classes < 2:
        raise ConfigError(f"{manifest.path}: needs at least two classes, and has {classes}")
    readable = [record for record in train if not record.error]
    infos = list(_probed(readable[:: max(1, len(readable) // _LOOKED_AT)]))
    if not infos:
        raise ConfigError(
            f"{manifest.path}: none of the training files looked at can be read; see `tubelet data check`"
        )
    video = sum(seconds > 0 for seconds in infos) * 2 > len(infos)
    return _Look(train, held_out, test, classes, video, median(infos) if video else 0.0)


def _probed(records: Sequence[Record]) -> Iterator[float]:
    """Seconds of each record that can be read; 0 for a picture."""
    for record in records:
        try:
            duration = record.duration or probe(record.path).duration
        except MediaError:
            continue
        yield (duration if record.end is None else min(record.end, duration)) - record.start


def _from_scratch(look: _Look) -> tuple[ModelConfig, str]:
    depth, width = next(size for most, size in _SIZES.items() if len(look.train) < most)
    backbone = Backbone(width=width, depth=depth, heads=width // 64, mlp=4 * width)
    said = f"From scratch, so a small model of {depth} layers and width {width} (init= starts from weights instead)."
    if not look.video:
        return ViTConfig(backbone=backbone, patch=_TUBELET[1:], image=ImageSpec(size=(112, 112), short_side=128)), said
    video, seen = _clips(VideoSpec(size=(112, 112), short_side=128), look)
    config = ViViTConfig(
        backbone=backbone, tubelet=_TUBELET, video=video, attends="factorized_encoder", temporal_depth=2
    )
    return config, f"{said} {seen}"


def _clips(spec: VideoSpec, look: _Look) -> tuple[VideoSpec, str]:
    """Clips as long as the data's, up to a few seconds, at the frame rate that this takes."""
    seconds = min(look.seconds, _LONGEST)
    video = replace(spec, frames=_FRAMES, stride=1, fps=round(_FRAMES / seconds, 2))
    return video, f"It sees {_FRAMES} frames over {seconds:.1f} s, {video.size[0]} pixels square."


def _from_weights(init: str, look: _Look) -> tuple[ModelConfig, str]:
    """The model that the weights are, or for an image ViT and videos Model 2 on top of it."""
    config = load_model(init).config
    if look.video and isinstance(config, ViTConfig):
        image = config.image
        spec = VideoSpec(size=image.size, short_side=image.short_side, mean=image.mean, std=image.std)
        video, seen = _clips(spec, look)
        patch = (2, *config.patch)
        config = ViViTConfig(backbone=config.backbone, tubelet=patch, video=video, attends="factorized_encoder")
        return config, f"Fine-tunes {init}, an image ViT, as ViViT's Model 2. {seen}"
    if look.video != ("video" in config.inputs):
        wants = " and ".join(config.inputs)
        raise ConfigError(
            f"init: {init} is a model of {wants}, and the data are {'videos' if look.video else 'pictures'}"
        )
    return config, f"Fine-tunes {init} as it is."


def _epochs(examples: int, *, started: bool) -> float:
    wanted = (_EXAMPLES // 2 if started else _EXAMPLES) / examples
    return round(min(max(wanted, 5 if started else 15), 100))
