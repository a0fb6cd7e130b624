"""TIFF files to and from arrays of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra
from patchattn.tasks.codecs.samples import Array, Samples
from patchattn.tasks.metadata import open_exif

__all__ = ["TIFF_SIGNATURES", "decode_deep_tiff", "encode_tiff"]

TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def decode_deep_tiff(path: Path) -> tuple[Array, bytes | None] | None:
    """Read the samples and the profile of the first page of a TIFF of 16-bit samples, as it lies in the file.

    Returns:
        None for up to 8 bits, of which Pillow reads more variants.
    """
    with extra("tools"):
        import tifffile
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        if page.bitspersample <= 8:
            return None
        if page.bitspersample != 16 or page.dtype != np.uint16:
            raise ValueError(
                f"its samples are {page.bitspersample}-bit {page.dtype}; 8 and 16-bit whole numbers are allowed"
            )
        array = np.atleast_3d(page.asarray())
        if page.samplesperpixel > 1 and page.planarconfig == 2:  # one plane after the other
            array = np.moveaxis(array, 0, -1)
        photometric = page.photometric.name
        if photometric == "PALETTE":
            array = np.moveaxis(page.colormap[:, array[:, :, 0]], 0, -1)
        elif photometric == "MINISWHITE":
            array = np.concatenate([65535 - array[:, :, :1], array[:, :, 1:]], axis=2)
        elif photometric not in ("MINISBLACK", "RGB"):
            raise ValueError(f"its colours are {photometric}; gray, palette and RGB are allowed at 16 bits")
        colours = 3 if photometric in ("RGB", "PALETTE") else 1
        fourth = page.extrasamples[0].name if page.extrasamples else "UNSPECIFIED"
        array = array[:, :, : colours + (fourth in ("UNASSALPHA", "ASSOCALPHA"))]
        if fourth == "ASSOCALPHA":
            array = _unassociated(array)
        return array, page.iccprofile or None


def _unassociated(array: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Divide the colours by the alpha that they were multiplied with."""
    alpha = array[:, :, -1:].astype(np.float64)
    colours = np.divide(array[:, :, :-1] * 65535.0, alpha, out=np.zeros(array[:, :, :-1].shape), where=alpha > 0)
    return np.concatenate([np.minimum(np.rint(colours), 65535).astype(np.uint16), array[:, :, -1:]], axis=2)


def encode_tiff(file: BinaryIO, samples: Samples) -> None:
    """Write a TIFF file; `file` is open for reading too."""
    with extra("tools"):
        import tifffile
    channels = samples.array.shape[2]
    metadata = samples.metadata
    exif = open_exif(metadata.exif)
    tifffile.imwrite(
        file,
        samples.array if channels > 1 else samples.array[:, :, 0],
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        iccprofile=samples.icc_profile,
        metadata=None,
        # So that the values of EXIF can be copied as they are.
        byteorder=exif.order if exif.main else None,
        resolution=metadata.resolution,
        resolutionunit=None if metadata.resolution is None else "INCH",
    )
    if exif.main or metadata.xmp is not None:
        exif.append_to(file, metadata.xmp)
