"""Lists of guided search: keys ranked by the squared distance of their components.

An entry is one integer, so that comparing entries compares distances, then positions: squared distance (29 bits),
framed position (31 bits), scan in which it entered (3 bits; an entry that differs in these only is the same match).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.aligned import LINE, aligned_array
from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.constraints import Limits, conflicting, offset_window
from patchattn.kernels.cpu.frame import Frame, framed, unframed
from patchattn.kernels.cpu.leaf_vectors import LANES, at_most, first_bit, insert_sorted, leaf_distances, prefetch
from patchattn.kernels.cpu.list_vectors import farthest_of_least, forbid_outside, has_twins, keep_near, merge_sorted
from patchattn.kernels.cpu.patch_similarity import Patches
from patchattn.kernels.cpu.tree import Tree
from patchattn.kernels.parameters import (
    COMPONENTS_PER_GROUP,
    DISTANCE_SHIFT,
    EMPTY,
    POSITION_MASK,
    POSITION_SHIFT,
)

__all__ = [
    "Slab",
    "Workspace",
    "bounds_of",
    "fetch_leaf",
    "new_lists",
    "offer",
    "offer_leaves",
    "position_in",
    "workspace",
]


TRIALS = 32
"""Random keys that are tried at once, at most: one for each bit of the image's longest side."""


class Slab(NamedTuple):
    """Some queries of an item that are searched together, and their lists."""

    first: int
    """Position of the first query; the others follow."""
    components: NDArray[np.int16]
    """Components of the queries' patches, `width` for each."""
    width: int
    tree: Tree
    frame: Frame
    entries: NDArray[np.int64]
    """The lists, `length` entries for each."""
    length: int
    patches: Patches
    limits: Limits
    query_mask: NDArray[np.bool_]


def new_lists(queries: int, length: int) -> NDArray[np.int64]:
    """Lists of `length` entries, a multiple of LANES, for so many queries; flat and aligned, not filled."""
    return aligned_array(queries * length, np.int64)


@inlined
def position_in(entry: int) -> int:
    """The framed position of an entry."""
    return (entry >> POSITION_SHIFT) & POSITION_MASK


class Workspace(NamedTuple):
    """Arrays of one thread that offers some leaves at once."""

    distances: NDArray[np.int64]
    near: NDArray[np.int64]
    """Entries of the keys that are near enough."""
    saved: NDArray[np.int64]
    """The list as it was."""
    trials: NDArray[np.int32]
    """Leaves of random keys."""


def workspace(leaves: int, length: int) -> Workspace:
    """Room for up to so many leaves, and for a list."""
    entries = max(leaves, TRIALS) * LANES
    return Workspace(
        aligned_array(entries, np.int64), np.empty(entries + LANES, np.int64), np.empty(length, np.int64),
        np.empty(TRIALS, np.int32),
    )  # fmt: skip


@inlined
def bounds_of(n: int, slab: Any) -> tuple[int, int, int, int, int, int, int]:
    """The framed coordinates that the n-th query of a slab may reach, and the last framed position."""
    i, frame, p, limits = slab.first + n, slab.frame, slab.patches, slab.limits
    t0, t1, y0, y1, x0, x1 = offset_window(i, p, limits)
    last = np.int64(frame.total)
    if limits.is_causal:
        last = min(i - limits.lag, np.int64(p.k_t * p.k_h * p.k_w) - 1)
        if last >= 0:
            last = framed(last, frame)
    return (
        t0 + frame.margin_t, t1 + frame.margin_t, y0 + frame.margin_y, y1 + frame.margin_y, x0 + frame.margin_x,
        x1 + frame.margin_x, last,
    )  # fmt: skip


@inlined
def offer(leaf: int, n: int, scan: int, slab: Any, within: Any, work: Any) -> None:
    """Put the keys of a leaf that are `within` the bounds (`bounds_of`) into the list of the n-th query of a slab, if
    they are near enough.
    """
    _measure_leaf(leaf, n, slab, within, work.distances, 0)
    _offer_one_by_one(leaf, n, scan, slab, work.distances, 0)


