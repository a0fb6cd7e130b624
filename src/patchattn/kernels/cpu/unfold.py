"""Patches of chosen positions, written out as rows (for samples and blocks; never for a whole image)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.patch_similarity import CHUNK, offset_of
from patchattn.kernels.cpu.pool import run_ranges

__all__ = ["unfold"]


def unfold(
    positions: NDArray[np.int64], image: NDArray[Any], factors: NDArray[Any], patches: Any, is_key: bool, output: Any
) -> None:
    """Write the patches at flat positions to the rows of `output`, times `factors[position]` unless that is empty."""
    run_ranges(_unfold_range, positions.size, CHUNK, positions, image, factors, patches, is_key, output)


@kernel()
def _unfold_range(
    low: int, high: int, positions: Any, image: Any, factors: Any, patches: Any, is_key: bool, output: Any
) -> None:
    p = patches
    height, width, slice_step, row_step = p.q_h, p.q_w, p.q_slice, p.q_row
    if is_key:
        height, width, slice_step, row_step = p.k_h, p.k_w, p.k_slice, p.k_row
    for n in range(low, high):
        start = offset_of(positions[n], height, width, slice_step, row_step, p.channels)
        factor = output.dtype.type(1)
        if factors.size > 0:
            factor = factors[positions[n]]
        at = 0
        for a in range(p.slices):
            for b in range(p.rows):
                row = start + a * slice_step + b * row_step
                for c in range(p.length):
                    output[n, at] = image[row + c] * factor
                    at += 1
