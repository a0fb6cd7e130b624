"""Metadata of image files: EXIF, XMP and resolution."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from patchattn.tasks.exif import Exif
from patchattn.tasks.xmp import orientation_of, without_layout

__all__ = ["NO_METADATA", "FileMetadata", "Metadata", "exif_of", "find_metadata", "fit_metadata", "open_exif"]

MIN_RESOLUTION, MAX_RESOLUTION = 0.001, 4_000_000
"""Range of resolutions that a fraction of thousandths can hold."""

ROUNDING_ERROR = 0.0128
"""Largest distance from an integer of pixels per inch that comes from rounding to pixels per meter."""

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange rows and columns."""


@dataclass(frozen=True)
class Metadata:
    """Metadata of an image file; None: not present.

    Raises:
        ValueError: the resolution is none.

    Example:
        >>> Metadata(resolution=(300, 300))
        Metadata(exif=None, xmp=None, resolution=(300, 300))
    """

    exif: bytes | None = None
    """EXIF block: camera, lens, date, place, copyright. `read_image` removes the orientation, the thumbnail and the
    resolution (which is below); `write_image` inserts the resolution and corrects the size."""
    xmp: bytes | None = None
    """XMP packet, without orientation, size and thumbnails."""
    resolution: tuple[float, float] | None = None
    """Pixels per inch, horizontally and vertically."""

    def __post_init__(self) -> None:
        if self.resolution is not None and not _is_resolution(self.resolution):
            raise ValueError(
                f"resolution: got {self.resolution}, expected two numbers from {MIN_RESOLUTION} to {MAX_RESOLUTION}."
            )


NO_METADATA = Metadata()


class FileMetadata(NamedTuple):
    """Metadata read from a file."""

    metadata: Metadata
    """Metadata of the upright image."""
    orientation: int
    """EXIF orientation that the stored pixels have."""
    damaged: tuple[str, ...]
    """Parts that could not be read completely."""


def find_metadata(
    exif: BinaryIO | bytes | None,
    xmp: bytes | None = None,
    resolution: tuple[float, float] | None = None,
    *,
    page: int = 0,
) -> FileMetadata:
    """Combine the metadata of a file.

    Args:
        exif: a block of EXIF, or a TIFF file, which holds the same and may hold the other two.
        xmp: a packet of XMP.
        resolution: in pixels per inch, if the file stores it outside the EXIF.
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
    valid = next((found for found in (resolution, in_exif) if found is not None and _is_resolution(found)), None)
    if valid is not None:
        across, down = map(_whole, valid)
        valid = (down, across) if orientation in SIDEWAYS else (across, down)
    return FileMetadata(Metadata(tags.block(), xmp or None, valid), orientation or 1, tuple(damaged))


def fit_metadata(metadata: Metadata, size: tuple[int, int]) -> Metadata:
    """Adapt metadata to an upright image of (height, width) pixels.

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
    """Return the EXIF block to write, including the resolution; `always`: even if that is all."""
    exif = open_exif(metadata.exif)
    if metadata.resolution is not None and (exif.main or always):
        exif.set_resolution(metadata.resolution)
    return exif.block()


def open_exif(source: BinaryIO | bytes | None, page: int = 0) -> Exif:
    """Read an EXIF block or a page of a TIFF file; empty for None.

    Raises:
        ValueError: it is neither.
    """
    if source is None:
        return Exif()
    # Some formats, and Pillow, put this before a block.
    return Exif.read(io.BytesIO(source.removeprefix(b"Exif\0\0")) if isinstance(source, bytes) else source, page)


def _whole(number: float) -> float:
    nearest = round(number)
    return float(nearest) if nearest and abs(number - nearest) < ROUNDING_ERROR else number


def _is_resolution(resolution: tuple[float, float]) -> bool:
    return len(resolution) == 2 and all(MIN_RESOLUTION <= number <= MAX_RESOLUTION for number in resolution)