@inlined
def offer_leaves(
    leaves: Any, first: int, count: int, ahead: int, ahead_end: int, n: int, scan: int, slab: Any, within: Any,
    work: Any,
) -> None:  # fmt: skip
    """`offer` the leaves at `leaves[first:count]`; those at `leaves[ahead:ahead_end]` are needed next.

    All are measured before the first is offered: so the processor need not wait for what a list takes to know the next.
    Fetching takes turns with measuring, since a processor stops at more lines under way than it can keep track of.
    """
    for m in range(first, count):
        if ahead < ahead_end:
            fetch_leaf(np.int64(leaves[ahead]), slab)
            ahead += 1
        _measure_leaf(np.int64(leaves[m]), n, slab, within, work.distances, (m - first) * LANES)
    for m in range(ahead, ahead_end):
        fetch_leaf(np.int64(leaves[m]), slab)
    if slab.limits.separated:
        for m in range(first, count):
            _offer_one_by_one(np.int64(leaves[m]), n, scan, slab, work.distances, (m - first) * LANES)
    else:
        _offer_together(leaves, first, count, n, scan, slab, work)


@inlined
def fetch_leaf(leaf: int, slab: Any) -> None:
    """Ask for a leaf ahead of its use."""
    for number in range(0, slab.width * LANES, LINE // 2):
        prefetch(slab.tree.table, leaf * LANES * slab.width + number)
    prefetch(slab.tree.members, leaf * LANES)


@inlined
def _measure_leaf(leaf: int, n: int, slab: Any, within: Any, distances: Any, d_at: int) -> None:
    """Write the distances of a leaf's keys to `distances[d_at]` and what follows; FORBIDDEN: it is out of bounds."""
    width, table, components = slab.width, slab.tree.table, slab.components
    leaf_distances(table, leaf * LANES * width, components, n * width, width // COMPONENTS_PER_GROUP, distances, d_at)
    if slab.limits.is_causal or slab.limits.has_window:
        forbid_outside(distances, d_at, slab.tree.members, leaf * LANES, within, slab.frame.rows, slab.frame.row)


@inlined
def _offer_together(leaves: Any, first: int, count: int, n: int, scan: int, slab: Any, work: Any) -> None:
    """Merge the keys of measured leaves into a list: whichever are near enough, without a branch on any of them."""
    lists, start, length = slab.entries, n * slab.length, slab.length
    vectors, near = length // LANES, work.near
    limit = lists[start + length - 1] >> DISTANCE_SHIFT
    if vectors == 1:
        limit = farthest_of_least(work.distances, count - first, limit)
    kept = np.int64(0)
    for m in range(first, count):
        at = np.int64(leaves[m]) * LANES
        kept = keep_near(work.distances, (m - first) * LANES, slab.tree.members, at, limit, scan, near, kept)
    if kept == 0:
        return
    for m in range(LANES):
        near[kept + m] = EMPTY
    for m in range(length):
        work.saved[m] = lists[start + m]
    for m in range(0, kept, LANES):
        merge_sorted(lists, start, vectors, near, m)
    if has_twins(lists, start, vectors):  # a leaf was offered twice, which is rare: each key enters once
        for m in range(length):
            lists[start + m] = work.saved[m]
        for m in range(kept):
            insert_sorted(lists, start, vectors, near[m])


@inlined
def _offer_one_by_one(leaf: int, n: int, scan: int, slab: Any, distances: Any, d_at: int) -> None:
    """Insert the keys of a measured leaf: where others may have to make way, or where it is one leaf."""
    start, length = n * slab.length, slab.length
    lists, members, frame, patches, limits = slab.entries, slab.tree.members, slab.frame, slab.patches, slab.limits
    near = at_most(distances, d_at, lists[start + length - 1] >> DISTANCE_SHIFT)
    while near != 0:
        lane = first_bit(near)
        near &= near - 1
        position = np.int64(members[leaf * LANES + lane])
        entry = (distances[d_at + lane] << DISTANCE_SHIFT) | (position << POSITION_SHIFT) | scan
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
