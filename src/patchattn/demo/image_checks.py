"""Checks of an image file's format and size before it is decoded."""

from __future__ import annotations

from pathlib import Path

from patchattn.extras import extra

__all__ = ["check_image_file", "check_pixel_count"]

FORMATS = frozenset({"PNG", "JPEG", "MPO", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "HEIF", "JPEG2000", "PPM"})
"""Formats that Pillow may open for a visitor. For some others it starts another program (EPS: Ghostscript)."""


def check_image_file(path: Path, megapixels: float, argument: str) -> None:
    """Raise a `ValueError` if the header of an image file has a format or a size that this page does not take.

    A file whose header cannot be read is left to `read_image`, whose error says what is wrong with it.
    """
    with extra("tools"):
        from PIL import Image, UnidentifiedImageError
        from tifffile import TiffFile, TiffFileError
    # The header of a small file may claim any number of pixels; here it is this page's own limit that counts.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path) as image:
            file_format, (width, height) = image.format, image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        try:
            with TiffFile(path) as file:  # of 16 bits a channel, which Pillow does not know
                height, width = file.pages[0].shape[:2]
        except (TiffFileError, OSError, ValueError, IndexError):
            return
        file_format = "TIFF"
    if file_format not in FORMATS:
        raise ValueError(
            f"{argument}: {path} has the format {file_format}, and this page takes {', '.join(sorted(FORMATS))}."
        )
    check_pixel_count((height, width), megapixels, argument)


def check_pixel_count(size: tuple[int, int], megapixels: float, argument: str) -> None:
    """Raise a `ValueError` if an image of this (height, width) is larger than this page allows."""
    height, width = size
    if height * width > megapixels * 1e6:
        raise ValueError(
            f"{argument}: {width} x {height} are {height * width / 1e6:.1f} megapixels, and this page takes up to "
            f"{megapixels:g}. The command line has no limit; neither has patchattn demo --max-megapixels."
        )
