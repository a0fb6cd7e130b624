"""The keys that earlier runs took for each query: SCRAM's `is_index_valid` (Algorithm 1), at constant cost.

Keys lie in cells as wide as the separation, so that a cell holds at most one of a query's keys, and what comes too near
to a key lies in its cell or in one beside it. A hash table of each query says in which cells it took one: a lookup
costs the same however many there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.constraints import Limits, conflicting
from patchattn.kernels.cpu.grid import place_in
from patchattn.kernels.cpu.patch_similarity import CHUNK, Patches
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.random import mix

__all__ = ["NOTHING_TAKEN", "Taken", "is_valid", "new_taken", "take"]


class Taken(NamedTuple):
    cells: NDArray[np.int64]
    """The hash tables, of a power of two slots each: the number of a cell, -1 for none."""
    keys: NDArray[np.int32]
    """The key taken there."""
    slots: int


NOTHING_TAKEN = Taken(np.empty(0, np.int64), np.empty(0, np.int32), 0)


def new_taken(count: int, k: int) -> Taken:
    """Tables for k keys of each query, at most half full."""
    slots = 1 << (2 * k - 1).bit_length()
    return Taken(np.full(count * slots, -1, np.int64), np.empty(count * slots, np.int32), slots)


def take(taken: Taken, index: NDArray[np.int32], patches: Patches, limits: Limits) -> None:
    """Enter one key of each query (-1: none)."""
    run_ranges(_take_range, index.size, CHUNK, index, taken, patches, limits)


@kernel()
def _take_range(low: int, high: int, index: Any, taken: Any, patches: Any, limits: Any) -> None:
    cells, keys, slots = taken.cells, taken.keys, taken.slots
    for i in range(low, high):
        j = np.int64(index[i])
        if j >= 0:
            t, y, x = place_in(j, patches)
            n_t, n_y, n_x = _cell_size(limits)
            cell = _number_of(t // n_t, y // n_y, x // n_x, patches)
            at = np.int64(mix(np.uint32(cell))) & (slots - 1)
            while cells[i * slots + at] >= 0:
                at = (at + 1) & (slots - 1)
            cells[i * slots + at] = cell
            keys[i * slots + at] = j


@inlined
def is_valid(i: int, j: int, taken: Any, patches: Any, limits: Any) -> bool:
    """Whether key j is none of the keys taken for query i, nor too near to one."""
    cells, keys, slots = taken.cells, taken.keys, taken.slots
    if slots == 0:
        return True
    t, y, x = place_in(j, patches)
    n_t, n_y, n_x = _cell_size(limits)
    # With cells of one key there is nothing beside a key that could be too near.
    d_t, d_y, d_x = min(n_t - 1, 1), min(n_y - 1, 1), min(n_x - 1, 1)
    valid = True
    for c_t in range(max(t // n_t - d_t, 0), t // n_t + d_t + 1):
        for c_y in range(max(y // n_y - d_y, 0), y // n_y + d_y + 1):
            for c_x in range(max(x // n_x - d_x, 0), x // n_x + d_x + 1):
                cell = _number_of(c_t, c_y, c_x, patches)
                at = np.int64(mix(np.uint32(cell))) & (slots - 1)
                while cells[i * slots + at] >= 0:
                    if cells[i * slots + at] == cell:
                        valid &= not conflicting(j, np.int64(keys[i * slots + at]), patches, limits)
                        break
                    at = (at + 1) & (slots - 1)
    return valid


@inlined
def _cell_size(limits: Any) -> tuple[int, int, int]:
    s = limits.separation
    return max(s[0], 1), max(s[1], 1), max(s[2], 1)


@inlined
def _number_of(c_t: int, c_y: int, c_x: int, patches: Any) -> int:
    """One beyond the last cell of a row or column is a cell of its own, not the first of the next."""
    return (c_t * (patches.k_h + 1) + c_y) * (patches.k_w + 1) + c_x
