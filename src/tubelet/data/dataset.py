"""Examples: what a minibatch of training, or the evaluation of one video, is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from zlib import crc32

import torch
from torch import Tensor

from tubelet.data.augment import Augmentation, random_factor
from tubelet.data.batch import Targets
from tubelet.data.cache import ImageReader, SoundReader, VideoReader
from tubelet.data.geometry import pixels_needed
from tubelet.data.kinds import Kind, kinds_of
from tubelet.data.labels import Classes, TargetEncoder
from tubelet.data.records import Record, Records
from tubelet.data.sound import Waveforms, spectrograms, train_spectrogram
from tubelet.data.timeline import Timeline, Timelines
from tubelet.data.transforms import train_clip, view_crops
from tubelet.data.views import Views, has_crops
from tubelet.media.clips import clip_times, random_start, spread_starts
from tubelet.media.errors import MediaError, NoTrackError
from tubelet.media.images import read_image
from tubelet.media.video import open_video
from tubelet.seeds import mix
from tubelet.specs import ImageSpec, InputSpec, RasterSpec, SpectrogramSpec, VideoSpec

_FRAMES_AT_ONCE = 32  # decoded frames that evaluation holds at full size


@dataclass(frozen=True)
class Example:
    """``inputs`` by name: uint8 (T, C, H, W) or (C, H, W), spectrograms float32 (T, M). ``target``: of one example."""

    inputs: dict[str, Tensor]
    target: Targets | None
    key: str


@dataclass(frozen=True)
class VideoViews:
    """All views of one example, clip by clip, with the same V for every input.

    ``inputs`` by name: uint8 (V, T, C, H, W) or (V, C, H, W), spectrograms float32 (V, T, M), normalized. ``silent``:
    the names of inputs whose sound is digital silence in all of the clips: every sample is zero. ``missing``: those
    that the file does not hold, which are not among ``inputs``.
    """

    inputs: dict[str, Tensor]
    target: Targets | None
    key: str
    silent: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class TrainSet:
    """Random clips (or crops of images) of a task's training examples; those that an index found broken are left out.

    ``specs``: the inputs to make, by name. ``classes``, ``several``: see :class:`TargetEncoder`. ``cache_gib``: memory
    for decoded videos, and as much for pictures and for sounds, in each process. What is drawn depends on ``seed``,
    ``task``, example and pass alone; pictures and sound of one example begin at the same share of the room that each
    has in it, as in the released code.
    Raises ValueError where a record's labels or kind of file don't fit.
    """

    def __init__(
        self,
        records: Sequence[Record],
        classes: Classes,
        specs: Mapping[str, InputSpec],
        augment: Augmentation = Augmentation(),
        *,
        seed: int = 0,
        task: str = "",
        several: bool = False,
        cache_gib: float = 0.0,
    ) -> None:
        self.records = Records.of(records).readable
        self.specs, self.augment = dict(specs), augment
        self._seed = seed, crc32(task.encode())
        self._target = TargetEncoder(classes, several)
        self._timelines = Timelines()
        self._videos, self._sounds, self._images = (
            VideoReader(cache_gib),
            SoundReader(cache_gib),
            ImageReader(cache_gib),
        )
        _check(self.records, self.specs, self._target)

    def __len__(self) -> int:
        return len(self.records)

    def example(self, index: int, pass_: int) -> Example | MediaError:
        """Example ``index`` as it is seen in a pass; the error, where its file cannot be read."""
        record = self.records[index]
        seed = mix(*self._seed, index, pass_)
        sound = Waveforms(record, self._timelines, self._sounds)
        try:
            inputs = {name: self._input(record, sound, spec, Random(seed)) for name, spec in self.specs.items()}
        except MediaError as error:
            return error
        return Example(inputs, self._target(record), record.key or record.path)

    def times(self, index: int, pass_: int, name: str) -> tuple[float, ...]:
        """When the frames of an input of :meth:`example` are taken, or the windows of a spectrogram begin.

        In seconds of the file. Raises MediaError.
        """
        record, spec, random = self.records[index], self.specs[name], Random(mix(*self._seed, index, pass_))
        if isinstance(spec, ImageSpec):
            raise ValueError(f"{name=} is an image, which has no times")
        if isinstance(spec, VideoSpec):
            return self._times(record, spec, random)
        sound = Waveforms(record, self._timelines, self._sounds)
        return sound.times(sound.draw(spec, self.augment, random), spec)

    def _times(self, record: Record, spec: VideoSpec, random: Random) -> tuple[float, ...]:
        line = self._timelines.of(record)
        u, step = random.random(), spec.step(line.fps)
        factor = random_factor(self.augment.speed, random)
        if (spec.frames - 1) * step < line.length:
            factor = min(factor, max(1.0, line.length / (spec.frames * step)))
        step *= factor
        start = random_start(line.length, (spec.frames - 1) * step, u)
        times = tuple(line.start + time for time in clip_times(start, spec.frames, step, line.length))
        return tuple(_middle(time, line) for time in times) if self.augment.speed else times

    def _input(self, record: Record, sound: Waveforms, spec: InputSpec, random: Random) -> Tensor:
        if isinstance(spec, ImageSpec):
            enlarged = self.augment.max_scale if self.augment.scale_jitter else 1.0
            image = self._images.image(record.path, round(pixels_needed(spec) * max(1.0, enlarged)))
            return train_clip(image[None], spec, self.augment, random)[0]
        if isinstance(spec, SpectrogramSpec):
            wave = sound.drawn(sound.draw(spec, self.augment, random), spec)
            return train_spectrogram(wave, spec, self.augment, random)
        line = self._timelines.of(record)
        frames = self._videos.frames_at(record.path, self._times(record, spec, random), line.duration, line.fps)
        return train_clip(frames, spec, self.augment, random)


class ViewSet:
    """The test views of a task's examples, all of them: broken ones too, for a metric says how many it covers.

    ``specs``: the inputs to make, by name. ``classes``, ``several``: see :class:`TargetEncoder`. Clips are spread as
    :func:`spread_starts` says; an image has one. A spectrogram has no crops: beside pictures, those of a clip all go
    with the same one. ``may_miss``: a file with any of the inputs is an example; else one that lacks an input is an
    error. Raises ValueError as :class:`TrainSet` does, and for views that the inputs cannot have.
    """

    def __init__(
        self,
        records: Sequence[Record],
        classes: Classes,
        specs: Mapping[str, InputSpec],
        views: Views = Views(),
        *,
        several: bool = False,
        may_miss: bool = False,
    ) -> None:
        self.records, self.specs, self.views, self.may_miss = Records.of(records), dict(specs), views, may_miss
        self._target = TargetEncoder(classes, several)
        self._timelines = Timelines()
        _check(self.records, self.specs, self._target, may_miss)
        if views.clips > 1 and any(isinstance(spec, ImageSpec) for spec in specs.values()):
            raise ValueError(
                f"{views} views have {views.clips} clips, but an image is one; give Views(crops=...) alone"
            )
        if views.crops > 1 and not any(has_crops(spec) for spec in specs.values()):
            sound = all(isinstance(spec, SpectrogramSpec) for spec in specs.values())
            what = "sound is not cropped" if sound else 'the model sees pictures whole (fit="stretch")'
            raise ValueError(f"{views} views have {views.crops} crops, but {what}; give {views.clips}x1 views")

    def __len__(self) -> int:
        return len(self.records)

    def example(self, index: int) -> VideoViews | MediaError:
        """All views of one example, each frame decoded once; the error, where its file cannot be read."""
        record = self.records[index]
        sound = Waveforms(record, self._timelines, SoundReader())
        inputs, silent, missing = dict[str, Tensor](), list[str](), dict[str, NoTrackError]()
        for name, spec in self.specs.items():
            try:
                if isinstance(spec, SpectrogramSpec):
                    waves = sound.spread(spec, self.views.clips)
                    inputs[name] = spectrograms(waves, spec).repeat_interleave(self.views.crops, 0)
                    silent += [] if waves.any() else [name]
                else:
                    inputs[name] = self._pictures(record, spec)
            except NoTrackError as error:
                missing[name] = error
            except MediaError as error:
                return error
        if missing and not (self.may_miss and inputs):
            return next(iter(missing.values()))
        return VideoViews(inputs, self._target(record), record.key or record.path, tuple(silent), tuple(missing))

    def _pictures(self, record: Record, spec: RasterSpec) -> Tensor:
        if isinstance(spec, ImageSpec):
            image = read_image(record.path, short_side=pixels_needed(spec))
            return view_crops(image[None], spec, self.views.crops)[:, 0]
        line = self._timelines.of(record)
        step, clips = spec.step(line.fps), list[tuple[float, ...]]()
        for start in spread_starts(line.length, spec.seconds(line.fps), self.views.clips):
            clips.append(clip_times(start, spec.frames, step, line.length))
        times = sorted({time for clip in clips for time in clip})
        crops = self._crops_at(record.path, [line.start + time for time in times], spec)
        row = {time: i for i, time in enumerate(times)}
        return torch.cat([crops[:, [row[time] for time in clip]] for clip in clips])

    def _crops_at(self, path: str, times: Sequence[float], spec: VideoSpec) -> Tensor:
        """(crops, T, C, H, W) at sorted times."""
        with open_video(path) as video:
            parts = [
                view_crops(video.frames_at(times[i : i + _FRAMES_AT_ONCE]).frames, spec, self.views.crops)
                for i in range(0, len(times), _FRAMES_AT_ONCE)
            ]
        return torch.cat(parts, 1)


def _middle(time: float, line: Timeline) -> float:
    """The middle of the time that a frame is on screen: what is kept of a video is certain to answer for it."""
    middle = (math.floor(time * line.fps + 1e-6) + 0.5) / line.fps
    return middle if middle < line.start + line.length else time


def _check(
    records: Sequence[Record], specs: Mapping[str, InputSpec], target: TargetEncoder, may_miss: bool = False
) -> None:
    if not records:
        raise ValueError("there are no examples to read; look at the manifest's split and its column 'error'")
    either = {kind for spec in specs.values() for kind in _needs(spec)[1]} if may_miss else set[Kind]()
    found = kinds_of(records)
    for name, spec in specs.items():
        if spec.channels != 3 and not isinstance(spec, SpectrogramSpec):
            raise ValueError(f"input {name!r} wants {spec.channels} channels; media files give 3 (red, green, blue)")
        need, kinds = _needs(spec)
        for kind, record in found.items():
            if (kind or kinds[0]) not in {*kinds, *either}:
                raise ValueError(f"input {name!r} is {need}, which {record.path} is not; change the task's inputs")
    target.check(records)


def _needs(spec: InputSpec) -> tuple[str, tuple[Kind, ...]]:
    """What an input is, and the kinds of files that have it."""
    if isinstance(spec, ImageSpec):
        return "an image", ("image",)
    if isinstance(spec, VideoSpec):
        return "a video", ("video",)
    return "sound (of a sound file, or of a video)", ("audio", "video")
