"""Examples: what a minibatch of training, or the evaluation of one video, is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from zlib import crc32

from torch import Tensor

from tubelet.data.augment import Augmentation
from tubelet.data.batch import Targets
from tubelet.data.kinds import Kind, kinds_of
from tubelet.data.labels import Labels
from tubelet.data.missing import masked
from tubelet.data.readers import Files, InputReader, reader_of
from tubelet.data.records import Record, Records
from tubelet.data.views import Views
from tubelet.media.errors import MediaError, NoTrackError
from tubelet.seeds import mix
from tubelet.specs import InputSpec

Reader = InputReader[InputSpec]


@dataclass(frozen=True)
class Example:
    """``inputs`` by name: uint8 (T, C, H, W) or (C, H, W), spectrograms float32 (T, M), captions int64 (P, L), and for
    each "<name>_mask" () where the example may lack some. ``target``: of one example."""

    inputs: dict[str, Tensor]
    target: Targets | None
    key: str


@dataclass(frozen=True)
class VideoViews:
    """All views of one example, clip by clip, with the same V for every input.

    ``inputs`` by name: uint8 (V, T, C, H, W) or (V, C, H, W), spectrograms float32 (V, T, M), normalized, captions
    int64 (V, P, L). ``silent``: the names of inputs whose sound is digital silence in all of the clips: every sample is
    zero. ``missing``: those that the file does not hold, which are not among ``inputs``.
    """

    inputs: dict[str, Tensor]
    target: Targets | None
    key: str
    silent: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class TrainSet:
    """Random clips (or crops of images) of a task's training examples; those that an index found broken are left out.

    ``labels``: what makes the targets; None: there are none. ``specs``: the inputs to make, by name. ``cache_gib``:
    memory for decoded videos, and as much for pictures and for sounds, in each process. ``sizes``: of the sources that
    the records come from, one after the other; they have equal shares of every minibatch. What is drawn depends on
    ``seed``, ``task``, example and pass alone; pictures and sound of one example begin at the same share of the room
    that each has in it, as in the released code. ``may_miss``: an example that has any of the inputs trains, with
    blanks for the others and masks that say so; else one that lacks an input cannot be read.
    Raises ValueError where a record's labels or kind of file don't fit.
    """

    def __init__(
        self,
        records: Sequence[Record],
        labels: Labels | None,
        specs: Mapping[str, InputSpec],
        augment: Augmentation = Augmentation(),
        *,
        seed: int = 0,
        task: str = "",
        cache_gib: float = 0.0,
        sizes: Sequence[int] = (),
        may_miss: bool = False,
    ) -> None:
        self.records = Records.of(records).readable
        self.sizes = tuple(sizes) or (len(self.records),)
        if sum(self.sizes) != len(self.records):
            raise ValueError(f"{sizes=} of the sources must add up to {len(self.records)} readable records")
        self.specs, self.augment, self.may_miss = dict(specs), augment, may_miss
        self._seed = seed, crc32(task.encode())
        self._labels = labels
        self._files = Files(cache_gib, specs.values())
        self._readers = {name: reader_of(spec) for name, spec in specs.items()}
        _check(self.records, self._readers, self._labels, may_miss)
        for name, reader in self._readers.items():
            _of_input(name, partial(reader.check, augment))

    def __len__(self) -> int:
        return len(self.records)

    def example(self, index: int, pass_: int) -> Example | MediaError:
        """Example ``index`` as it is seen in a pass; the error, where its file cannot be read."""
        record = self.records[index]
        seed, files = mix(*self._seed, index, pass_), self._files.of(record)
        inputs, missing = dict[str, Tensor](), list[NoTrackError]()
        for name, reader in self._readers.items():
            try:
                inputs[name] = reader.train(files, self.augment, Random(seed))
            except NoTrackError as error:
                if not self.may_miss:
                    return error
                missing.append(error)
            except MediaError as error:
                return error
        if not inputs:
            return missing[0]
        if self.may_miss:
            inputs = {
                name: x[0] for name, x in masked({name: x[None] for name, x in inputs.items()}, self.specs).items()
            }
        return Example(inputs, _target(self._labels, record), record.name)

    def times(self, index: int, pass_: int, name: str) -> tuple[float, ...]:
        """When the frames of an input of :meth:`example` are taken, or the windows of a spectrogram begin.

        In seconds of the file. Raises MediaError, and ValueError for an input that has no times.
        """
        random = Random(mix(*self._seed, index, pass_))
        return self._readers[name].times(self._files.of(self.records[index]), self.augment, random)


class ViewSet:
    """The test views of a task's examples, all of them: broken ones too, for a metric says how many it covers.

    ``labels``: what makes the targets; None: there are none. ``specs``: the inputs to make, by name. Clips are spread
    as :func:`spread_starts` says; an image has one. A spectrogram has no crops: beside pictures, those of a clip all go
    with the same one. ``may_miss``: a file with any of the inputs is an example; else one that lacks an input is an
    error. Raises ValueError as :class:`TrainSet` does, and for views that the inputs cannot have.
    """

    def __init__(
        self,
        records: Sequence[Record],
        labels: Labels | None,
        specs: Mapping[str, InputSpec],
        views: Views = Views(),
        *,
        may_miss: bool = False,
    ) -> None:
        self.records, self.specs, self.views, self.may_miss = Records.of(records), dict(specs), views, may_miss
        self._labels = labels
        self._files = Files()
        self._readers = {name: reader_of(spec) for name, spec in specs.items()}
        readers = list(self._readers.values())
        _check(self.records, self._readers, self._labels, may_miss)
        if views.clips > 1 and (still := [reader for reader in readers if not reader.timed]):
            raise ValueError(
                f"{views} views have {views.clips} clips, but {still[0].one} is one; give Views(crops=...) alone"
            )
        if views.crops > 1 and not any(reader.cropped for reader in readers):
            seen = [reader for reader in readers if reader.spec.modality != "audio"] or readers
            raise ValueError(f"{views} views have {views.crops} crops, but {seen[0].whole}; give {views.clips}x1 views")

    def __len__(self) -> int:
        return len(self.records)

    def example(self, index: int) -> VideoViews | MediaError:
        """All views of one example, each frame decoded once; the error, where its file cannot be read."""
        record = self.records[index]
        files = self._files.of(record)
        inputs, silent, missing = dict[str, Tensor](), list[str](), dict[str, NoTrackError]()
        for name, reader in self._readers.items():
            try:
                inputs[name], silence = reader.views(files, self.views)
                silent += [name] if silence else []
            except NoTrackError as error:
                missing[name] = error
            except MediaError as error:
                return error
        if missing and not (self.may_miss and inputs):
            return next(iter(missing.values()))
        return VideoViews(inputs, _target(self._labels, record), record.name, tuple(silent), tuple(missing))


def _target(labels: Labels | None, record: Record) -> Targets | None:
    return None if labels is None else labels(record)


def _check(records: Records, readers: Mapping[str, Reader], labels: Labels | None, may_miss: bool = False) -> None:
    if not records:
        raise ValueError("there are no examples to read; look at the manifest's split and its column 'error'")
    either = {kind for reader in readers.values() for kind in reader.kinds} if may_miss else set[Kind]()
    for name, reader in readers.items():
        _of_input(name, partial(reader.check, Augmentation()))
        file = reader.spec.file_of
        if file and file not in records.files:
            raise ValueError(
                f"input {name!r} is read from the column {reader.spec.column!r}, which "
                f"{records[0].name} does not have; give a manifest with that column"
            )
        for kind, record in kinds_of(records, file).items():
            if (kind or reader.kinds[0]) not in {*reader.kinds, *either}:
                path = record.paths[file] if file else record.path
                raise ValueError(f"input {name!r} is {reader.needs}, which {path} is not; change the task's inputs")
    if labels is not None:
        labels.check(records)


def _of_input(name: str, check: Callable[[], None]) -> None:
    """Run a check, whose error then names the input."""
    try:
        check()
    except ValueError as error:
        raise ValueError(f"input {name!r} {error}") from None
