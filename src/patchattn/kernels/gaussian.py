"""Streams of the samplers' random numbers, and the Gaussian around a mode, which all backends share."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHAIN_STREAM", "MIXTURE_STREAM", "gaussian_weights"]

MIXTURE_STREAM, CHAIN_STREAM = 0xFFFFFFFF, 0xFFFFFFFE
"""Streams of the samplers' random numbers. A search puts the number of its iteration there, so none is used twice."""


def gaussian_weights(scale: float) -> NDArray[np.int64]:
    """The Gaussian of length-scale `scale` at the offsets -r ... r, r = ceil(4 scale), as integers.

    Sums of integers are exact: a draw has exactly the probability that the density says, and is the same in every
    backend. All weights together stay below 2^31.
    """
    radius = ceil(4 * scale)
    offset = np.arange(-radius, radius + 1)
    peak = min(2.0**20, 2.0**31 / (2.6 * scale + 1))
    return np.maximum(np.rint(peak * np.exp(-0.5 * (offset / scale) ** 2)), 1).astype(np.int64)
