"""TIFF files to and from arrays of samples."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra
from patchattn.tasks.codecs.color_models import from_cmyk, from_lab
from patchattn.tasks.codecs.pillow import Pixels, pixels_of, upright
from patchattn.tasks.codecs.samples import Array, Notes, Samples, scaled
from patchattn.tasks.codecs.size_limits import check_extent, length_of
from patchattn.tasks.codecs.unsupported import RAW
from patchattn.tasks.metadata import find_metadata, open_exif
from patchattn.tasks.tiff_ifd import Entry, Reader, TagSelection

__all__ = ["TIFF_SIGNATURES", "decode_tiff", "encode_tiff", "find_pages", "write_pages"]

TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

# Damaged files are reported by our own messages.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

SUBFILE_TYPE, REDUCED, MASK = 254, 1, 4
"""NewSubfileType tag and its bits."""

WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES, DNG_VERSION = 256, 257, 258, 259, 277, 50706

ALWAYS_ALLOWED_BYTES = 64_000_000
"""Size of samples that is always allowed, in bytes."""
MAX_RATIO = {1: 1, 2: 25_000, 3: 25_000, 4: 25_000, 5: 1400, 7: 3072, 8: 1032, 32946: 1032, 32773: 64}
"""Highest compression ratio, by compression; those of fax (2 to 4) are by far the highest."""
MAX_RATIO_OTHERS = 3072

COLORS = {"MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "SEPARATED": 4, "CIELAB": 3, "ICCLAB": 3}
"""Number of color samples, by photometric interpretation."""


class Pages(NamedTuple):
    """Pages of a TIFF file."""

    numbers: list[int]
    """Indices of the pages among all directories."""
    notes: Notes
    """Notes on what is not read."""
    whole: bool
    """Whether all directories could be found."""


def find_pages(file: BinaryIO) -> Pages:
    """Find the pages of a TIFF file; reduced copies and masks are left out."""
    _refuse_raw(file)
    # tifffile goes round in a circle of pages for ever.
    reader = Reader(file)
    found = [reader.directory(offset, TagSelection({SUBFILE_TYPE, WIDTH})).entries for _, offset in reader.pages()]
    kinds = [_number(page.get(SUBFILE_TYPE), reader) for page in found if WIDTH in page]
    numbers = [number for number, kind in enumerate(kinds) if not kind & (REDUCED | MASK)]
    notes = []
    whole = reader.sound and len(kinds) == len(found)
    if not whole:
        notes.append(f"is damaged after page {len(numbers)}; what may follow is left out")
    if not numbers:
        numbers = [0]
        notes.append("holds nothing but a reduced copy of its image, which is read")
        kinds = kinds[1:]
    reduced, masks = (sum(bool(kind & bit) for kind in kinds) for bit in (REDUCED, MASK))
    if reduced:
        notes.append(f"has {reduced} reduced {'copy' if reduced == 1 else 'copies'} of its image, left out")
    if masks:
        notes.append(f"has {masks} transparency mask{'' if masks == 1 else 's'}, left out")
    return Pages(numbers, tuple(notes), whole)


def _check_extent(file: BinaryIO, number: int) -> None:
    """Raise a ValueError if a file is too short for a page's samples at the highest compression ratio."""
    reader = Reader(file)
    places = (offset for at, (_, offset) in enumerate(reader.pages()) if at == number)
    tags = reader.directory(
        next(places, reader.first), TagSelection({WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES})
    ).entries
    width, height = (_number(tags.get(tag), reader) for tag in (WIDTH, LENGTH))
    samples, kind = (_number(tags.get(tag), reader) or 1 for tag in (SAMPLES, COMPRESSION))
    bits = int.from_bytes(tags[BITS].data[:2], "little" if reader.layout.order == "<" else "big") if BITS in tags else 1
    length = length_of(file)
    most = max(ALWAYS_ALLOWED_BYTES, length * MAX_RATIO.get(kind, MAX_RATIO_OTHERS))
    if width * height * samples * max(bits, 1) // 8 > most:
        raise ValueError(f"it says that it has {width} x {height} pixels, which its {length} bytes cannot hold")


def _number(entry: Entry | None, reader: Reader) -> int:
    return 0 if entry is None else reader.layout.number(entry.data)


def _refuse_raw(file: BinaryIO) -> None:
    with extra("tools"):
        import tifffile
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[0]
        parts = (page, *(page.pages or ()))
        if DNG_VERSION in page.tags or {"CFA", "LINEAR_RAW"} & {part.photometric.name for part in parts}:
            raise ValueError(RAW)


