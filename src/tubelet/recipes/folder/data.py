"""The data that the recipe ``folder`` finds: splits, classes, groups, sizes, lengths, color."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from tubelet.configs import ConfigError
from tubelet.data.index import first_taken
from tubelet.data.kinds import Kind, kind_of
from tubelet.data.labels import NumberLabels
from tubelet.data.manifest import Manifest, Record, Records, read_manifest
from tubelet.data.sound import sound_span, spectrograms
from tubelet.data.split import hold_out
from tubelet.media.audio import read_audio
from tubelet.media.errors import MediaError
from tubelet.media.images import read_image
from tubelet.media.info import MediaInfo, probe
from tubelet.specs import SpectrogramSpec

_LOOKED_AT = 120  # training files that are probed
_OPENED = 40  # of them, those whose pixels are looked at
HELD_OUT = 0.1  # of the training examples validate, where no split does
MOST_HELD_OUT = 2_000  # examples: more of them would say little more
_FEWEST_HELD_OUT = 8  # examples that are worth a validation
_WORDS: dict[Kind, tuple[str, str]] = {
    "image": ("picture", "pictures"),
    "video": ("clip", "clips"),
    "audio": ("sound", "sounds"),
}


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """A folder or manifest: its examples by their purpose, and the properties of a sample of its training files.

    ``validation``: the split that validates, or ``held_out``: the share of the training examples that does; ``how``:
    how they were chosen. ``several``: whether an example may have several labels. ``classes``: how many there are;
    0 where labels name none. ``numbers``: the smallest and
    largest of each label set, where labels are numbers to learn; else empty. ``seconds``, ``sizes``: the lengths
    and the (height, width) in pixels of the sampled files ``looked_at``; empty for kinds without them. ``gray``:
    whether all sampled pictures have no color.
    """

    path: str
    kind: Kind
    train: Records
    validating: Records
    testing: Records
    test: str
    validation: str
    held_out: float
    how: str
    label_sets: tuple[str, ...]
    several: bool
    classes: int
    numbers: tuple[tuple[float, float], ...]
    looked_at: Sequence[Record]
    seconds: tuple[float, ...]
    sizes: tuple[tuple[int, int], ...]
    fps: tuple[float, ...]
    gray: bool

    def __str__(self) -> str:
        one, many = _WORDS[self.kind]
        said = (
            f"{len(self.train):,} training, {len(self.validating):,} validation and {len(self.testing):,} test {many}"
            f"{self._labels}"
        )
        if self.seconds:
            low, middle, high = spread(self.seconds)
            said += f"; a typical {one} lasts {_seconds(middle)}"
            if high > 1.25 * low:
                said += f", eight in ten last {_seconds(low)} to {_seconds(high)}"
        if self.sizes:
            heights, widths = zip(*self.sizes, strict=True)
            said += f"; {median(widths):.0f}x{median(heights):.0f} pixels{', gray' if self.gray else ''}"
        return said + "."

    @property
    def _labels(self) -> str:
        ranges = ", ".join(f"{low:g} to {high:g}" for low, high in self.numbers)
        return f" of {self.classes:,} classes" if self.classes else f" labeled with numbers: {ranges}" if ranges else ""

    @property
    def height(self) -> float:
        """The median height in pixels."""
        return median(height for height, _ in self.sizes)

    @property
    def aspect(self) -> float:
        """The median of width / height."""
        return median(width / height for height, width in self.sizes)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The 10th percentile, the median and the 90th percentile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    tenths = quantiles(values, n=10, method="inclusive")
    return tenths[0], tenths[4], tenths[8]


def inspect(path: str, *, by_class: bool = True, numbers: bool = False) -> tuple[DatasetSummary, list[str]]:
    """Read the data, and return their summary and warnings.

    ``by_class``: whether labels name classes. ``numbers``: whether they must be numbers. Raises ManifestError or
    ConfigError where nothing can be learned from the data.
    """
    manifest = read_manifest(path)
    test = next((name for name in ("test", "val") if name in manifest.splits), "test")
    records, testing = manifest.split("train"), manifest.split(test)
    classes = sum(len(manifest.classes(label_set, "train")) for label_set in manifest.label_sets)
    if classes < 2 and by_class:
        raise ConfigError(
            f"{manifest.path}: has {classes} class, and a classifier needs at least two: a folder for each, "
            "such as yes/ and no/, or cats/ and other/"
        )
    kind = _kind(manifest)
    readable = records.readable
    validation = "val" if test == "test" and "val" in manifest.splits else ""
    train, validating, how = readable, readable[:0], ""
    if validation:
        validating, how = manifest.split("val").readable, "the split 'val'"
    else:
        rest, held_out, how = hold_out(readable, HELD_OUT, MOST_HELD_OUT, by_class=by_class)
        train, validating = (rest, held_out) if len(held_out) >= _FEWEST_HELD_OUT else (readable, validating)
    found = list(_probed(train[:: max(1, len(train) // _LOOKED_AT)][: 2 * _LOOKED_AT]))
    if not found:
        raise ConfigError(f"{path}: none of the training files looked at can be read; see `tubelet data check`")
    pictures = [info for _, info, _ in found if info.width]
    seen = DatasetSummary(
        path=path,
        kind=kind,
        train=train,
        validating=validating,
        testing=testing,
        test=test,
        validation=validation if validating else "",
        held_out=min(HELD_OUT, MOST_HELD_OUT / len(readable)) if validating and not validation else 0.0,
        how=how,
        label_sets=manifest.label_sets,
        several=any((records.labels(name).counts > 1).any() for name in manifest.label_sets),
        classes=classes if by_class else 0,
        numbers=_ranges(manifest) if numbers else (),
        looked_at=[record for record, _, _ in found],
        seconds=() if kind == "image" else tuple(seconds for _, _, seconds in found),
        sizes=() if kind == "audio" else tuple((info.height, info.width) for info in pictures),
        fps=tuple(info.fps for info in pictures if info.fps),
        gray=kind == "image" and all(map(_is_gray, [record.path for record, _, _ in found][:_OPENED])),
    )
    return seen, [*_warnings(manifest, seen), *first_taken([info for _, info, _ in found])]


def _ranges(manifest: Manifest) -> tuple[tuple[float, float], ...]:
    """The smallest and the largest number of each label set, in training."""
    records = manifest.split("train")
    try:
        NumberLabels(manifest.label_sets).check(records)
    except ValueError as error:
        raise ConfigError(f"{manifest.path}: {error}") from None
    found: list[tuple[float, float]] = []
    for name in manifest.label_sets:
        values = [float(label) for label in records.labels(name).used]
        if min(values) == max(values):
            raise ConfigError(f"{manifest.path}: every training file has the same number {name!r}: {values[0]:g}")
        found.append((min(values), max(values)))
    return tuple(found)


def _kind(manifest: Manifest) -> Kind:
    try:
        return kind_of(manifest.records)
    except ValueError as error:
        raise ConfigError(f"{manifest.path}: {error}") from None


def _warnings(manifest: Manifest, seen: DatasetSummary) -> list[str]:
    """Classes that are too small to learn or to test."""
    said: list[str] = []
    for label_set in manifest.label_sets if seen.classes else ():
        train, test = (Counter(part.labels(label_set).sizes()) for part in (seen.train, seen.testing))
        few = [name for name in sorted(train) if train[name] < 5]
        untested = [name for name in sorted(train) if not test[name]]
        if few:
            said.append(
                f"{_named(few)}: fewer than 5 training files, from which nothing reliable can be learned. Add files, "
                "or leave the class out."
            )
        if untested:
            said.append(f"{_named(untested)}: no test file, so the result says nothing about it.")
    if seen.held_out and seen.how == "files of the same groups as in training":
        said.append(
            "The groups are too few or too large to hold whole ones out for validation, so single files are: the "
            "validation accuracy is higher than what new groups will give."
        )
    if not seen.validating:
        said.append("There are too few files for a validation part: the last weights are taken.")
    return said


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{'Class' if len(names) == 1 else 'Classes'} {shown}"


def _probed(records: Sequence[Record]) -> Iterator[tuple[Record, MediaInfo, float]]:
    """Each record that can be read, the facts of its file, and its length in seconds; 0 for a picture.

    Raises ConfigError where every part begins after the end of its file.
    """
    late: tuple[Record, MediaInfo] | None = None
    seen = False
    for record in records:
        try:
            info = probe(record.path)
        except MediaError:
            continue
        if info.kind != "image" and record.start >= info.duration:
            late = late or (record, info)
            continue
        seen = True
        yield record, info, (info.duration if record.end is None else min(record.end, info.duration)) - record.start
    if late and not seen:
        record, info = late
        raise ConfigError(
            f"{record.name}: start {record.start:g} lies beyond the end of the file "
            f"({info.duration:g} s), as in all files looked at; start and end are in seconds: are these milliseconds?"
        )


def _is_gray(path: str) -> bool:
    try:
        red, green, blue = read_image(path, short_side=32).short()
    except MediaError:
        return True
    return bool((red - green).abs().max() <= 2 and (green - blue).abs().max() <= 2)


def log_mel_scale(summaries: Sequence[DatasetSummary], spec: SpectrogramSpec) -> tuple[float, float]:
    """Mean and standard deviation of the log-mel energies of the sampled files, for :class:`SpectrogramSpec`."""
    spans = tuple(
        (record.path, record.start, seconds)
        for data in summaries
        for record, seconds in zip(data.looked_at, data.seconds, strict=True)
    )
    scale = _scale_of(spans, replace(spec, mean=0.0, std=1.0))
    if scale is None:
        paths = ", ".join(data.path for data in summaries)
        raise ConfigError(f"{paths}: the sound of none of the training files looked at can be read")
    return scale


@lru_cache(maxsize=16)  # a plan asks for each of the sizes it considers, whose sound is the same
def _scale_of(spans: Sequence[tuple[str, float, float]], spec: SpectrogramSpec) -> tuple[float, float] | None:
    energies: list[Tensor] = []
    for path, start, seconds in spans:
        if seconds < spec.window_samples / spec.rate:
            continue
        with suppress(MediaError):
            sound = read_audio(path, start, start + min(seconds, sound_span(spec)), spec.rate)
            values = spectrograms(sound[None], spec)
            energies += [values.flatten()] if values.isfinite().all() else []
    if not energies:
        return None
    values = torch.cat(energies).double()
    return round(values.mean().item(), 2), max(0.01, round(values.std().item(), 2))


def task_names(paths: Sequence[str]) -> list[str]:
    """A name for each folder or manifest, taken from its path; "folder" for a single one.

    Raises ConfigError where two would have the same name.
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
    """Letters, digits and underscores, for use in flags. A name that PyTorch modules use gets an underscore more."""
    stem = path.parent.name if path.suffix and path.stem in ("manifest", "index") else path.stem
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII) or "folder"
    return f"{name}_" if hasattr(nn.ModuleDict, name) or name == "training" else name
