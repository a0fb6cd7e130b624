"""Checks of an image file before it is decoded."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
import torch

from patchattn.demo.image_checks import check_image_file
from patchattn.tasks.images import Image, write_image


def test_sizes_are_checked_before_decoding(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / name, Image(torch.zeros(1, 3, 30, 40), bit_depth=16))
        check_image_file(tmp_path / name, 0.0012, "The file")
        with pytest.raises(ValueError, match=r"The file: 40 x 30 .* this page takes up to 0\.0011\."):
            check_image_file(tmp_path / name, 0.0011, "The file")


@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA", "SGI", "IM", "ICO"])
def test_kinds_are_checked_by_content_before_decoding(tmp_path: Path, kind: str) -> None:
    PIL.Image.new("RGB", (30, 40)).save(tmp_path / "a.png", kind)
    with pytest.raises(ValueError, match=rf"^The file: .*a\.png has the format {kind}, and this page takes AVIF"):
        check_image_file(tmp_path / "a.png", 1, "The file")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM"])
def test_images_are_taken_by_any_name(tmp_path: Path, kind: str) -> None:
    PIL.Image.new("RGB", (30, 40)).save(tmp_path / "a.png", kind)
    check_image_file(tmp_path / "a.png", 1, "The file")
    with pytest.raises(ValueError, match=r"30 x 40 are 0\.0 megapixels"):
        check_image_file(tmp_path / "a.png", 0.001, "The file")
