"""How files become inputs: one reader per kind of input, which the rest of the library asks instead of the spec's type.

A kind of input is an :class:`~tubelet.specs.InputSpec` and an :class:`InputReader`; :func:`register_input` adds one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import ClassVar, Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from tubelet.configs import register
from tubelet.data.augment import Augmentation, random_factor
from tubelet.data.cache import ImageReader, SoundReader, VideoReader
from tubelet.data.captions import has_subtitles, nearest, subtitles_of
from tubelet.data.geometry import pixels_needed
from tubelet.data.kinds import Kind
from tubelet.data.manifest import Record
from tubelet.data.sound import Waveforms, spectrograms, train_spectrogram, train_waveform, waveforms
from tubelet.data.timeline import Timeline, Timelines
from tubelet.data.transforms import train_clip, view_crops
from tubelet.data.views import Views
from tubelet.data.windows import Grid, Plan, window_clips, window_sounds
from tubelet.media.clips import clip_times, random_start, spread_starts
from tubelet.media.errors import MediaError, NoTrackError
from tubelet.media.heat import spectrogram_picture
from tubelet.media.images import read_image
from tubelet.media.info import MediaInfo
from tubelet.media.spectrogram import log_mel
from tubelet.media.video import in_batches, open_video
from tubelet.media.words import word_ids, words_of
from tubelet.specs import (
    ImageSpec,
    InputSpec,
    RasterSpec,
    SoundSpec,
    SpectrogramSpec,
    TextSpec,
    VideoSpec,
    WaveformSpec,
)

_SHORTER = 1.0  # seconds that a second file may lack at its end

Spec = TypeVar("Spec", bound=InputSpec)
Sound = TypeVar("Sound", SpectrogramSpec, WaveformSpec)


class Files:
    """What a data set's readers share: timelines, and what is kept in memory of files (GiB of each kind).

    ``specs``: of the inputs that an example has. ``spans``: how many seconds of sound and captions are beside its
    pictures.
    """

    def __init__(self, cache_gib: float = 0.0, specs: Iterable[InputSpec] = ()) -> None:
        self.spans = tuple(spec.seconds for spec in specs if isinstance(spec, SoundSpec | TextSpec))
        self.timelines = Timelines()
        self.videos, self.sounds, self.images = VideoReader(cache_gib), SoundReader(cache_gib), ImageReader(cache_gib)

    def of(self, record: Record) -> ExampleFiles:
        return ExampleFiles(record, self)


@dataclass(frozen=True)
class ExampleFiles:
    """The files of one example, of whose sound no span is read twice."""

    record: Record
    kept: Files
    _heard: dict[str, Waveforms] = field(default_factory=dict[str, Waveforms])

    def part(self, spec: InputSpec) -> Record:
        """The example, of the file that the spec's column names."""
        if not spec.file_of:
            return self.record
        return replace(self.record, path=self.record.paths[spec.file_of], duration=0.0, fps=0.0, width=0, height=0)

    def sound(self, spec: InputSpec) -> Waveforms:
        if spec.column not in self._heard:
            part = self.part(spec)
            self._heard[spec.column] = Waveforms(
                part, self.kept.timelines, partial(self.kept.sounds.samples, part.path)
            )
        return self._heard[spec.column]


