"""Still images."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from tubelet.media.containers import WAY_OUT, check_file
from tubelet.media.errors import MediaError
from tubelet.media.limits import check_pixels, max_pixels
from tubelet.media.whole import MISSING, check_png, unfinished_jpeg

Pixels = NDArray[np.uint8]  # (H, W, 3)

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

_HEAD = 16  # bytes by which Pillow knows a format
_MOVING = "GIF"  # FFmpeg reads it as a video; as a picture it is its first frame
_SHARES = {"WEBP": 2, "AVIF": 2, "JPEG2000": 3}  # of the limit, as a pixel takes that much more memory than a PNG's
_SCALES = (1, 2, 4, 8)  # by which a JPEG may be decoded smaller
_BAND = 2**20  # pixels that are converted at once
_EXIF_ORIENTATION, _TILE = 0x0112, (0x0142, 0x0143)  # tags of TIFF

_TOPS = (1, 255, 4095, 65535)  # the largest value of pixels that are not bytes: floats, and integers of 8, 12, 16 bits
_BEYOND = 0.1  # share by which floats may lie beyond their range, as resampling leaves them


class ImageInfo(NamedTuple):
    """What a still image's header says. ``width``, ``height``: upright. ``form``: its format. ``mode``: Pillow's word
    for its pixels. ``frames``: more than one where it is an animation, or has pages."""

    width: int
    height: int
    form: str
    mode: str
    frames: int


def read_image(path: str | Path, short_side: int = 0) -> UInt8[Tensor, "3 H W"]:
    """An image as RGB, turned upright as its EXIF orientation says; transparency is dropped.

    Of an animation, or of several pages, the first. Pixels that are not bytes are scaled: integers have 8, 12 or 16
    bits, as many as the largest of them needs, of which the upper 8 remain; floats are in [0, 1], [0, 255], [0, 4095]
    or [0, 65535], the smallest that holds them.

    ``short_side``: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep at least this many
    pixels, which is much faster for large photographs; 0 decodes at full size. One that is larger than
    :func:`~tubelet.media.limits.max_pixels` is decoded at the largest of these sizes that is not.
    Raises :class:`MediaError`: also for what is too large, for pixels that fit no range, and where rows are missing.
    """
    with _opened(path, decoded=True) as image:
        if image is None:
            reason = f"not an image of a format that is read ({', '.join(FORMATS)}); give a JPEG, PNG or WebP"
            raise MediaError(str(path), None, reason)
        if (scale := _scale(image, path, short_side)) > 1:
            image.draft("RGB", (image.width // scale, image.height // scale))
        tiles = [tile.extents or (0, 0, *image.size) for tile in image.tile]
        if tiles and sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in tiles) < _area(image):
            raise ValueError(MISSING)
        image.load()
        if image.format == "PNG":
            last = np.asarray(image.crop((0, max(0, image.height - 2), *image.size)))
            check_png(path, suspicious=not last.reshape(len(last), -1).any(1).all())
        pixels = _upright(_rgb(image, path), _orientation(image))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def image_info(path: str | Path) -> ImageInfo | None:
    """The facts of a still image; None where the file is of no format of still images.

    Raises :class:`MediaError` where it is too large, or damaged at its beginning.
    """
    with _opened(path) as image:
        if image is None:
            return None
        _scale(image, path, 1)
        width, height = image.size
        if image.format != "TIFF" and _orientation(image) >= 5:  # a TIFF's size is upright
            width, height = height, width
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # an MPO's others are for a second eye
        return ImageInfo(width, height, str(image.format).lower(), image.mode, frames)


@contextmanager
def _opened(path: str | Path, *, decoded: bool = False) -> Generator[ImageFile | None]:
    """The image by its first bytes, of the formats above alone; None where they are of no such format.

    ``decoded``: whether its pixels are wanted, also of a GIF. What goes wrong is raised as :class:`MediaError`.
    """
    check_file(path)
    try:
        with Path(path).open("rb") as file:
            image = _open(file, path, decoded)
            with image or nullcontext():
                yield image
    except (MediaError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise MediaError(str(path), None, f"too large ({error}); scale it down") from error
    except Exception as error:
        raise MediaError(str(path), None, f"the image cannot be decoded ({error}); {WAY_OUT}") from error


def _open(file: BinaryIO, path: str | Path, decoded: bool) -> ImageFile | None:
    """Image.open would have a limit of its own, and warn."""
    head = file.read(_HEAD)
    Image.preinit()
    for name in (*FORMATS, *([_MOVING] if decoded else [])):
        if name not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or accept is None or len(head) < _HEAD or accept(head) is not True:
            continue
        data = unfinished_jpeg(path) if decoded and name == "JPEG" else None
        try:
            file.seek(0)
            return factory(file if data is None else BytesIO(data), str(path))
        except SyntaxError:
            if name != "AVIF":  # HEIC begins alike
                raise
    return None


def _scale(image: ImageFile, path: str | Path, short_side: int) -> int:
    """By how much a JPEG is decoded smaller; 1 for others. Raises MediaError where the image is too large."""
    if image.format not in ("JPEG", "MPO"):
        share = _SHARES.get(str(image.format), 1)
        check_pixels(path, *image.size, share)
        if isinstance(image, TiffImageFile):
            width, height = (image.tag_v2.get(tag, 1) for tag in _TILE)
            check_pixels(path, width, height, share)
        return 1
    held = _area(image) > max_pixels() // 2 and unfinished_jpeg(path) is None
    if held:
        check_pixels(path, *image.size)
    most, wanted = max_pixels() // (2 if held else 1), min(image.size) // short_side if short_side else 1
    for scale in _SCALES:
        if 2 * scale > min(wanted, _SCALES[-1]) and _area(image) <= most * scale**2:
            return scale
    check_pixels(path, *image.size)
    return 1


def _area(image: Image.Image) -> int:
    return image.width * image.height


def _orientation(image: Image.Image) -> int:
    """EXIF's number for how it is turned: 1 for upright."""
    found = image.getexif().get(_EXIF_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = (-1 if orientation in turned else 1 for turned in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _rgb(image: ImageFile, path: str | Path) -> Pixels:
    """Converted in bands, so that nothing but the image and the result is held at full size."""
    image.info.pop("transparency", None)  # it is dropped, of which Pillow would warn
    top = _top(image, path) if image.mode.startswith(("I", "F")) else 0
    rgb, row = np.empty((image.height, image.width, 3), np.uint8), 0
    for band in _bands(image):
        rgb[row : row + band.height] = np.asarray((_bytes(band, top) if top else band).convert("RGB"))
        row += band.height
    return rgb


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    rows = max(1, _BAND // image.width)
    if rows >= image.height:
        yield image
        return
    for row in range(0, image.height, rows):
        yield image.crop((0, row, image.width, min(row + rows, image.height)))


def _top(image: ImageFile, path: str | Path) -> int:
    """The upper end of the range of pixels that are not bytes. Raises MediaError where they fit none."""
    if image.format == "PPM":
        return _TOPS[-1]  # Pillow has scaled them by the file's own maximum
    ends = [(values.min(), values.max()) for values in map(np.asarray, _bands(image))]
    low, high = np.min(ends), np.max(ends)
    tops, beyond = (_TOPS, _BEYOND) if image.mode == "F" else (_TOPS[1:], 0.0)
    for top in tops:
        if high <= top * (1 + beyond) and low >= -beyond * top:
            return top
        if high <= top:
            break
    kind = "floats" if image.mode == "F" else "integers of more than 8 bits"
    ranges = ", ".join(f"0 to {top}" for top in tops)
    reason = f"its pixels are {kind} from {low:g} to {high:g}, which no range holds ({ranges}); save it as 8-bit RGB"
    raise MediaError(str(path), None, reason)


def _bytes(image: Image.Image, top: int) -> Image.Image:
    values = np.asarray(image)
    levels = (values * (255 / top)).clip(0, 255) + 0.5 if image.mode == "F" else values >> (top.bit_length() - 8)
    return Image.fromarray(levels.astype(np.uint8))
