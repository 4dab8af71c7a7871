"""Still images: upright, RGB, 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.media.errors import MediaError
from tubelet.media.images import read_image

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
    for path, reason in {cut: "cannot be decoded", text: "not an image", tmp_path / "none.png": "no such file"}.items():
        with pytest.raises(MediaError, match=reason) as caught:
            read_image(path)
        assert caught.value.path == str(path)
