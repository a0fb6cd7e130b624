"""Lists of the keys nearest by their numbers, while the guided search goes on.

An entry is one whole number, so that comparing entries compares distances, then positions: squared distance (29 bits),
framed position (31 bits), scan in which it entered (3 bits; an entry that differs in these only is the same match).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.aligned import aligned_array
from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.constraints import admissible, conflicting
from patchattn.kernels.cpu.frame import unframed
from patchattn.kernels.cpu.leaf_vectors import LANES, at_most, first_bit, insert_sorted, leaf_distances
from patchattn.kernels.parameters import (
    COMPONENTS_PER_GROUP,
    DISTANCE_SHIFT,
    EMPTY,
    POSITION_MASK,
    POSITION_SHIFT,
)

__all__ = ["measure_leaf", "new_lists", "offer", "offer_measured", "position_in"]


def new_lists(queries: int, length: int) -> NDArray[np.int64]:
    """Lists of `length` entries, a multiple of LANES, for so many queries; flat and aligned, not filled."""
    return aligned_array(queries * length, np.int64)


@inlined
def position_in(entry: int) -> int:
    """The framed position of an entry."""
    return (entry >> POSITION_SHIFT) & POSITION_MASK


@inlined
def offer(
    leaf: int, i: int, scan: int, numbers: Any, at: int, width: int, table: Any, members: Any, lists: Any, start: int,
    length: int, frame: Any, patches: Any, limits: Any, distances: Any,
) -> None:  # fmt: skip
    """Put the admissible keys of a leaf into the list of query i, if they are near enough."""
    measure_leaf(leaf, numbers, at, width, table, distances, 0)
    offer_measured(leaf, i, scan, distances, 0, members, lists, start, length, frame, patches, limits)


@inlined
def measure_leaf(leaf: int, numbers: Any, at: int, width: int, table: Any, distances: Any, d_at: int) -> None:
    """Write the distances of a leaf's keys to `distances[d_at]` and what follows."""
    leaf_distances(table, leaf * LANES * width, numbers, at, width // COMPONENTS_PER_GROUP, distances, d_at)


@inlined
def offer_measured(
    leaf: int, i: int, scan: int, distances: Any, d_at: int, members: Any, lists: Any, start: int, length: int,
    frame: Any, patches: Any, limits: Any,
) -> None:  # fmt: skip
    """`offer` for a leaf whose distances are there already."""
    near = at_most(distances, d_at, lists[start + length - 1] >> DISTANCE_SHIFT)
    while near != 0:
        lane = first_bit(near)
        near &= near - 1
        position = np.int64(members[leaf * LANES + lane])
        entry = (distances[d_at + lane] << DISTANCE_SHIFT) | (position << POSITION_SHIFT) | scan
        limited = limits.is_causal or limits.has_window
        if limited and not admissible(i, unframed(position, frame), members[:0], patches, limits):
            continue
        if limits.separated and not _make_room(entry, lists, start, length, frame, patches, limits):
            continue
        insert_sorted(lists, start, length // LANES, entry)


@inlined
def _make_room(entry: int, lists: Any, start: int, length: int, frame: Any, patches: Any, limits: Any) -> bool:
    """Remove entries that are farther than a new one and come too near to it; False, and no change, if one is not."""
    for at in range(start, start + length):
        other = lists[at]
        if other >= entry:
            break
        if _conflicting(entry, other, frame, patches, limits):
            return False
    kept = start
    for at in range(start, start + length):
        other = lists[at]
        if other == EMPTY:
            break
        if other < entry or not _conflicting(entry, other, frame, patches, limits):
            lists[kept] = other
            kept += 1
    for at in range(kept, start + length):
        lists[at] = EMPTY
    return True


@inlined
def _conflicting(entry: int, other: int, frame: Any, patches: Any, limits: Any) -> bool:
    a, b = position_in(entry), position_in(other)
    n_t, n_y, n_x = max(1, limits.separation[0]), max(1, limits.separation[1]), max(1, limits.separation[2])
    if abs(a - b) > (n_t - 1) * frame.plane + (n_y - 1) * frame.row + n_x - 1:
        return False
    return conflicting(unframed(a, frame), unframed(b, frame), patches, limits)
