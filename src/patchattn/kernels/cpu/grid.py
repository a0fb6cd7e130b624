"""The sizes of a query and a key without their features: all that positions need."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.padded_image import three

__all__ = ["Grid", "grid_of", "place_in"]


class Grid(NamedTuple):
    """Named as in `Patches`, which the functions of `constraints.py` take as well."""

    q_t: int
    q_h: int
    q_w: int
    k_t: int
    k_h: int
    k_w: int


def grid_of(query_shape: tuple[int, ...], key_shape: tuple[int, ...]) -> Grid:
    return Grid(*three(query_shape, 1), *three(key_shape, 1))


@inlined
def place_in(j: int, grid: Any) -> tuple[int, int, int]:
    """The coordinates of a key position (`grid`: a `Grid` or `Patches`)."""
    row = np.int64(np.uint32(j) // np.uint32(grid.k_w))
    x = j - row * grid.k_w
    t = np.int64(0)
    if grid.k_t > 1:
        t = np.int64(np.uint32(row) // np.uint32(grid.k_h))
    return t, row - t * grid.k_h, x
