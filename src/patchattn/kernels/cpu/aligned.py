"""Arrays that begin with a cache line, so that no vector straddles two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["LINE", "aligned_array"]

LINE = 64
"""Bytes of a cache line, and of the widest vectors."""


def aligned_array(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return `count` numbers, not filled."""
    size = np.dtype(dtype).itemsize
    buffer = np.empty(count + LINE // size, dtype)
    shift = -buffer.ctypes.data % LINE // size
    return buffer[shift : shift + count]
