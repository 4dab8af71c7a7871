"""Still images: upright, RGB, 8 bits."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.media.errors import MediaError
from tubelet.media.images import FORMATS, SUFFIXES, image_info, read_image
from tubelet.media.info import probe
from tubelet.media.limits import MAX_PIXELS

# how the stored rows and columns are turned into the upright picture, by EXIF orientation
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png"), _tensor(UPRIGHT[orientation](PIXELS)))


def test_gray_palette_transparent_and_16_bit(tmp_path: Path) -> None:
    gray = PIXELS[..., 0]
    three = _tensor(np.stack([gray] * 3, -1))
    Image.fromarray(gray).save(tmp_path / "gray.png")
    assert torch.equal(read_image(tmp_path / "gray.png"), three)
    Image.fromarray(gray.astype(np.uint16) * 256 + 7).save(tmp_path / "deep.png")
    assert torch.equal(read_image(tmp_path / "deep.png"), three)
    Image.fromarray(np.dstack([PIXELS, gray])).save(tmp_path / "alpha.png")
    assert torch.equal(read_image(tmp_path / "alpha.png"), _tensor(PIXELS))
    palette = Image.fromarray(PIXELS).quantize(8)
    palette.save(tmp_path / "palette.png")
    assert torch.equal(read_image(tmp_path / "palette.png"), _tensor(np.array(palette.convert("RGB"))))


def test_a_large_jpeg_may_be_read_smaller(tmp_path: Path) -> None:
    Image.fromarray(np.tile(PIXELS, (40, 40, 1))).save(tmp_path / "large.jpg")
    assert read_image(tmp_path / "large.jpg").shape == (3, 480, 800)
    assert read_image(tmp_path / "large.jpg", short_side=224).shape == (3, 240, 400)


def test_broken_images(tmp_path: Path) -> None:
    whole, cut, text = tmp_path / "whole.png", tmp_path / "cut.png", tmp_path / "text.png"
    Image.fromarray(np.tile(PIXELS, (20, 20, 1))).save(whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text.write_text("not an image")
    for path, reason in {
        cut: "cannot be decoded",
        text: "not an image of a format",
        tmp_path / "none.png": "no such file",
    }.items():
        with pytest.raises(MediaError, match=reason) as caught:
            read_image(path)
        assert caught.value.path == str(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_that_is_listed_is_read(tmp_path: Path, suffix: str) -> None:
    form = next(form for form, suffixes in FORMATS.items() if suffix in suffixes)
    Image.fromarray(PIXELS).save(tmp_path / f"a{suffix}", form)
    assert read_image(tmp_path / f"a{suffix}").shape == (3, 12, 20)
    assert (probe(tmp_path / f"a{suffix}").kind, probe(tmp_path / f"a{suffix}").width) == ("image", 20)


@pytest.mark.parametrize("head", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.4\n", b"8BPS\0\1"])
def test_no_other_format_is_opened(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(head + bytes(200))
    with pytest.raises(MediaError, match="not an image of a format that is read"):
        read_image(tmp_path / "a.jpg")


RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))


@pytest.mark.parametrize(
    ("top", "kind"),
    [(1, "f4"), (255, "f4"), (4095, "f4"), (65535, "f4"), (255, "i4"), (65535, "i4"), (4095, "u2"), (65535, "u2")],
)
def test_pixels_that_are_not_bytes_are_scaled_by_their_range(tmp_path: Path, top: int, kind: str) -> None:
    Image.fromarray((RAMP * top).astype(kind)).save(tmp_path / "a.tif")
    assert (read_image(tmp_path / "a.tif").double() - torch.from_numpy(RAMP * 255)).abs().max() <= 1


def test_floats_a_little_beyond_their_range_are_cut_off(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 1.08 - 0.04).astype("f4")).save(tmp_path / "a.tif")
    read = read_image(tmp_path / "a.tif")
    assert (int(read.min()), int(read.max())) == (0, 255)


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (RAMP * 2 - 1, "f4"),
        (RAMP * 1e30, "f4"),
        (np.where(RAMP > 0.5, np.nan, RAMP), "f4"),
        (np.where(RAMP > 0.5, np.inf, RAMP), "f4"),
        (RAMP * 255 - 3, "i4"),
        (RAMP * 1e9, "i4"),
    ],
)
def test_pixels_that_fit_no_range_are_refused(tmp_path: Path, pixels: np.ndarray, kind: str) -> None:
    Image.fromarray(pixels.astype(kind)).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match="floats from" if kind == "f4" else "integers of more than 8 bits from"):
        read_image(tmp_path / "a.tif")


@pytest.mark.filterwarnings("error")
def test_transparent_palettes_are_read_without_a_warning(tmp_path: Path) -> None:
    palette = Image.fromarray(PIXELS).quantize(8)
    palette.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert torch.equal(read_image(tmp_path / "a.png"), _tensor(np.array(palette.convert("RGB"))))


def _png(rows: int, promised: int, level: int, passes: int = 0) -> bytes:
    """A gray PNG, 16 pixels wide; ``passes``: how many of the seven it has, where it is interlaced."""
    data = bytes([0] + [level] * 16) * rows
    if passes:
        steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        data = b"".join(
            bytes([0] + [level] * len(range(x, 16, dx))) * len(range(y, promised, dy))
            for x, y, dx, dy in steps[:passes]
        )
    header = struct.pack(">IIBBBBB", 16, promised, 8, 0, 0, 0, passes > 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@pytest.mark.parametrize("level", [0, 7])
def test_a_png_whose_rows_are_missing_is_an_error(tmp_path: Path, level: int) -> None:
    whole = {"a": _png(99, 99, level), "b": _png(0, 99, level, passes=7)}
    short = {"c": _png(1, 99, level), "d": _png(98, 99, level), "e": _png(0, 99, level, passes=6)}
    for name, content in (whole | short).items():
        (tmp_path / f"{name}.png").write_bytes(content)
    assert all((read_image(tmp_path / f"{name}.png") == level).all() for name in whole)
    for name in short:
        with pytest.raises(MediaError, match="rows are missing"):
            read_image(tmp_path / f"{name}.png")


def test_a_png_that_was_not_written_to_its_end_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(np.tile(PIXELS, (20, 20, 1))).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    half = len(content) // 2
    (tmp_path / "a.png").write_bytes(content[:half] + bytes(len(content) - half))
    with pytest.raises(MediaError, match="cannot be decoded"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_blocks": 4}])
def test_a_jpeg_that_ends_too_early_is_an_error(tmp_path: Path, options: dict[str, int]) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.tile(PIXELS, (20, 20, 1))).save(path, **options)
    content = path.read_bytes()
    with Image.open(path) as whole:
        truth = _tensor(np.array(whole))
    path.write_bytes(content + b"what some cameras put behind")
    assert torch.equal(read_image(path), truth)
    path.write_bytes(content[: int(0.8 * len(content))] + b"\xff\xd9")
    with pytest.raises(MediaError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_too_large_a_picture_is_refused_with_its_size_and_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / f"a{suffix}")
    monkeypatch.setenv(MAX_PIXELS, "239" if suffix != ".webp" else "479")  # a WebP may have half
    for read in (read_image, image_info, probe):
        with pytest.raises(MediaError, match=f"too large: 20x12 pixels, more than 239; .* set {MAX_PIXELS}"):
            read(tmp_path / f"a{suffix}")
    monkeypatch.setenv(MAX_PIXELS, "480")
    assert read_image(tmp_path / f"a{suffix}").shape == (3, 12, 20)


def test_a_jpeg_beyond_the_limit_is_decoded_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Image.fromarray(np.tile(PIXELS, (40, 40, 1)))
    large.save(tmp_path / "large.jpg")
    large.save(tmp_path / "progressive.jpg", progressive=True)
    monkeypatch.setenv(MAX_PIXELS, str(480 * 800 // 3))
    assert read_image(tmp_path / "large.jpg").shape == (3, 240, 400)
    assert (probe(tmp_path / "large.jpg").width, probe(tmp_path / "large.jpg").height) == (800, 480)
    with pytest.raises(MediaError, match="too large: 800x480"):  # all of its scans are held at full size
        read_image(tmp_path / "progressive.jpg")
    monkeypatch.setenv(MAX_PIXELS, str(480 * 800))
    assert read_image(tmp_path / "progressive.jpg").shape == (3, 240, 400)


def test_large_pictures_are_converted_in_bands(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 1000, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(tmp_path / "a.png", exif=exif, compress_level=1)
    assert torch.equal(read_image(tmp_path / "a.png"), _tensor(UPRIGHT[6](pixels)))


@pytest.mark.parametrize(("suffix", "count"), [(".webp", 3), (".png", 3), (".avif", 3), (".tif", 3), (".jpg", 1)])
def test_frames_of_animations_and_pages_are_counted(tmp_path: Path, suffix: str, count: int) -> None:
    first, *rest = (Image.fromarray(np.roll(PIXELS, i, 1)) for i in range(3))
    first.save(tmp_path / f"a{suffix}", save_all=suffix != ".jpg", append_images=rest)
    assert probe(tmp_path / f"a{suffix}").frames == count
    assert read_image(tmp_path / f"a{suffix}").shape == (3, 12, 20)
