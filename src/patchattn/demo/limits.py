"""How much of the machine a visitor may have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchattn.extras import extra

__all__ = ["Limits", "check_pixels", "check_size"]


@dataclass(frozen=True)
class Limits:
    """What is refused with a sentence, before it costs anything."""

    megapixels: float = 24.0
    """Of a picture that comes in, and of one that goes out."""
    megabytes: float = 100.0
    """Of a file that comes in."""
    visitor_megabytes: float = 500.0
    """Of all files of a visitor that are kept at a time, uploads and results."""
    total_megabytes: float = 5000.0
    """Of all files of all visitors."""
    visitor_files: int = 200
    """How many uploads and results of a visitor are kept at a time."""
    total_files: int = 4000
    """How many of all visitors."""
    waiting: int = 24
    """How many pieces of work may wait in a queue."""
    visitor_waiting: int = 6
    """How many of them may be of one visitor: one for each tab of the page, and one more."""


KINDS = frozenset({"PNG", "JPEG", "MPO", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "HEIF", "JPEG2000", "PPM"})
"""What Pillow may open of a visitor. It knows more, and for some of it starts another program (EPS: Ghostscript)."""


def check_size(path: Path, megapixels: float, argument: str) -> None:
    """Refuse a file by the kind and the size that its first bytes tell, before it is decoded.

    What cannot be told here is left to `read_image`, which tells what is wrong with the file.
    """
    with extra("tools"):
        from PIL import Image, UnidentifiedImageError
        from tifffile import TiffFile, TiffFileError
    # The first bytes of a small file may tell of any number of pixels; here it is this page's own limit that counts.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path) as image:
            kind, (width, height) = image.format, image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        try:
            with TiffFile(path) as file:  # of 16 bits a channel, which Pillow does not know
                height, width = file.pages[0].shape[:2]
        except (TiffFileError, OSError, ValueError, IndexError):
            return
        kind = "TIFF"
    if kind not in KINDS:
        raise ValueError(
            f"{argument}: {path} is a file of the kind {kind}, and this page takes {', '.join(sorted(KINDS))}."
        )
    check_pixels((height, width), megapixels, argument)


def check_pixels(size: tuple[int, int], megapixels: float, argument: str) -> None:
    """Raise a `ValueError` if a picture of so many rows and columns is larger than this page allows."""
    height, width = size
    if height * width > megapixels * 1e6:
        raise ValueError(
            f"{argument}: {width} x {height} are {height * width / 1e6:.1f} megapixels, and this page takes up to "
            f"{megapixels:g}. The command line has no limit; neither has patchattn demo --max-megapixels."
        )
