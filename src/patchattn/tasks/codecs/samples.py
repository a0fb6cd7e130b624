"""The samples of an image file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from patchattn.tasks.codecs.color_chunks import NO_COLOR_CHUNKS, ColorChunks
from patchattn.tasks.metadata import NO_METADATA, Metadata

__all__ = ["Array", "Notes", "Samples", "scaled"]

Array = NDArray[np.uint8] | NDArray[np.uint16]

Notes = tuple[str, ...]
"""Notes on what was left out or converted, each continuing a sentence that starts with the file's name."""


@dataclass(frozen=True)
class Samples:
    """Decoded samples of an image file, upright, with its metadata."""

    array: Array
    """(height, width, channels), uint8 or uint16; 1 channel: gray, 2: gray and alpha, 3: RGB, 4: RGB and alpha."""
    icc_profile: bytes | None = None
    metadata: Metadata = NO_METADATA
    color_chunks: ColorChunks = NO_COLOR_CHUNKS
    damaged: tuple[str, ...] = ()
    """Metadata that could not be read completely."""
    orientation: int = 1
    """EXIF orientation that was applied."""
    notes: Notes = ()
    """Notes on what was left out or converted."""


def scaled(array: NDArray[Any], largest: int) -> Array:
    """Rescale samples in [0, `largest`] to 8 bits, or to 16 where `largest` exceeds 255."""
    dtype, full = (np.uint8, 255) if largest < 256 else (np.uint16, 65535)
    numbers = array if largest == full else np.rint(array.astype(np.float64) * full / largest)
    return cast("Array", numbers.astype(dtype))
