"""Still images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from tubelet.media.containers import WAY_OUT, check_file
from tubelet.media.errors import MediaError

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""The formats of still images that are opened, by Pillow's names, each with its suffixes."""

SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

_EXIF_ORIENTATION = 0x0112
_MOVING = ("GIF",)  # formats that FFmpeg reads as videos


def read_image(path: str | Path, short_side: int = 0) -> UInt8[Tensor, "3 H W"]:
    """An image as RGB, turned upright as its EXIF orientation says; transparency is dropped, 16 bits become 8.

    ``short_side``: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep at least this many
    pixels, which is much faster for large photographs; 0 decodes at full size.
    Raises :class:`MediaError`.
    """
    check_file(path)
    try:
        with Image.open(path) as image:
            if short_side:
                image.draft("RGB", (short_side, short_side))
            pixels = np.array(_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError as error:
        raise MediaError(str(path), None, "not an image that Pillow can read; give a JPEG, PNG or WebP") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(str(path), None, f"the image cannot be decoded ({error}); {WAY_OUT}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def image_size(path: str | Path) -> tuple[int, int, str, str] | None:
    """(width, height, format, mode) of a still image, upright, from its header; None where it is not one."""
    try:
        with Image.open(path) as image:
            if image.format in _MOVING:
                return None
            width, height = image.size
            if image.getexif().get(_EXIF_ORIENTATION, 1) >= 5:
                width, height = height, width
            return width, height, str(image.format).lower(), image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.array(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
