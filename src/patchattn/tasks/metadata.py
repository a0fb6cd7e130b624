"""What a picture file tells besides its pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from patchattn.tasks.exif import Exif
from patchattn.tasks.xmp import orientation_of, without_layout

__all__ = ["NO_METADATA", "Found", "Metadata", "exif_of", "find_metadata", "fit_metadata", "open_exif"]

SMALLEST, LARGEST = 0.001, 4_000_000
"""The resolutions that a fraction of thousandths can hold."""

METRIC_ERROR = 0.0128
"""What is so near a whole number of pixels per inch was one, before a format rounded it to pixels per meter."""

SIDEWAYS = (5, 6, 7, 8)
"""The orientations that make columns of rows."""


@dataclass(frozen=True)
class Metadata:
    """What a photograph's file tells besides its pixels; None: nothing.

    Raises:
        ValueError: the resolution is none.

    Example:
        >>> Metadata(resolution=(300, 300))
        Metadata(exif=None, xmp=None, resolution=(300, 300))
    """

    exif: bytes | None = None
    """A block of EXIF: camera, lens, date, place, copyright. `read_image` leaves out how the picture was turned, its
    thumbnail, and the resolution, which is below; `write_image` puts in the resolution, and corrects the size."""
    xmp: bytes | None = None
    """A packet of XMP, without what it told of orientation, size and thumbnails."""
    resolution: tuple[float, float] | None = None
    """Pixels per inch, horizontally and vertically."""

    def __post_init__(self) -> None:
        if self.resolution is not None and not _is_resolution(self.resolution):
            raise ValueError(f"resolution: got {self.resolution}, expected two numbers from {SMALLEST} to {LARGEST}.")


NO_METADATA = Metadata()


class Found(NamedTuple):
    """What was found in a file."""

    metadata: Metadata
    """Of the picture when it has been turned upright."""
    orientation: int
    """How it has to be turned for that, as EXIF counts it."""
    damaged: tuple[str, ...]
    """What could not be read, or not all of it."""


def find_metadata(
    exif: BinaryIO | bytes | None,
    xmp: bytes | None = None,
    resolution: tuple[float, float] | None = None,
    *,
    page: int = 0,
) -> Found:
    """Bring together what a file tells.

    Args:
        exif: a block of EXIF, or a TIFF file, which holds the same and may hold the other two.
        xmp: a packet of XMP.
        resolution: in pixels per inch, if it is told elsewhere than in the EXIF.
        page: of a TIFF file, among all its directories.
    """
    damaged = []
    tags = Exif()
    try:
        tags = open_exif(exif, page)
    except ValueError:
        tags.sound = False
    if not tags.sound:
        damaged.append("EXIF")
    orientation, in_exif, xmp_in_tiff = tags.take_out()
    # Some programs fill it up with zeros.
    xmp = (xmp or xmp_in_tiff or b"").rstrip(b"\0")
    if xmp:
        orientation = orientation or orientation_of(xmp)
        try:
            xmp = without_layout(xmp)
        except ValueError:
            damaged.append("XMP")
            xmp = b""
    told = next((found for found in (resolution, in_exif) if found is not None and _is_resolution(found)), None)
    if told is not None:
        across, down = map(_whole, told)
        told = (down, across) if orientation in SIDEWAYS else (across, down)
    return Found(Metadata(tags.block(), xmp or None, told), orientation or 1, tuple(damaged))


def fit_metadata(metadata: Metadata, size: tuple[int, int]) -> Metadata:
    """Return what is true of an upright picture of (height, width) pixels.

    Raises:
        ValueError: there is EXIF that is none, or XMP that is none.
    """
    try:
        tags = open_exif(metadata.exif)
        if not tags.sound:
            raise ValueError("it is not whole")
    except ValueError as error:
        raise ValueError(f"metadata: the exif cannot be read ({error}); expected a block of EXIF.") from error
    try:
        xmp = None if metadata.xmp is None else without_layout(metadata.xmp)
    except ValueError as error:
        raise ValueError(f"metadata: the xmp cannot be read ({error}); expected XML in UTF-8.") from error
    tags.take_out()
    tags.correct_size(size)
    return Metadata(tags.block(), xmp, metadata.resolution)


def exif_of(metadata: Metadata, *, always: bool = False) -> bytes | None:
    """Return the block of EXIF to write, the resolution in it; `always`: even if that is all."""
    exif = open_exif(metadata.exif)
    if metadata.resolution is not None and (exif.main or always):
        exif.set_resolution(metadata.resolution)
    return exif.block()


def open_exif(source: BinaryIO | bytes | None, page: int = 0) -> Exif:
    """Read a block of EXIF, or a page of a TIFF file; None: there is nothing in it.

    Raises:
        ValueError: it is neither.
    """
    if source is None:
        return Exif()
    # Some formats, and Pillow, put this before a block.
    return Exif.read(io.BytesIO(source.removeprefix(b"Exif\0\0")) if isinstance(source, bytes) else source, page)


def _whole(number: float) -> float:
    nearest = round(number)
    return float(nearest) if nearest and abs(number - nearest) < METRIC_ERROR else number


def _is_resolution(resolution: tuple[float, float]) -> bool:
    return len(resolution) == 2 and all(SMALLEST <= number <= LARGEST for number in resolution)
