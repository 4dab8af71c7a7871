"""What the shapes of a released checkpoint tell of its model, and the model that says the rest.

Shapes tell widths, depths, heads and patches. They do not tell how many of the positions lie along each axis, nor what
has no parameters; a config that is ``like`` the checkpoint's model does. Where it is of another size, the released
models' own sizes are tried: square pictures, 32 frames, 128 mel bins.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from tubelet.models import ModelConfig
from tubelet.nn.blocks import TransformerConfig
from tubelet.nn.tokenizers import Tubelet, grid_of
from tubelet.specs import ImageSpec, InputSpec, SpectrogramSpec, VideoSpec
from tubelet.weights.files import WeightsError
from tubelet.weights.formats.tree import Tree

Spec = TypeVar("Spec", bound=InputSpec)

_FRAMES, _BINS = 32, 128
_SMALLEST, _SHORTEST = 112, 100  # pixels, windows: what less than that fits the released sizes does so by chance


def untold(tree: Tree, what: str, example: str) -> WeightsError:
    """The error for what nothing in a checkpoint tells; ``example``: a model's name."""
    return WeightsError(
        f"{tree.origin}: nothing in it tells {what}; say what it is like: a name, as in "
        f'tubelet.load(..., like="{example}"), or the model\'s config'
    )


def backbone(tree: Tree, depth: int, attention: str, mlp: str) -> TransformerConfig:
    """The size of a stack, from the attention and the MLP of one of its blocks; ``mlp`` is its first layer."""
    heads, width = tree.shape(f"{attention}/query/bias", 2)
    return TransformerConfig(width=heads * width, depth=depth, heads=heads, mlp=tree.shape(f"{mlp}/bias", 1)[0])


def patch_of(tree: Tree, embedding: str = "embedding") -> tuple[Tubelet, int]:
    """The (t, h, w) that a tokenizer cuts, t = 1 for a kernel of pictures, and its channels."""
    *frames, h, w, channels, _ = tree.shape(f"{embedding}/kernel", 5 if is_video(tree, embedding) else 4)
    return (frames[0] if frames else 1, h, w), channels


def is_video(tree: Tree, embedding: str = "embedding") -> bool:
    """Whether a tokenizer's kernel extends in time."""
    return len(tree.shape(f"{embedding}/kernel")) == 5


def image_spec(tree: Tree, like: ModelConfig | None, patch: Tubelet, places: int, channels: int) -> ImageSpec:
    """Pictures that ``places`` patches cover: as ``like`` has them, or square ones."""
    if (spec := _alike(like, ImageSpec, patch, places)) is None:
        height, width = _square(tree, patch, places)
        spec = ImageSpec(size=(height, width), short_side=min(height, width))
    return replace(spec, mean=(0.5,) * channels, std=(0.5,) * channels)


def _square(tree: Tree, patch: Tubelet, places: int) -> tuple[int, int]:
    side = math.isqrt(places)
    if side * side != places:
        raise WeightsError(
            f"{tree.origin}: {places} positions are no square grid; only square images can be read, "
            "unless like= is a config that has their size"
        )
    return side * patch[1], side * patch[2]


def video_spec(tree: Tree, like: ModelConfig | None, patch: Tubelet, places: int, channels: int) -> VideoSpec:
    """Clips that ``places`` tubelets cover: as ``like`` has them, or 32 square frames."""
    if (spec := _alike(like, VideoSpec, patch, places)) is None:
        t, h, w = patch
        per_frame, rest = divmod(places, max(_FRAMES // t, 1))
        side = math.isqrt(per_frame)
        if rest or side * side != per_frame or side * min(h, w) < _SMALLEST:
            raise untold(tree, f"the frames and the size whose tubelets of {t}x{h}x{w} are {places}", "vivit-b/16x2")
        return clips(_FRAMES, (side * h, side * w), channels)
    return replace(spec, mean=(0.5,) * channels, std=(0.5,) * channels)


def frames_spec(
    tree: Tree, like: ModelConfig | None, patch: Tubelet, frames: int, places: int, channels: int
) -> VideoSpec:
    """Clips of ``frames`` frames, ``places`` patches in each: as ``like`` has them, or square ones."""
    spec = _alike(like, VideoSpec, patch, frames // patch[0] * places)
    if spec is None or spec.frames // patch[0] != frames // patch[0]:
        return clips(frames, _square(tree, patch, places), channels)
    return replace(spec, mean=(0.5,) * channels, std=(0.5,) * channels)


def clips(frames: int, size: tuple[int, int], channels: int) -> VideoSpec:
    """Clips as the released code cuts them: from a short side of 8/7, pixels in [-1, 1]."""
    short_side = round(min(size) * 256 / 224)
    return VideoSpec(frames=frames, size=size, short_side=short_side, mean=(0.5,) * channels, std=(0.5,) * channels)


def spectrogram_spec(
    tree: Tree, like: ModelConfig | None, patch: Tubelet, places: int, channels: int
) -> SpectrogramSpec:
    """Spectrograms that ``places`` patches cover: as ``like`` has them, or of 128 mel bins."""
    if (spec := _alike(like, SpectrogramSpec, patch, places)) is None:
        _, h, w = patch
        times, rest = divmod(places, max(_BINS // w, 1))
        if rest or _BINS % w or times * h < _SHORTEST:
            raise untold(tree, f"the windows and mel bins whose patches of {h}x{w} are {places}", "mbt-b/16x2")
        spec = SpectrogramSpec(frames=times * h, bins=_BINS)
    return replace(spec, channels=channels)


def _alike(like: ModelConfig | None, kind: type[Spec], patch: Tubelet, places: int) -> Spec | None:
    """The spec of this kind that ``like`` has, where it has so many places."""
    specs = like.inputs.values() if like else ()
    fits = (s for s in specs if isinstance(s, kind) and _places(s, patch) == places)
    return next(fits, None)


def _places(spec: InputSpec, patch: Tubelet) -> int:
    try:
        return math.prod(grid_of(spec.extent, patch))
    except ValueError:
        return 0
