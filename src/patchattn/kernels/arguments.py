"""What the backends share of sampling: where its random numbers lie, and the Gaussian around a mode."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from patchattn.problem import Constraints, PatchGeometry

__all__ = ["CHAIN_STREAM", "MIXTURE_STREAM", "Constraints", "PatchGeometry", "gaussian_weights"]

MIXTURE_STREAM, CHAIN_STREAM = 0xFFFFFFFF, 0xFFFFFFFE
"""Where a search puts the number of its iteration: so samples do not repeat a search's random numbers."""


def gaussian_weights(scale: float) -> NDArray[np.int64]:
    """The Gaussian of length-scale `scale` at the offsets -r ... r, r = ceil(4 scale), as whole numbers.

    Sums of whole numbers are exact: a draw has exactly the probability that the density says, and is the same in every
    backend. All weights together stay below 2^31.
    """
    radius = ceil(4 * scale)
    offset = np.arange(-radius, radius + 1)
    peak = min(2.0**20, 2.0**31 / (2.6 * scale + 1))
    return np.maximum(np.rint(peak * np.exp(-0.5 * (offset / scale) ** 2)), 1).astype(np.int64)