class InputReader(ABC, Generic[Spec]):
    """One kind of input of files.

    ``kinds``: the kinds of files that have it, the usual one first. ``one``, ``many``, ``needs``: what it is called in
    messages: "an image", "images", "input 'x' is an image". ``timed``: whether it has a timeline, so that several clips
    of a file differ. ``dtype``: of what it gives; uint8 is normalized on the device. All that read raise
    :class:`MediaError`. Random numbers are drawn from ``random`` alone, first of all where a clip begins, so that the
    inputs of an example, which get equal generators, begin at the same share of the room that each has.
    """

    kinds: ClassVar[tuple[Kind, ...]]
    one: ClassVar[str]
    many: ClassVar[str]
    timed: ClassVar[bool] = True
    dtype: ClassVar[torch.dtype] = torch.float32

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    @property
    def needs(self) -> str:
        return self.one

    @property
    def cropped(self) -> bool:
        """Whether different crops of a clip differ."""
        return False

    @property
    def whole(self) -> str:
        """Why it has no crops."""
        return f"{self.many} are not cropped"

    def given_by(self, info: MediaInfo) -> bool:
        """Whether a file has it."""
        return info.kind in self.kinds

    def check(self, augment: Augmentation) -> None:
        """Raise ValueError for a spec that no file can fill, or an augmentation that cannot be applied to it."""

    @abstractmethod
    def train(self, files: ExampleFiles, augment: Augmentation, random: Random) -> Tensor:
        """One random training example, augmented."""

    def times(self, files: ExampleFiles, augment: Augmentation, random: Random) -> tuple[float, ...]:
        """When the frames of :meth:`train` are, in seconds of the file."""
        raise ValueError(f"{self.one} has no times")

    @abstractmethod
    def views(self, files: ExampleFiles, views: Views) -> tuple[Tensor, bool]:
        """The test views (V, ...), clip by clip, and whether all of them are digital silence."""

    def grid(self, fps: float) -> Grid:
        """The frames of a clip on a timeline, of a file with ``fps`` frames per second."""
        raise ValueError(f"{self.many} have no timeline; use predict()")

    def windows(self, record: Record, plan: Plan) -> Iterator[tuple[Tensor, bool]]:
        """The clips (V, ...) of each window of a file, and whether they are digital silence."""
        raise ValueError(f"{self.many} have no timeline; use predict()")

    def blank(self) -> Tensor:
        """One view (1, ...) of nothing: black, or silence."""
        return torch.zeros(1, *self.spec.shape, dtype=self.dtype)

    def picture(self, view: Tensor) -> UInt8[Tensor, "T 3 H W"]:
        """A view for a person's eye. Raises TypeError where there is no way to draw it."""
        raise TypeError(f"no way to draw {self.many}")

    def rate(self, fps: float) -> float:
        """Frames per second of :meth:`picture`; 0 for a single picture."""
        return 0.0

    def summary(self) -> str:
        """What the model sees of a file, in half a sentence."""
        return f"{' x '.join(map(str, self.spec.shape))} numbers of {self.one}"


class _RasterReader(InputReader[Spec]):
    dtype = torch.uint8

    @property
    def _raster(self) -> RasterSpec:
        return cast(RasterSpec, self.spec)

    @property
    def cropped(self) -> bool:
        return self._raster.fit != "stretch"

    @property
    def whole(self) -> str:
        return 'the model sees pictures whole (fit="stretch")'

    def check(self, augment: Augmentation) -> None:
        if self.spec.channels != 3:
            raise ValueError(f"wants {self.spec.channels} channels; media files give 3 (red, green, blue)")

    def summary(self) -> str:
        how = "a crop" if self.cropped else "the whole picture"
        return f"{how} at {self._raster.size[1]}x{self._raster.size[0]} pixels"


class PictureReader(_RasterReader[ImageSpec]):
    kinds, one, many, timed = ("image",), "an image", "images", False

    def train(self, files: ExampleFiles, augment: Augmentation, random: Random) -> UInt8[Tensor, "C H W"]:
        side = round(pixels_needed(self.spec) * augment.enlarges)
        image = files.kept.images.image(files.part(self.spec).path, side)
        return train_clip(image[None], self.spec, augment, random)[0]

    def views(self, files: ExampleFiles, views: Views) -> tuple[UInt8[Tensor, "V C H W"], bool]:
        image = read_image(files.part(self.spec).path, short_side=pixels_needed(self.spec))
        return view_crops(image[None], self.spec, views.crops)[:, 0], False

    def picture(self, view: Tensor) -> UInt8[Tensor, "1 3 H W"]:
        return view[None]


