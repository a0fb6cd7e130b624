"""TIFF files to and from arrays of samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.pillow import array_of, profile_of, upright
from patchattn.tasks.codecs.samples import Array, Notes, Samples
from patchattn.tasks.metadata import find_metadata, open_exif

__all__ = ["TIFF_SIGNATURES", "decode_tiff", "encode_tiff", "find_pages", "write_pages"]

TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

SUBFILE_TYPE, REDUCED, MASK = 254, 1, 4
"""The tag that says what a directory is of, and its bits."""


class Pages(NamedTuple):
    """What the directories of a TIFF file hold."""

    numbers: list[int]
    """Those of the pages, among all directories."""
    notes: Notes
    """What is not read."""


def find_pages(file: BinaryIO) -> Pages:
    """Tell pages from reduced copies of them and from masks, which are left out."""
    with extra("tools"):
        import tifffile
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        kinds = [int(page.tags.valueof(SUBFILE_TYPE, 0)) for page in cast("Any", tiff.pages)]
    numbers = [number for number, kind in enumerate(kinds) if not kind & (REDUCED | MASK)]
    notes = []
    if not numbers:
        numbers = [0]
        notes.append("holds nothing but a reduced copy of its picture, which is read")
        kinds = kinds[1:]
    reduced, masks = (sum(bool(kind & bit) for kind in kinds) for bit in (REDUCED, MASK))
    if reduced:
        notes.append(f"has {reduced} reduced {'copy' if reduced == 1 else 'copies'} of its picture, left out")
    if masks:
        notes.append(f"has {masks} transparency mask{'' if masks == 1 else 's'}, left out")
    return Pages(numbers, tuple(notes))


def decode_tiff(file: BinaryIO, page: int = 0) -> Samples:
    """Read the page of a number among all directories.

    Raises:
        ValueError: its samples are neither 8 nor 16 bits wide, or it is damaged; or other errors of the decoders.
    """
    deep = _decode_deep(file, page)
    if deep is None:
        with extra("tools"):
            from PIL import Image
        file.seek(0)
        with Image.open(file) as image:
            image.seek(page)
            array, profile = array_of(image), profile_of(image)
    else:
        array, profile = deep
    found = find_metadata(file, page=page)
    # Pillow turns TIFF upright by itself.
    array = array if deep is None else upright(array, found.orientation)
    return Samples(array, profile, found.metadata, found.damaged, found.orientation)


def _decode_deep(file: BinaryIO, number: int) -> tuple[Array, bytes | None] | None:
    """Read the samples and the profile of a page of 16-bit samples, as it lies in the file.

    Returns:
        None for up to 8 bits, of which Pillow reads more variants.
    """
    with extra("tools"):
        import tifffile
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[number]
        # Pillow does not know the big-endian kind of files above 4 GiB.
        if page.bitspersample < 8 or (page.bitspersample == 8 and not tiff.is_bigtiff):
            return None
        if page.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"its samples are {page.bitspersample}-bit {page.dtype}; 8 and 16-bit whole numbers are allowed"
            )
        array = np.atleast_3d(page.asarray())
        if page.samplesperpixel > 1 and page.planarconfig == 2:  # one plane after the other
            array = np.moveaxis(array, 0, -1)
        photometric = page.photometric.name
        largest = np.iinfo(array.dtype).max
        if photometric == "PALETTE":
            array = np.moveaxis(page.colormap[:, array[:, :, 0]], 0, -1)
        elif photometric == "MINISWHITE":
            array = np.concatenate([largest - array[:, :, :1], array[:, :, 1:]], axis=2)
        elif photometric not in ("MINISBLACK", "RGB"):
            raise ValueError(f"its colours are {photometric}; gray, palette and RGB are allowed at 16 bits")
        colours = 3 if photometric in ("RGB", "PALETTE") else 1
        fourth = page.extrasamples[0].name if page.extrasamples else "UNSPECIFIED"
        array = array[:, :, : colours + (fourth in ("UNASSALPHA", "ASSOCALPHA"))]
        if fourth == "ASSOCALPHA":
            array = _unassociated(array)
        return array, page.iccprofile or None


def _unassociated(array: Array) -> Array:
    """Divide the colors by the alpha that they were multiplied with."""
    largest = np.iinfo(array.dtype).max
    alpha = array[:, :, -1:].astype(np.float64)
    colors = np.divide(array[:, :, :-1] * float(largest), alpha, out=np.zeros(array[:, :, :-1].shape), where=alpha > 0)
    parts = [np.minimum(np.rint(colors), largest).astype(array.dtype), array[:, :, -1:]]
    return cast("Array", np.concatenate(parts, axis=2))


def write_pages(file: BinaryIO, pages: Iterable[Samples]) -> Notes:
    """Write pages one by one, each with what belongs to it; they may differ in size, channels and depth."""
    empty = True
    for page in pages:
        _append_page(file, page, first=empty)
        empty = False
    if empty:
        raise ValueError("frames: there is none; expected at least one.")
    return ()


def encode_tiff(file: BinaryIO, samples: Samples) -> Notes:
    """Write a TIFF file of one page; `file` is open for reading too."""
    return write_pages(file, [samples])


def _append_page(file: BinaryIO, samples: Samples, *, first: bool) -> None:
    with extra("tools"):
        import tifffile
    channels = samples.array.shape[2]
    metadata = samples.metadata
    exif = open_exif(metadata.exif)
    file.seek(0)
    tifffile.imwrite(
        file,
        samples.array if channels > 1 else samples.array[:, :, 0],
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        iccprofile=samples.icc_profile,
        metadata=None,
        append=not first,
        # So that the values of EXIF can be copied as they are.
        byteorder=exif.order if exif.main and first else None,
        resolution=metadata.resolution,
        resolutionunit=None if metadata.resolution is None else "INCH",
    )
    if exif.main or metadata.xmp is not None:
        exif.append_to(file, metadata.xmp)
