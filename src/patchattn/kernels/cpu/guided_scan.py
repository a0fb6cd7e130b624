"""Scans of guided search: each query looks where the neighbors visited before it found matches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.candidates import draw_near, reach
from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.frame import MAX_LINE_DISTANCE, framed, unframed
from patchattn.kernels.cpu.grid import place_in
from patchattn.kernels.cpu.leaf_vectors import LANES, prefetch
from patchattn.kernels.cpu.random import mix
from patchattn.kernels.cpu.ranked import offer, offer_leaves, position_in
from patchattn.kernels.parameters import EMPTY, LATEST_SCAN, MASKED_NEIGHBOR_DISTANCE

__all__ = ["SEEN", "Scan", "scan_of", "scan_range"]

SEEN = 1024
"""Leaves that a query remembers having looked at."""


class Scan(NamedTuple):
    """One scan."""

    before: NDArray[np.int64]
    """The lists before the scan: other bands see these."""
    side: int
    """Side of the neighbors visited before: -1 if the scan goes from first to last, else 1."""
    stamp: int
    """Its number, as entries are marked with it."""
    since: int
    """Entries of a neighbor that are older have been tried: in the scan before the last, on this side."""
    since_outside: int
    """`since` for neighbors in other bands."""


def scan_of(number: int, before: NDArray[np.int64]) -> Scan:
    """Return the scan of that number, from 1: odd ones go from first to last."""
    since, since_outside = min(number - 1, LATEST_SCAN), min(number - 2, LATEST_SCAN)
    if number < 3:
        since, since_outside = 0, 0
    return Scan(before, -1 if number % 2 else 1, min(number, LATEST_SCAN), since, since_outside)


@inlined
def _skip_own_leaves(n: int, slab: Any, seen: Any) -> None:
    """Remember the leaves of what query n holds as seen: they were offered as wholes, and lists only improve.

    (Unless matches make way for the sake of separation.)
    """
    if slab.limits.separated:
        return
    length = slab.length
    for m in range(n * length, n * length + length):
        entry = slab.entries[m]
        if entry == EMPTY:
            break
        leaf = np.int64(slab.tree.leaf_of[position_in(entry)])
        seen[leaf & (SEEN - 1)] = (n << 32) | leaf


@inlined
def _gather(
    n: int, direction: int, end: int, count: int, low: int, high: int, slab: Any, scan: Any, seen: Any, candidates: Any
) -> int:
    """Append to `candidates[count:]` the leaves that the neighbors of query n in some directions point to.

    Directions are t, y and x; in one dimension they are distances, the nearest last.
    """
    p, limits, frame = slab.patches, slab.limits, slab.frame
    side, length, query_mask = scan.side, slab.length, slab.query_mask
    i = slab.first + n
    row = np.int64(np.uint32(i) // np.uint32(p.q_w))
    x = i - row * p.q_w
    t = np.int64(np.uint32(row) // np.uint32(p.q_h))
    y = row - t * p.q_h
    queries = scan.before.size // length
    known = count
    while direction < end:
        at, size, step, shift = x, p.q_w, 1, 1
        if limits.dims > 1 and direction == 0:
            at, size, step, shift = t, p.q_t, p.q_h * p.q_w, frame.plane
        elif limits.dims > 1 and direction == 1:
            at, size, step, shift = y, p.q_h, p.q_w, frame.row
        distance = MAX_LINE_DISTANCE >> direction if limits.dims == 1 else 1
        direction += 1
        if limits.dims > 1 and query_mask.size > 0 and 0 <= at + side < size and not query_mask[i + side * step]:
            distance = MASKED_NEIGHBOR_DISTANCE
        neighbor = n + side * distance * step
        if not 0 <= at + side * distance < size or not 0 <= neighbor < queries:
            continue
        inside = low <= neighbor < high
        oldest = scan.since if inside else scan.since_outside
        for m in range(neighbor * length, neighbor * length + length):
            entry = slab.entries[m] if inside else scan.before[m]
            if entry == EMPTY:
                break
            leaf = np.int64(slab.tree.leaf_of[position_in(entry) - side * distance * shift])
            tag = (n << 32) | leaf
            slot = leaf & (SEEN - 1)
            # Nobody foresees which leaves are new: one that is not is written all the same, and the next over it.
            held = seen[slot]
            fresh = (leaf >= 0) & ((entry & LATEST_SCAN) >= oldest) & (held != tag)
            seen[slot] = tag if fresh else held
            candidates[count] = leaf
            count += fresh
    for c in range(known, count):
        for number in range(0, slab.width * LANES, 32):
            prefetch(slab.tree.table, candidates[c] * LANES * slab.width + number)
        prefetch(slab.tree.members, candidates[c] * LANES)
    return count


@kernel()
def scan_range(
    low: int, high: int, slab: Any, scan: Any, key_of_draws: Any, work: Any, seen: Any, candidates: Any
) -> None:
    """Visit the queries of a band in order (or against it): look where the neighbors visited before found matches."""
    p, limits, frame, side = slab.patches, slab.limits, slab.frame, scan.side
    lists, length, leaf_of, query_mask = slab.entries, slab.length, slab.tree.leaf_of, slab.query_mask
    for m in range(SEEN):
        seen[m] = -1
    half = candidates.size // 2
    waiting = 0
    for visit in range(high - low):
        n = low + visit if side < 0 else high - 1 - visit
        i = slab.first + n
        start = n * length
        # What the neighbors in other rows hold is known one visit ahead: their leaves are on the way by now.
        here, ahead = (visit & 1) * half, (1 - (visit & 1)) * half
        count = waiting
        if visit == 0 or p.q_w == 1:
            _skip_own_leaves(n, slab, seen)
            count = _gather(n, 0, 2, here, low, high, slab, scan, seen, candidates)
        count = _gather(n, 2, 3, count, low, high, slab, scan, seen, candidates)
        if p.q_w > 1 and visit + 1 < high - low:
            _skip_own_leaves(n - side, slab, seen)
            waiting = _gather(n - side, 0, 2, ahead, low, high, slab, scan, seen, candidates)
        if query_mask.size > 0 and not query_mask[i]:
            continue
        offer_leaves(candidates, here, count, n, scan.stamp, slab, work)
        if limits.has_window or limits.is_causal:
            # The tree knows nothing of these limits: search at random around the best match as well.
            best = lists[start]
            if best == EMPTY:
                continue
            j = unframed(position_in(best), frame)
            j_t, j_y, j_x = place_in(j, p)
            limit = reach(i, p, limits)
            own_draws = mix(np.uint32(key_of_draws ^ np.uint32(i)))
            draws = 0
            radius = max(p.k_t, p.k_h, p.k_w)
            while radius >= 1:
                c_t, c_y, c_x = draw_near(own_draws, draws, j_t, j_y, j_x, radius, limit, limits.dims)
                leaf = np.int64(leaf_of[framed((c_t * p.k_h + c_y) * p.k_w + c_x, frame)])
                draws += 1
                radius //= 2
                if leaf >= 0:
                    offer(leaf, n, scan.stamp, slab, work)