class ClipReader(_RasterReader[VideoSpec]):
    """Clips of videos. Those of a second file, such as optical flow, are taken at the times of the video beside it.

    A training clip may begin so late that its last frame is the last of the file. Beside sound or captions of the same
    span it leaves room for the time that the last frame is shown, so that all of them begin at the same moment. They
    would else be up to the time between two frames of the clip apart: 0.1 s of VATT's.
    """

    kinds, one, many = ("video",), "a video", "videos"

    def check(self, augment: Augmentation) -> None:
        if self.spec.values == "color":
            super().check(augment)
            return
        if self.spec.channels not in (2, 3):
            raise ValueError(f"wants {self.spec.channels} channels; optical flow has 2, or 3 as files store it")
        bent = ("rotate", "shift", "zoom", "shear", "randaugment_layers")
        if named := [name for name in bent if getattr(augment, name)]:
            raise ValueError(f"is optical flow, which augment.{named[0]} would falsify; set it to 0")

    def train(self, files: ExampleFiles, augment: Augmentation, random: Random) -> UInt8[Tensor, "T C H W"]:
        times, part = self.times(files, augment, random), files.part(self.spec)
        line = files.kept.timelines.of(part)
        parts = files.kept.videos.batches(part.path, self._within(times, files), line.duration, line.fps)
        return train_clip(parts, self.spec, augment, random)

    def times(self, files: ExampleFiles, augment: Augmentation, random: Random) -> tuple[float, ...]:
        spec, line = self.spec, self._line(files)
        u, step = random.random(), spec.step(line.fps)
        beside = any(abs(seconds - spec.frames * step) < step for seconds in files.kept.spans)
        factor = random_factor(augment.speed, random)
        if (spec.frames - 1) * step < line.length:
            factor = min(factor, max(1.0, line.length / (spec.frames * step)))
        step *= factor
        span = spec.frames * step if beside else (spec.frames - 1) * step
        start = random_start(line.length, span, u)
        times = tuple(line.start + time for time in clip_times(start, spec.frames, step, line.length))
        return tuple(_middle(time, line) for time in times) if augment.speed else times

    def views(self, files: ExampleFiles, views: Views) -> tuple[UInt8[Tensor, "V T C H W"], bool]:
        spec, line = self.spec, self._line(files)
        step, clips = spec.step(line.fps), list[tuple[float, ...]]()
        for start in spread_starts(line.length, spec.seconds(line.fps), views.clips):
            clips.append(clip_times(start, spec.frames, step, line.length))
        times = sorted({time for clip in clips for time in clip})
        seen = self._within([line.start + time for time in times], files)
        crops = self._crops_at(files.part(spec).path, seen, views.crops)
        row = {time: i for i, time in enumerate(times)}
        return torch.cat([crops[:, [row[time] for time in clip]] for clip in clips]), False

    def _line(self, files: ExampleFiles) -> Timeline:
        """That of the example's own file, whichever file the frames are of."""
        return files.kept.timelines.of(files.record)

    def _within(self, times: Sequence[float], files: ExampleFiles) -> Sequence[float]:
        """The times, those past the end of a second file moved into its last frame: flow has one frame less."""
        part = files.part(self.spec)
        if part is files.record:
            return times
        line, beside = files.kept.timelines.of(part), self._line(files)
        end = line.start + line.length
        if end < beside.start + beside.length - _SHORTER:
            reason = (
                f"ends at {end:.3f} s, but {files.record.path} at {beside.start + beside.length:.3f} s; make it anew"
            )
            raise MediaError(part.path, end, reason)
        return [min(time, end - 0.5 / line.fps) for time in times]

    def _crops_at(self, path: str, times: Sequence[float], crops: int) -> UInt8[Tensor, "crops T C H W"]:
        """Of frames at sorted times."""
        with open_video(path) as video:
            return torch.cat([view_crops(batch.frames, self.spec, crops) for batch in in_batches(video, times)], 1)

    def grid(self, fps: float) -> Grid:
        return Grid(self.spec.frames, self.spec.step(fps), self.spec.seconds(fps))

    def windows(self, record: Record, plan: Plan) -> Iterator[tuple[Tensor, bool]]:
        with open_video(record.path) as video:
            for clips in window_clips(video, self.spec, plan):
                yield clips, False

    def picture(self, view: Tensor) -> UInt8[Tensor, "T 3 H W"]:
        return F.pad(view, (0, 0, 0, 0, 0, 3 - view.shape[1]), value=128)

    def rate(self, fps: float) -> float:
        return 1 / self.spec.step(fps)

    def summary(self) -> str:
        spec = self.spec
        rate = f"{spec.fps / spec.stride:g} a second" if spec.fps else f"every {spec.stride} of the file's"
        return f"{spec.frames} frames, {rate}, {super().summary()}"


def _middle(time: float, line: Timeline) -> float:
    """The middle of the time that a frame is on screen: what is kept of a video is certain to answer for it."""
    middle = (math.floor(time * line.fps + 1e-6) + 0.5) / line.fps
    return middle if middle < line.start + line.length else time


