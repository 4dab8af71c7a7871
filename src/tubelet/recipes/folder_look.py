"""What the recipe ``folder`` finds by looking at the data: splits, classes, kinds of files, and how long they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from tubelet.configs import ConfigError
from tubelet.data.kinds import Kind, kind_of
from tubelet.data.manifest import Manifest, Record, read_manifest
from tubelet.media.audio import read_audio
from tubelet.media.errors import MediaError
from tubelet.media.info import probe
from tubelet.media.spectrogram import log_mel
from tubelet.specs import SpectrogramSpec

_LOOKED_AT = 40  # files of a folder that are probed
_WORDS: dict[Kind, str] = {"image": "pictures", "video": "clips", "audio": "sounds"}


@dataclass(frozen=True, kw_only=True)
class Look:
    """A folder or manifest. ``seconds``: the lengths of those training files that were looked at; none of pictures.

    ``several``: whether an example may have several labels. ``test``: the name of the test split.
    """

    path: str
    kind: Kind
    train: Sequence[Record]
    held_out: Sequence[Record]
    test: str
    label_sets: tuple[str, ...]
    several: bool
    classes: int
    looked_at: Sequence[Record]
    seconds: tuple[float, ...]

    def __str__(self) -> str:
        what = _WORDS[self.kind]
        if self.seconds:
            what += f", {median(self.seconds):.1f} s long in the middle,"
        return f"{len(self.train):,} training and {len(self.held_out):,} test {what} of {self.classes:,} classes."


def look(path: str) -> Look:
    """Raises ManifestError or ConfigError where nothing can be learned from the data."""
    manifest = read_manifest(path)
    test = next((name for name in ("val", "test") if name in manifest.splits), "val")
    train, held_out = manifest.split("train"), manifest.split(test)
    classes = sum(len(manifest.classes(label_set, "train")) for label_set in manifest.label_sets)
    if classes < 2:
        raise ConfigError(f"{manifest.path}: needs at least two classes, and has {classes}")
    kind = _kind(manifest)
    looked_at, seconds = _lengths(manifest.path, [record for record in train if not record.error])
    return Look(
        path=path,
        kind=kind,
        train=train,
        held_out=held_out,
        test=test,
        label_sets=manifest.label_sets,
        several=any(len(labels) != 1 for record in train for labels in record.labels.values()),
        classes=classes,
        looked_at=looked_at,
        seconds=() if kind == "image" else seconds,
    )


def _kind(manifest: Manifest) -> Kind:
    try:
        return kind_of(manifest.records)
    except ValueError as error:
        raise ConfigError(f"{manifest.path}: {error}") from None


def _lengths(path: str, records: Sequence[Record]) -> tuple[Sequence[Record], tuple[float, ...]]:
    found = list(_probed(records[:: max(1, len(records) // _LOOKED_AT)]))
    if not found:
        raise ConfigError(f"{path}: none of the training files looked at can be read; see `tubelet data check`")
    return [record for record, _ in found], tuple(seconds for _, seconds in found)


def _probed(records: Sequence[Record]) -> Iterator[tuple[Record, float]]:
    """Each record that can be read, and its seconds; 0 of a picture."""
    for record in records:
        try:
            duration = record.duration or probe(record.path).duration
        except MediaError:
            continue
        yield record, (duration if record.end is None else min(record.end, duration)) - record.start


def three_in_four(seconds: Sequence[float]) -> float:
    """The length that three files in four do not exceed."""
    return quantiles(seconds, n=4, method="inclusive")[2] if len(seconds) > 1 else seconds[0]


def log_mel_scale(looks: Sequence[Look], spec: SpectrogramSpec) -> tuple[float, float]:
    """Mean and standard deviation of the log-mel energies of the files looked at, for :class:`SpectrogramSpec`."""
    energies = [energy for look in looks for energy in _energies(look, spec)]
    if not energies:
        paths = ", ".join(look.path for look in looks)
        raise ConfigError(f"{paths}: the sound of none of the training files looked at can be read")
    values = torch.cat(energies).double()
    return round(values.mean().item(), 2), max(0.01, round(values.std().item(), 2))


def _energies(look: Look, spec: SpectrogramSpec) -> Iterator[Tensor]:
    shortest = spec.window_samples / spec.rate
    for record, seconds in zip(look.looked_at, look.seconds, strict=True):
        if seconds < shortest:
            continue
        try:
            sound = read_audio(record.path, record.start, record.start + min(seconds, spec.seconds), spec.rate)
        except MediaError:
            continue
        yield log_mel(sound, spec).flatten()


def task_names(paths: Sequence[str]) -> list[str]:
    """A name for each folder or manifest, after it; "folder" for a single one.

    Raises ConfigError where two would have the same.
    """
    if len(paths) == 1:
        return ["folder"]
    names: dict[str, str] = {}
    for path in paths:
        name = _name(Path(os.path.abspath(path)))
        if name in names:
            raise ConfigError(
                f"{names[name]} and {path} would both be the task {name!r}; rename one of them"
                if names[name] != path
                else f"{path} is given twice"
            )
        names[name] = path
    return list(names)


def _name(path: Path) -> str:
    """Letters, digits and underscores, so that a flag can name it; what modules of PyTorch are called gets one more."""
    stem = path.parent.name if path.suffix and path.stem in ("manifest", "index") else path.stem
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII) or "folder"
    return f"{name}_" if hasattr(nn.ModuleDict, name) or name == "training" else name
