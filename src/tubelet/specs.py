"""What a model eats: one frozen, torch-free dataclass per modality.

A spec travels with the model (it is stored in ``tubelet.json``), so that training, evaluation and prediction cut and
normalise media in exactly the same way.
"""

from __future__ import annotations

from dataclasses import dataclass


def _check_raster(size: tuple[int, int], short_side: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if min(size) < 1:
        raise ValueError(f"{size=} must be two positive numbers (height, width)")
    if short_side < min(size):
        raise ValueError(f"{short_side=} must be at least the smaller side of {size=}, or the crop leaves the picture")
    if len(mean) != len(std):
        raise ValueError(f"{mean=} and {std=} must have one number per channel")
    if min(std) <= 0:
        raise ValueError(f"{std=} must be positive")


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """An image as the model sees it: ``(B, C, H, W)``.

    ``size`` is (height, width) in pixels. At test time the short side is brought to ``short_side`` pixels and crops of
    ``size`` are cut from the result. Pixels are scaled to [0, 1], then ``(x - mean) / std`` per channel; the default
    gives [-1, 1], as the released ViT, ViViT, MTV, MBT and PolyViT code does.
    """

    size: tuple[int, int] = (224, 224)
    short_side: int = 256
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        _check_raster(self.size, self.short_side, self.mean, self.std)

    @property
    def channels(self) -> int:
        return len(self.mean)


@dataclass(frozen=True, kw_only=True)
class VideoSpec:
    """A clip as the model sees it: ``(B, T, C, H, W)``.

    ``frames`` frames are taken ``stride / fps`` seconds apart on the video's timeline; ``fps = 0`` means the average
    rate of each file. Size, short side, mean and standard deviation are those of :class:`ImageSpec`.
    """

    frames: int = 32
    stride: int = 2
    fps: float = 0.0
    size: tuple[int, int] = (224, 224)
    short_side: int = 256
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.frames < 1 or self.stride < 1 or self.fps < 0:
            raise ValueError(f"{self.frames=} and {self.stride=} must be at least 1, {self.fps=} at least 0")
        _check_raster(self.size, self.short_side, self.mean, self.std)

    @property
    def channels(self) -> int:
        return len(self.mean)

    def step(self, native_fps: float) -> float:
        """Seconds between two frames of the clip, for a video of ``native_fps`` frames per second."""
        return self.stride / (self.fps or native_fps)

    def seconds(self, native_fps: float) -> float:
        """The span of a clip: ``frames`` steps, the last frame's own duration included."""
        return self.frames * self.step(native_fps)


InputSpec = ImageSpec | VideoSpec


def value_range(spec: InputSpec) -> tuple[float, float]:
    """The smallest and largest number that a pixel can become: (-1.0, 1.0) with the default mean and deviation."""
    low = min((0.0 - m) / s for m, s in zip(spec.mean, spec.std, strict=True))
    high = max((1.0 - m) / s for m, s in zip(spec.mean, spec.std, strict=True))
    return low, high