class SoundInputReader(InputReader[Sound]):
    """Spans of the sound of a sound file, or of a video's track; a kind of it says what becomes of the samples."""

    kinds, one, many = ("audio", "video"), "sound", "sound"

    @abstractmethod
    def heard(self, waves: Float32[Tensor, "V S"]) -> Float32[Tensor, "V ..."]:
        """What a model hears of samples at test time."""

    @abstractmethod
    def heard_in_training(self, wave: Float32[Tensor, " S"], augment: Augmentation, random: Random) -> Tensor:
        """What it hears in training."""

    @property
    def needs(self) -> str:
        return "sound (of a sound file, or of a video)"

    @property
    def whole(self) -> str:
        return "sound is not cropped"

    def given_by(self, info: MediaInfo) -> bool:
        return info.audio_channels > 0

    def train(self, files: ExampleFiles, augment: Augmentation, random: Random) -> Tensor:
        sound = files.sound(self.spec)
        return self.heard_in_training(sound.drawn(sound.draw(self.spec, augment, random), self.spec), augment, random)

    def times(self, files: ExampleFiles, augment: Augmentation, random: Random) -> tuple[float, ...]:
        sound = files.sound(self.spec)
        return sound.times(sound.draw(self.spec, augment, random), self.spec)

    def views(self, files: ExampleFiles, views: Views) -> tuple[Tensor, bool]:
        waves = files.sound(self.spec).spread(self.spec, views.clips)
        return self.heard(waves).repeat_interleave(views.crops, 0), not waves.any()

    def grid(self, fps: float) -> Grid:
        return Grid(self.spec.frames, self.spec.step, self.spec.seconds)

    def windows(self, record: Record, plan: Plan) -> Iterator[tuple[Tensor, bool]]:
        for waves in window_sounds(record, self.spec, plan):
            yield self.heard(waves), not waves.any()

    def _evened(self) -> str:
        return f", all sound at {self.spec.loudness:g} dB" if self.spec.loudness else ""


class SpectrogramReader(SoundInputReader[SpectrogramSpec]):
    def heard(self, waves: Float32[Tensor, "V S"]) -> Float32[Tensor, "V T M"]:
        return spectrograms(waves, self.spec)

    def heard_in_training(
        self, wave: Float32[Tensor, " S"], augment: Augmentation, random: Random
    ) -> Float32[Tensor, "T M"]:
        return train_spectrogram(wave, self.spec, augment, random)

    def picture(self, view: Tensor) -> UInt8[Tensor, "1 3 H W"]:
        return spectrogram_picture(view)[None]

    def summary(self) -> str:
        spec = self.spec
        what = f"{spec.frames} frames of {spec.bins} mel bins"
        if spec.stretch:
            return f"{what}, to which every sound of up to {spec.stretch:g} s is stretched{self._evened()}"
        return f"{spec.seconds:.2f} s at a time, as {what}{self._evened()}"


class WaveformReader(SoundInputReader[WaveformSpec]):
    """Samples as they are; SpecAugment's masks and the change of pitch are of spectrograms, and leave them alone."""

    def heard(self, waves: Float32[Tensor, "V S"]) -> Float32[Tensor, "V S"]:
        return waveforms(waves, self.spec)

    def heard_in_training(
        self, wave: Float32[Tensor, " S"], augment: Augmentation, random: Random
    ) -> Float32[Tensor, " S"]:
        return train_waveform(wave, self.spec, augment, random)

    def picture(self, view: Tensor) -> UInt8[Tensor, "1 3 H W"]:
        """Its spectrogram."""
        rate = self.spec.rate
        spec = SpectrogramSpec(rate=rate, fft=2 ** math.ceil(math.log2(max(1024, 0.05 * rate))), high=rate / 2)
        missing = max(0, spec.window_samples - view.shape[-1])
        return spectrogram_picture(log_mel(F.pad(view, (0, missing)), spec))[None]

    def summary(self) -> str:
        return f"{self.spec.seconds:.2f} s at a time, as {self.spec.samples:,} samples{self._evened()}"


