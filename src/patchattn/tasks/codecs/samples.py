"""The samples of a picture file."""

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
"""What was left out or converted, each a sentence that goes on after the file's name."""


@dataclass(frozen=True)
class Samples:
    """The samples of a picture as they lie in its file, upright, and what else the file tells."""

    array: Array
    """(height, width, channels), uint8 or uint16; 1 channel: gray, 2: gray and alpha, 3: RGB, 4: RGB and alpha."""
    icc_profile: bytes | None = None
    metadata: Metadata = NO_METADATA
    color_chunks: ColorChunks = NO_COLOR_CHUNKS
    damaged: tuple[str, ...] = ()
    """What metadata could not be read, or not all of them."""
    orientation: int = 1
    """How EXIF says that the file's pixels had to be turned; they are."""
    notes: Notes = ()
    """What is left out or converted."""


def scaled(array: NDArray[Any], largest: int) -> Array:
    """Return samples from 0 to `largest` as 8 bits, or 16 where they are more, full brightness to full brightness."""
    dtype, full = (np.uint8, 255) if largest < 256 else (np.uint16, 65535)
    numbers = array if largest == full else np.rint(array.astype(np.float64) * full / largest)
    return cast("Array", numbers.astype(dtype))
