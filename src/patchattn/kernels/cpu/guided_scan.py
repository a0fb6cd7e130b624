"""Scans of guided search: each query looks where the neighbors visited before it found matches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.candidates import draw_near, reach
from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.frame import MAX_LINE_DISTANCE, framed, unframed
from patchattn.kernels.cpu.grid import place_in
from patchattn.kernels.cpu.random import mix
from patchattn.kernels.cpu.ranked import bounds_of, fetch_leaf, offer_leaves, position_in
from patchattn.kernels.parameters import EMPTY, LATEST_SCAN, MASKED_NEIGHBOR_DISTANCE

__all__ = ["ROWS_AT_ONCE", "SEEN", "Scan", "scan_of", "scan_range"]

SEEN = 1024
"""Leaves that a query remembers having looked at."""
ROWS_AT_ONCE = 4
"""Rows that are visited side by side."""


class Scan(NamedTuple):
    """One scan."""

    before: NDArray[np.int64]
    """The lists before the scan, which other bands see: `edge` entries on either side of each boundary between bands,
    or all if `edge` is 0."""
    edge: int
    band: int
    """Queries of a band."""
    side: int
    """Side of the neighbors visited before: -1 if the scan goes from first to last, else 1."""
    stamp: int
    """Its number, as entries are marked with it."""
    since: int
    """Entries of a neighbor that are older have been tried: in the scan before the last, on this side."""
    since_outside: int
    """`since` for neighbors in other bands."""


def scan_of(number: int, before: NDArray[np.int64], edge: int, band: int) -> Scan:
    """Return the scan of that number, from 1: odd ones go from first to last."""
    since, since_outside = min(number - 1, LATEST_SCAN), min(number - 2, LATEST_SCAN)
    if number < 3:
        since, since_outside = 0, 0
    return Scan(before, edge, band, -1 if number % 2 else 1, min(number, LATEST_SCAN), since, since_outside)


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
def _gather(n: int, first: int, low: int, high: int, slab: Any, scan: Any, seen: Any, candidates: Any) -> int:
    """Write to `candidates[first:]` the leaves that the neighbors of query n point to; where they end.

    Directions are t, y and x; in one dimension they are distances, the nearest last.
    """
    p, limits, frame = slab.patches, slab.limits, slab.frame
    side, length, query_mask = scan.side, slab.length, slab.query_mask
    i = slab.first + n
    if query_mask.size > 0 and not query_mask[i]:
        return first
    _skip_own_leaves(n, slab, seen)
    row = np.int64(np.uint32(i) // np.uint32(p.q_w))
    x = i - row * p.q_w
    t = np.int64(np.uint32(row) // np.uint32(p.q_h))
    y = row - t * p.q_h
    queries = slab.entries.size // length
    count = first
    for direction in range(3):
        at, size, step, shift = x, p.q_w, 1, 1
        if limits.dims > 1 and direction == 0:
            at, size, step, shift = t, p.q_t, p.q_h * p.q_w, frame.plane
        elif limits.dims > 1 and direction == 1:
            at, size, step, shift = y, p.q_h, p.q_w, frame.row
        distance = MAX_LINE_DISTANCE >> direction if limits.dims == 1 else 1
        if limits.dims > 1 and query_mask.size > 0 and 0 <= at + side < size and not query_mask[i + side * step]:
            distance = MASKED_NEIGHBOR_DISTANCE
        neighbor = n + side * distance * step
        if not 0 <= at + side * distance < size or not 0 <= neighbor < queries:
            continue
        inside = low <= neighbor < high
        oldest = scan.since if inside else scan.since_outside
        start = neighbor * length
        if not inside and scan.edge > 0:
            boundary = low if side < 0 else high
            start += (2 * (boundary // scan.band) - 1) * scan.edge - boundary * length
        for m in range(start, start + length):
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
    return count


@kernel()
def scan_range(
    low: int, high: int, slab: Any, scan: Any, key_of_draws: Any, work: Any, seen: Any, candidates: Any, ends: Any
) -> None:
    """Visit the queries of a band in order (or against it): look where the neighbors visited before found matches.

    Some rows are visited side by side, each a step behind the one before it, so that the neighbors of a query are
    visited before it as if rows came one after the other. So it is known some visits ahead where a query will look, and
    its leaves are fetched from memory while the query before it is measured.
    """
    for m in range(SEEN):
        seen[m] = -1
    side, width = scan.side, min(slab.patches.q_w, high - low)
    rows = (high - low) // width
    room = candidates.size // ROWS_AT_ONCE
    for top in range(0, rows, ROWS_AT_ONCE):
        side_by_side = min(ROWS_AT_ONCE, rows - top)
        for r in range(side_by_side):
            ends[r] = r * room
        for step in range(width + side_by_side - 1):
            last = min(step, side_by_side - 1)
            for r in range(max(step - width + 1, 0), last + 1):
                x = step - r
                visit = (top + r) * width + x
                n = low + visit if side < 0 else high - 1 - visit
                if x == 0:
                    ends[r] = _gather(n, r * room, low, high, slab, scan, seen, candidates)
                then = r + 1 if r < last else max(step - width + 2, 0)
                ahead = then if then < side_by_side else r
                _visit(n, r * room, ends[r], ahead * room, ends[ahead], slab, scan, key_of_draws, work, candidates)
                if x + 1 < width:
                    ends[r] = _gather(n - side, r * room, low, high, slab, scan, seen, candidates)


@inlined
def _visit(
    n: int, first: int, end: int, ahead: int, ahead_end: int, slab: Any, scan: Any, key_of_draws: Any, work: Any,
    candidates: Any,
) -> None:  # fmt: skip
    """Offer query n the leaves at `candidates[first:end]`; those at `candidates[ahead:ahead_end]` come next."""
    p, limits, frame = slab.patches, slab.limits, slab.frame
    i = slab.first + n
    if slab.query_mask.size > 0 and not slab.query_mask[i]:
        return
    within = bounds_of(n, slab)
    offer_leaves(candidates, first, end, ahead, ahead_end, n, scan.stamp, slab, within, work)
    if limits.has_window or limits.is_causal:
        # The tree knows nothing of these limits: search at random around the best match as well.
        best = slab.entries[n * slab.length]
        if best == EMPTY:
            return
        j = unframed(position_in(best), frame)
        j_t, j_y, j_x = place_in(j, p)
        limit = reach(i, p, limits)
        own_draws = mix(np.uint32(key_of_draws ^ np.uint32(i)))
        draws, leaves = 0, work.trials
        found = 0
        radius = max(p.k_t, p.k_h, p.k_w)
        while radius >= 1:
            c_t, c_y, c_x = draw_near(own_draws, draws, j_t, j_y, j_x, radius, limit, limits.dims)
            leaf = np.int64(slab.tree.leaf_of[framed((c_t * p.k_h + c_y) * p.k_w + c_x, frame)])
            draws += 1
            radius //= 2
            if leaf >= 0:
                fetch_leaf(leaf, slab)
                leaves[found] = leaf
                found += 1
        offer_leaves(leaves, 0, found, 0, 0, n, scan.stamp, slab, within, work)