def decode_tiff(file: BinaryIO, page: int = 0) -> Samples:
    """Read the page at an index among all directories.

    Raises:
        ValueError: its samples are no integers of 1 to 16 bits, or it is damaged; or other errors of the decoders.
    """
    _check_extent(file, page)
    pixels = _decode_deep(file, page)
    turned = pixels is None
    if pixels is None:
        with extra("tools"):
            from PIL import Image
        length = length_of(file)
        file.seek(0)
        with Image.open(file) as image:
            image.seek(page)
            check_extent(image.size[::-1], length)
            pixels = pixels_of(image)
    found = find_metadata(file, page=page)
    # Pillow turns TIFF upright by itself.
    array = pixels.array if turned else upright(pixels.array, found.orientation)
    return Samples(
        array,
        pixels.profile,
        found.metadata,
        damaged=found.damaged,
        orientation=found.orientation,
        notes=pixels.notes,
    )


def _decode_deep(file: BinaryIO, number: int) -> Pixels | None:
    """Read a page of more than 8 bits, of L*a*b*, or of BigTIFF, as it lies in the file.

    Returns:
        None for all others, of which Pillow reads more variants.
    """
    with extra("tools"):
        import tifffile
    length = length_of(file)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[number]
        photometric = page.photometric.name
        if page.bitspersample <= 8 and not tiff.is_bigtiff and "LAB" not in photometric:
            return None
        if page.dtype not in (np.uint8, np.uint16, np.bool_) and not ("LAB" in photometric and page.dtype == np.int16):
            raise ValueError(
                f"its samples are {page.bitspersample}-bit {page.dtype}; integers of 8 and 16 bits, and fewer, "
                "are allowed: convert it first"
            )
        check_extent((page.imagelength, page.imagewidth * page.samplesperpixel), length)
        array = np.atleast_3d(page.asarray())
        if page.samplesperpixel > 1 and page.planarconfig == 2:  # one plane after the other
            array = np.moveaxis(array, 0, -1)
        return _pixels(page, array)


def _pixels(page: Any, array: NDArray[Any]) -> Pixels:
    """Return gray or RGB, with alpha if there is any, of the samples of a page."""
    photometric = page.photometric.name
    if photometric not in COLORS:
        raise ValueError(f"its colors are {photometric}; gray, palette, RGB, CMYK and L*a*b* are allowed in such files")
    colors = COLORS[photometric]
    extra_samples = [kind.name for kind in page.extrasamples or ()]
    profile = page.iccprofile or None
    notes: Notes = ()
    base = array[:, :, :colors]
    if photometric == "PALETTE":
        base = np.moveaxis(page.colormap[:, base[:, :, 0]], 0, -1)
    elif "LAB" in photometric:
        base, notes = from_lab(_lab(base, signed=photometric == "CIELAB"), base.view(f"u{base.itemsize}"))
        profile = None
    else:
        base = scaled(base, 2**page.bitspersample - 1)
        if photometric == "MINISWHITE":
            base = np.iinfo(base.dtype).max - base
        elif photometric == "SEPARATED":
            base, notes = from_cmyk(base, profile)
            profile = None
    if not extra_samples or extra_samples[0] not in ("UNASSALPHA", "ASSOCALPHA"):
        if extra_samples:
            count = len(extra_samples)
            channels = f"{count} further channels that are" if count > 1 else "1 further channel that is"
            notes = (*notes, f"has {channels} no alpha, left out")
        return Pixels(base, profile, notes)
    whole = np.concatenate([base, scaled(array[:, :, colors : colors + 1], 2**page.bitspersample - 1)], axis=2)
    return Pixels(_unassociated(whole) if extra_samples[0] == "ASSOCALPHA" else whole, profile, notes)


def _lab(array: NDArray[Any], signed: bool) -> NDArray[np.float64]:
    """Decode L*a*b* of TIFF: a* and b* are in two's complement or offset by half the range."""
    bytes_each = array.itemsize
    unit = 256.0 ** (bytes_each - 1)
    unsigned = array.view(f"u{bytes_each}").astype(np.float64)
    # ICC's 16 bits have their 100 at FF00.
    lightness = unsigned[:, :, :1] * 100 / (255 * unit if not signed else 256 * unit - 1)
    if signed:
        return np.concatenate([lightness, array.view(f"i{bytes_each}")[:, :, 1:3] / unit], axis=2)
    return np.concatenate([lightness, unsigned[:, :, 1:3] / unit - 128], axis=2)


def _unassociated(array: Array) -> Array:
    """Divide the colors by the alpha that they were multiplied with."""
    largest = np.iinfo(array.dtype).max
    alpha = array[:, :, -1:].astype(np.float64)
    colors = np.divide(array[:, :, :-1] * float(largest), alpha, out=np.zeros(array[:, :, :-1].shape), where=alpha > 0)
    parts = [np.minimum(np.rint(colors), largest).astype(array.dtype), array[:, :, -1:]]
    return cast("Array", np.concatenate(parts, axis=2))


def write_pages(file: BinaryIO, pages: Iterable[Samples]) -> Notes:
    """Write pages one by one, each with its metadata; they may differ in size, channels and depth."""
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
