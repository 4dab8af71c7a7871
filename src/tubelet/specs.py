"""What a model takes as input: one frozen, torch-free dataclass per kind of input.

A spec travels with the model (it is stored in ``tubelet.json``), so that training, evaluation and prediction cut and
normalize media in exactly the same way. :mod:`tubelet.data.readers` has the reader of each kind.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal

from tubelet.configs import register

Fit = Literal["crop", "stretch", "stretch_crop"]
Resample = Literal["bilinear", "bicubic"]
Medium = Literal["image", "video", "audio", "text"]
_MOST_NUMBERS, _LONGEST = 2**30, 2**16  # in one view; frames of a clip, pixels of a side: beyond any model that can run
_FASTEST = 1_000_000  # frames or samples per second
Normalization = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation, per channel


@dataclass(frozen=True, kw_only=True)
class InputSpec(ABC):
    """One input of a model: ``shape`` is that of one view, without the batch.

    ``column``: the column of the manifest that names the file, "path" or ``path.NAME``, such as "path.flow" for optical
    flow that lies beside its video.
    """

    modality: ClassVar[Medium]
    column: str = "path"

    def __post_init__(self) -> None:
        if self.column != "path" and self.file_of == self.column:
            raise ValueError(f"{self.column=} must be path, or path.NAME")
        if math.prod(self.shape) > _MOST_NUMBERS:
            raise ValueError(f"one view is {' x '.join(map(str, self.shape))} numbers, more than {_MOST_NUMBERS:,}")

    layout: ClassVar[str] = "(B, ...)"
    """The axes of a minibatch."""

    integers: ClassVar[bool] = False
    """Whether an encoder takes integers, such as the ids of words, and not floats."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one view."""

    def is_example(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` is that of one example."""
        return shape == self.shape

    def differs_in_size(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` is one example's but for lengths that a model can interpolate over."""
        return False

    def layout_hint(self, shape: tuple[int, ...]) -> str:
        """What to do about a minibatch of another layout, where its ``shape`` tells which; else empty."""
        return "one example without the batch: x[None]" if self.is_example(shape) else ""

    @property
    def channels(self) -> int:
        """Numbers per position of ``extent``."""
        return 1

    @property
    def extent(self) -> tuple[int, int, int]:
        """(frames, height, width) of what tokenizers cut; a row of numbers, where a kind has no frames or rows."""
        return (1, 1, math.prod(self.shape) // self.channels)

    @property
    def normalization(self) -> Normalization | None:
        """What uint8 values are normalized with on the device, once scaled to [0, 1]; None where floats come ready."""
        return None

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The smallest and largest number that a pixel can become: (-1.0, 1.0) with the default mean and deviation."""
        if self.normalization is None:
            return None
        low = min((0.0 - m) / s for m, s in zip(*self.normalization, strict=True))
        high = max((1.0 - m) / s for m, s in zip(*self.normalization, strict=True))
        return low, high

    @property
    def description(self) -> str:
        """What a model card says of it."""
        return f"{' x '.join(map(str, self.shape))} numbers"

    @property
    def file_of(self) -> str:
        """NAME of the column ``path.NAME``; empty for the example's own file."""
        return "" if self.column == "path" else self.column.removeprefix("path.")


def _short_side(size: int) -> int:
    return round(size * 256 / 224)


def _check_raster(spec: RasterSpec) -> None:
    size, short_side, mean, std = spec.size, spec.short_side, spec.mean, spec.std
    if not 1 <= min(size) <= max(*size, short_side) <= _LONGEST:
        raise ValueError(f"{size=} (height, width) and {short_side=} must be from 1 to {_LONGEST:,} pixels")
    least = {"crop": min(size), "stretch": 0, "stretch_crop": max(size)}[spec.fit]
    if short_side < least:
        side = "smaller" if spec.fit == "crop" else "larger"
        raise ValueError(f"{short_side=} must be at least the {side} side of {size=}, or the crop leaves the picture")
    if len(mean) != len(std):
        raise ValueError(f"{mean=} and {std=} must have one number per channel")
    if not std or min(std) <= 0 or not all(map(math.isfinite, (*mean, *std))):
        raise ValueError(f"{mean=} must be finite and {std=} positive, a number per channel")


def _pixels(spec: RasterSpec) -> str:
    height, width = spec.size
    low, high = spec.value_range or (0, 255)
    return f"{height}x{width} pixels in [{low:g}, {high:g}]"


@dataclass(frozen=True, kw_only=True)
class ImageSpec(InputSpec):
    """An image as the model sees it: ``(B, C, H, W)``.

    ``size`` is (height, width) in pixels. At test time the short side is brought to ``short_side`` pixels and crops of
    ``size`` are cut from the result; with ``fit="stretch"`` the whole picture becomes ``size`` instead, whatever its
    proportions, and ``short_side`` plays no role; with "stretch_crop" both sides are brought to ``short_side`` before
    the crop. ``resample``: the filter, which averages over what a pixel covers where pictures shrink. Pixels are scaled
    to [0, 1], then ``(x - mean) / std`` per channel; the default gives [-1, 1], as the released ViT, ViViT, MTV, MBT
    and PolyViT code does.
    """

    modality = "image"
    layout = "(B, C, H, W)"
    values: ClassVar[Literal["color"]] = "color"
    size: tuple[int, int] = (224, 224)
    short_side: int = 256
    fit: Fit = "crop"
    resample: Resample = "bilinear"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_raster(self)

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, *self.size)

    @classmethod
    def square(cls, size: int) -> ImageSpec:
        """Pictures of ``size`` x ``size`` pixels, cut from a short side of 8/7 of that, as the papers do (256 for 224);
        the papers' if 0."""
        return cls(size=(size, size), short_side=_short_side(size)) if size else cls()

    def differs_in_size(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` is one example's but for height and width."""
        return len(shape) == 3 and shape[0] == self.channels

    def layout_hint(self, shape: tuple[int, ...]) -> str:
        """What to do about a minibatch of another layout, where its ``shape`` tells which; else empty."""
        if len(shape) == 3:
            return "one picture without the batch: x[None]"
        return "it looks like (B, H, W, C): x.permute(0, 3, 1, 2)" if shape[-1] == self.channels else ""

    @property
    def description(self) -> str:
        return _pixels(self)

    @property
    def normalization(self) -> Normalization:
        return self.mean, self.std

    @property
    def extent(self) -> tuple[int, int, int]:
        """(frames, height, width) of what tokenizers cut. An image is a video of one frame."""
        return (1, *self.size)


@dataclass(frozen=True, kw_only=True)
class VideoSpec(InputSpec):
    """A clip as the model sees it: ``(B, T, C, H, W)``.

    ``frames`` frames are taken ``stride / fps`` seconds apart on the video's timeline; ``fps = 0`` means the average
    rate of each file. Size, short side, fit, filter, mean and standard deviation are those of :class:`ImageSpec`.

    ``values``: what the channels are. "flow": optical flow, whose first channel is the motion to the right (above
    127.5) or left (below), the second that downwards or upwards; it is taken from the first ``len(mean)``
    channels of a file. The first is turned round where a clip is mirrored; nothing else is done to it but cropping.
    """

    modality = "video"
    layout = "(B, T, C, H, W)"
    frames: int = 32
    stride: int = 2
    fps: float = 0.0
    size: tuple[int, int] = (224, 224)
    short_side: int = 256
    fit: Fit = "crop"
    resample: Resample = "bilinear"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    values: Literal["color", "flow"] = "color"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.frames <= _LONGEST or self.stride < 1:
            raise ValueError(f"{self.frames=} must be from 1 to {_LONGEST:,}, {self.stride=} at least 1")
        if self.fps and not 1 / _FASTEST <= self.fps <= _FASTEST:
            raise ValueError(f"{self.fps=} must be 0, or up to {_FASTEST:,} frames per second")
        _check_raster(self)

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, C, H, W)."""
        return (self.frames, self.channels, *self.size)

    @classmethod
    def square(cls, frames: int, size: int) -> VideoSpec:
        """Clips of ``frames`` frames of ``size`` x ``size`` pixels, cut as :meth:`ImageSpec.square` says; the papers'
        32 and 224 where one is 0."""
        spec = cls(frames=frames or 32)
        return replace(spec, size=(size, size), short_side=_short_side(size)) if size else spec

    def differs_in_size(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` is one example's but for frames, height and width."""
        return len(shape) == 4 and shape[1] == self.channels

    def layout_hint(self, shape: tuple[int, ...]) -> str:
        """What to do about a minibatch of another layout, where its ``shape`` tells which; else empty."""
        if len(shape) == 4:
            return "one clip without the batch: x[None]"
        if len(shape) != 5:
            return ""
        if shape[1] == self.channels:
            return "it looks like (B, C, T, H, W): x.transpose(1, 2)"
        return "it looks like (B, T, H, W, C): x.permute(0, 1, 4, 2, 3)" if shape[-1] == self.channels else ""

    @property
    def description(self) -> str:
        rate = f"{self.fps:g} frames per second" if self.fps else "the video's own frame rate"
        return f"{self.frames} frames, every {self.stride} of {rate}, {_pixels(self)}"

    @property
    def normalization(self) -> Normalization:
        return self.mean, self.std

    @property
    def extent(self) -> tuple[int, int, int]:
        """(frames, height, width) of what tokenizers cut."""
        return (self.frames, *self.size)

    def step(self, native_fps: float) -> float:
        """Seconds between two frames of the clip, for a video of ``native_fps`` frames per second."""
        return self.stride / (self.fps or native_fps)

    def seconds(self, native_fps: float) -> float:
        """The span of a clip: ``frames`` steps, the last frame's own duration included."""
        return self.frames * self.step(native_fps)


@dataclass(frozen=True, kw_only=True)
class SpectrogramSpec(InputSpec):
    """Sound as the model sees it: log-mel energies ``(B, T, M)``, time before frequency, ``frames`` x ``bins``.

    The sound is brought to ``rate`` samples per second and one channel; every ``hop`` seconds a ``window`` (seconds,
    shaped by ``taper``) is transformed by ``fft`` points, the magnitudes to the ``power`` are summed by ``bins``
    triangles equally spaced on the HTK mel scale between ``low`` and ``high`` hertz, and ``log(energy + offset)`` is
    taken; then ``(x - mean) / std``. Tokenizers see it ``channels`` times over, so that an image's embedding fits.

    ``levels`` "own": each span of sound is brought to [0, 1] by its own smallest and largest energy, and ``mean`` and
    ``std`` play no role. With an ``offset`` of 1e-4 and the ``power`` 1 that is VATT's log(1 + 10,000 x), brought to
    [0, 1]: the factor falls out. Silence is 0 then.

    ``loudness``: the level, in decibels (root mean square, relative to full scale), that every span of sound is brought
    to before the transform, such as -25; 0 leaves sound as it is. Sound is made at most 40 dB louder, and digital
    silence stays silence.

    ``style`` "kaldi": what Kaldi's filter bank does, which is what AST hears. A window's mean is taken off it, then
    97 % of the sample before from each sample; the taper is symmetric; the triangles are straight in mels, not in
    hertz; and the logarithm is that of the energy or of ``offset``, whichever is larger. A filter may be so narrow that
    it has no frequency, and be at ``offset`` always.

    ``stretch``, in seconds: a sound that is no longer is taken whole, and of a longer one, spans of this length; the
    energies of each are then stretched in time to ``frames`` frames (linear interpolation), so that a short word fills
    the spectrogram as a long one does. 0: frames are ``hop`` apart.

    ``short``: a sound shorter than ``frames`` windows is heard again from its beginning ("repeat"), or once, and all
    later energies are 0 before the normalization ("blank"), as AST's are.

    16 kHz, 25 ms, 10 ms, 128 bins and 8 s are MBT's and PolyViT's (PolyViT Table 7: 800 x 128). The papers and the
    released code do not say the rest: it is ours, ``mean`` and ``std`` too. They are those of real sounds at full scale
    1: telephone prompts in two languages (each mean about -5.8), single syllables (-4.0), instruments (-4.5) and a
    film (-6.6), an equal share of each. The 1.102 and 2.762 of the released MBT belong to spectrograms that were
    stored beforehand by a formula which is not public.
    """

    modality = "audio"
    layout = "(B, T, M)"
    frames: int = 800
    bins: int = 128
    rate: int = 16_000
    window: float = 0.025
    hop: float = 0.010
    taper: Literal["hamming", "hann"] = "hamming"
    fft: int = 1024
    power: float = 2.0
    low: float = 20.0
    high: float = 8000.0
    offset: float = 1e-6
    mean: float = -5.3
    std: float = 4.7
    levels: Literal["fixed", "own"] = "fixed"
    loudness: float = 0.0
    style: Literal["plain", "kaldi"] = "plain"
    stretch: float = 0.0
    short: Literal["repeat", "blank"] = "repeat"
    channels: int = 3  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("frames", "bins", "rate", "window", "hop", "power", "offset", "std", "channels"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if max(self.bins, self.fft) > _LONGEST or self.rate > _FASTEST:
            raise ValueError(f"{self.bins=} and {self.fft=} must be at most {_LONGEST:,}, {self.rate=} {_FASTEST:,}")
        if self.channels * math.prod(self.shape) > _MOST_NUMBERS or self.samples > _MOST_NUMBERS:
            raise ValueError(f"{self.frames=} of {self.bins=} in {self.channels=}, {self.hop=} s apart, are too many")
        _check_loudness(self.loudness)
        if self.stretch and not self.window <= self.stretch < math.inf:
            raise ValueError(f"{self.stretch=} must be 0 or at least one {self.window=} long, in seconds")
        if self.window_samples > self.fft:
            raise ValueError(f"{self.fft=} must be at least the {self.window_samples} samples of {self.window=} s")
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise ValueError(f"{self.low=} and {self.high=} must lie between 0 and {self.rate / 2=} hertz, in order")
        if min(self.window_samples, self.hop_samples) < 1:
            raise ValueError(f"{self.window=} and {self.hop=} seconds must hold a sample at {self.rate=}")
        if self.style == "plain":
            self._check_filters()

    def _check_filters(self) -> None:
        step = self.rate / self.fft
        corners = self.corners
        for bin_, (left, right) in enumerate(zip(corners, corners[2:], strict=False)):
            if (math.floor(left / step) + 1) * step >= right:
                raise ValueError(
                    f"mel filter {bin_} of {self.bins=} lies between {left:.1f} and {right:.1f} Hz, where {self.fft=} "
                    f"points at {self.rate=} have no frequency, as they lie {step:.1f} Hz apart: it would be empty; "
                    "give fewer bins, a larger fft or a higher low"
                )

    @property
    def corners(self) -> tuple[float, ...]:
        """``bins + 2`` frequencies in hertz, equally spaced on the HTK mel scale: filter i spans the i-th to i+2-th."""
        low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (self.low, self.high))
        mels = (low + (high - low) * i / (self.bins + 1) for i in range(self.bins + 2))
        return tuple(700 * (10 ** (mel / 2595) - 1) for mel in mels)

    @property
    def shape(self) -> tuple[int, int]:
        """(T, M)."""
        return (self.frames, self.bins)

    def is_example(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` is that of one example: (T, M), or (C, T, M) where each channel has its own."""
        return shape in (self.shape, (self.channels, *self.shape))

    def differs_in_size(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` is one example's but for windows and bins."""
        return len(shape) == 2 or (len(shape) == 3 and shape[0] == self.channels)

    @property
    def description(self) -> str:
        sound = f"{self.seconds:g} s of sound at {self.rate:,} hertz, {self.bins} mel bins"
        return f"a log-mel spectrogram of {self.frames} windows, {sound}"

    @property
    def extent(self) -> tuple[int, int, int]:
        """(frames, height, width) of what tokenizers cut. It is one picture, time downwards."""
        return (1, self.frames, self.bins)

    @property
    def window_samples(self) -> int:
        return round(self.window * self.rate)

    @property
    def hop_samples(self) -> int:
        return round(self.hop * self.rate)

    @property
    def samples(self) -> int:
        """The samples that ``frames`` windows cover; of a stretched spectrogram, those of ``stretch`` seconds."""
        if self.stretch:
            return round(self.stretch * self.rate)
        return (self.frames - 1) * self.hop_samples + self.window_samples

    @property
    def repeats(self) -> bool:
        """Whether a sound shorter than ``samples`` is heard again from its beginning until there are so many."""
        return not self.stretch and self.short == "repeat"

    @property
    def step(self) -> float:
        """Seconds between two frames of a clip; of a stretched spectrogram, of the longest."""
        return self.stretch / self.frames if self.stretch else self.hop

    @property
    def seconds(self) -> float:
        """The span of a clip: ``frames`` hops, or what is stretched to ``frames``."""
        return self.stretch or self.frames * self.hop


@dataclass(frozen=True, kw_only=True)
class WaveformSpec(InputSpec):
    """Sound as it is: ``(B, S)`` samples in [-1, 1], of one channel, ``rate`` of them per second.

    ``loudness``: as in :class:`SpectrogramSpec`. The default is three seconds at VATT's 48 kHz.
    """

    modality = "audio"
    layout = "(B, S)"
    stretch: ClassVar[float] = 0.0  # these two as in SpectrogramSpec; a waveform keeps its time
    repeats: ClassVar[bool] = True
    samples: int = 144_000
    rate: int = 48_000
    loudness: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1 or not 1 <= self.rate <= _FASTEST:
            raise ValueError(f"{self.samples=} must be at least 1, {self.rate=} from 1 to {_FASTEST:,}")
        _check_loudness(self.loudness)

    @property
    def shape(self) -> tuple[int]:
        """(S,)."""
        return (self.samples,)

    def differs_in_size(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` is one example's but for its length."""
        return len(shape) == 1

    @property
    def description(self) -> str:
        return f"a waveform of {self.samples:,} samples, {self.seconds:g} s of sound at {self.rate:,} hertz"

    @property
    def frames(self) -> int:
        """Its samples: what a spectrogram's frames are to that."""
        return self.samples

    @property
    def step(self) -> float:
        """Seconds between two samples."""
        return 1 / self.rate

    @property
    def seconds(self) -> float:
        """The span of a clip."""
        return self.samples / self.rate


@dataclass(frozen=True, kw_only=True)
class TextSpec(InputSpec):
    """Captions as the model sees them: ``(B, P, L)`` ids of ``words`` words in each of ``captions``; int64.

    ``vocabulary``: the words in the order of their ids, with spaces between them; the first is ``<pad>``, id 0, which
    fills short captions and stands for missing ones, and one is ``<unk>``, for words that are not among them. Empty: no
    text can be read, but a model can be built. ``ids``: the rows of the table of word vectors, at least one per word.
    ``seconds``: the span of the clip whose captions are wanted: those nearest to it in time. 0: captions have no time.

    16 words, 2^16 ids and five captions are VATT's (Sec. 3.4, A.2.1).
    """

    modality = "text"
    layout = "(B, P, L)"
    integers = True
    captions: int = 5
    words: int = 16
    ids: int = 65_536
    vocabulary: str = field(default="", repr=False)
    seconds: float = 3.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.captions, self.words, self.ids) < 1 or self.seconds < 0:
            raise ValueError(f"{self.captions=}, {self.words=} and {self.ids=} must be at least 1, {self.seconds=} 0")
        known = self.vocabulary.split(" ") if self.vocabulary else []
        if known and (known[0] != PAD or UNKNOWN not in known):
            raise ValueError(f"vocabulary must begin with {PAD}, and have {UNKNOWN}; it begins with {known[:4]}")
        if len(known) > self.ids:
            raise ValueError(f"vocabulary has {len(known):,} words, more than {self.ids=}")

    @property
    def shape(self) -> tuple[int, int]:
        """(P, L)."""
        return (self.captions, self.words)

    def is_example(self, shape: tuple[int, ...]) -> bool:
        """Whether ``shape`` is (P, L), with any number of captions."""
        return len(shape) == 2 and shape[1] == self.words

    @property
    def description(self) -> str:
        return f"captions of up to {self.words} of {self.ids:,} words"

    @cached_property
    def id_of(self) -> dict[str, int]:
        """The ids of the words."""
        return {word: place for place, word in enumerate(self.vocabulary.split(" "))} if self.vocabulary else {}


PAD, UNKNOWN = "<pad>", "<unk>"


def _check_loudness(loudness: float) -> None:
    if not loudness <= 0:
        raise ValueError(f"{loudness=} dB must be below full scale, such as -25, or 0 for none")


RasterSpec = ImageSpec | VideoSpec
SoundSpec = SpectrogramSpec | WaveformSpec

INPUT_KINDS: dict[str, type[InputSpec]] = {
    "image": ImageSpec,
    "video": VideoSpec,
    "spectrogram": SpectrogramSpec,
    "waveform": WaveformSpec,
    "text": TextSpec,
}

for _name, _kind in INPUT_KINDS.items():
    register(InputSpec, _name, _kind)