class TextReader(InputReader[TextSpec]):
    """Captions: of the manifest (``text``, ``texts``), else of a subtitle file beside the media file, else of the
    file's own track; where the spec's column names a second file, of that subtitle file.

    Of captions with times, a clip gets those nearest to its middle, in the order of their times; the clip begins at the
    same share of the room as pictures and sound. They are taken from the whole file, where an example is a part of it.
    Of captions without times, training draws which come, where there are too many, and the test takes the first.
    """

    kinds, one, many = ("video", "audio", "image"), "captions", "captions"
    dtype = torch.int64

    @property
    def needs(self) -> str:
        return "captions (of the manifest, of a subtitle file, or of a file's own track)"

    def given_by(self, info: MediaInfo) -> bool:
        return info.kind != "image" and has_subtitles(info.path)

    def check(self, augment: Augmentation) -> None:
        if not self.spec.vocabulary:
            raise ValueError(
                "has no vocabulary, so no caption can be read; make one with tubelet.media.words.build_vocabulary or "
                "load_vocabulary, and give it to the TextSpec"
            )

    def train(self, files: ExampleFiles, augment: Augmentation, random: Random) -> Int64[Tensor, "P L"]:
        u, count = random.random(), self.spec.captions
        if texts := self._untimed(files):
            return self._ids(random.sample(texts, count) if len(texts) > count else texts)
        start = random_start(files.kept.timelines.of_sound(files.record).length, self.spec.seconds, u)
        return self._around(start, files)

    def views(self, files: ExampleFiles, views: Views) -> tuple[Int64[Tensor, "V P L"], bool]:
        if texts := self._untimed(files):
            return self._ids(texts).expand(len(views), -1, -1), False
        length = files.kept.timelines.of_sound(files.record).length
        clips = [self._around(start, files) for start in spread_starts(length, self.spec.seconds, views.clips)]
        return torch.stack(clips).repeat_interleave(views.crops, 0), False

    def summary(self) -> str:
        spec = self.spec
        where = f", those nearest to the middle of {spec.seconds:g} s" if spec.seconds else ""
        return f"{spec.captions} captions of up to {spec.words} words{where}"

    def _untimed(self, files: ExampleFiles) -> list[str]:
        """Captions that belong to no moment. Raises NoTrackError where there are none of any kind."""
        given = () if self.spec.file_of else files.record.captions
        if texts := [text for text in given if words_of(text)]:
            return texts
        path = files.part(self.spec).path
        found = subtitles_of(path)
        if not found:
            where = "" if self.spec.file_of else "in the manifest, beside the file (.srt, .vtt) or in its own track"
            raise NoTrackError(path, None, f"there are no captions {where}".rstrip() + "; use a model or task without")
        return [] if self.spec.seconds else [caption.text for caption in found]

    def _around(self, start: float, files: ExampleFiles) -> Int64[Tensor, "P L"]:
        middle = files.record.start + start + self.spec.seconds / 2
        found = nearest(subtitles_of(files.part(self.spec).path), middle, self.spec.captions)
        return self._ids([caption.text for caption in found])

    def _ids(self, texts: Sequence[str]) -> Int64[Tensor, "P L"]:
        ids = torch.zeros(self.spec.shape, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=False):
            row[:] = word_ids(text, self.spec.id_of, self.spec.words)
        return ids


_READERS: dict[type[InputSpec], type[InputReader[InputSpec]]] = {}


def register_input(spec: type[Spec], reader: type[InputReader[Spec]], name: str) -> None:
    """Add a kind of input: its spec, which configs then know as ``name``, and its reader.

    Raises ValueError for a name that another spec has.
    """
    register(InputSpec, name, spec)
    _READERS[spec] = cast(type[InputReader[InputSpec]], reader)


register_input(ImageSpec, PictureReader, "image")
register_input(VideoSpec, ClipReader, "video")
register_input(SpectrogramSpec, SpectrogramReader, "spectrogram")
register_input(WaveformSpec, WaveformReader, "waveform")
register_input(TextSpec, TextReader, "text")


def reader_of(spec: InputSpec) -> InputReader[InputSpec]:
    """The reader of a spec. Raises TypeError for a kind of input that was not registered."""
    if type(spec) not in _READERS:
        raise TypeError(f"no reader of {type(spec).__name__}; register_input({type(spec).__name__}, READER, NAME)")
    return _READERS[type(spec)](spec)
