"""Scans of guided search: each query looks where the neighbors visited before it found matches.

A scan is one launch, with a program for each band of rows. It goes from corner to corner, visiting one query of each of
its rows at every step: those do not depend on each other. What lies in other bands is seen as it was before the scan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from patchattn.kernels.gpu.candidates import draw_near
from patchattn.kernels.gpu.constraints import chosen, reach_of
from patchattn.kernels.gpu.grid import Blocks, Extent, Queries, flatten, place_of, step_along
from patchattn.kernels.gpu.launch import block_size
from patchattn.kernels.gpu.random import own_stream
from patchattn.kernels.gpu.ranked import EMPTY, load_entries, offer_leaves, position_of, sort_entries, store_entries
from patchattn.kernels.gpu.tree import leaf_at
from patchattn.kernels.parameters import BAND_OF_LINE, BAND_ROWS, LINE_DISTANCES, MASKED_NEIGHBOR_DISTANCE

__all__ = ["Bands", "bands_of", "scan_kernel"]

MAX_LINE_DISTANCE = tl.constexpr(LINE_DISTANCES[0])
"""The others of LINE_DISTANCES are halves of it."""
FAR = tl.constexpr(MASKED_NEIGHBOR_DISTANCE)


class Bands(NamedTuple):
    """The bands of queries that a scan goes over."""

    query: Extent
    items: Any
    rows: Any
    """Rows of all slices."""
    width: Any
    """Positions of a row in one band: all of them, unless there is a single row."""
    ITEMS: Any
    """Items that a program scans side by side."""
    ROWS: Any
    """Rows of a band."""

    @property
    def grid(self) -> tuple[int, int]:
        bands = triton.cdiv(self.rows, self.ROWS.value) * triton.cdiv(self.query.x, self.width)
        return bands, triton.cdiv(self.items, self.ITEMS.value)


def bands_of(blocks: Blocks) -> Bands:
    rows = blocks.query.t * blocks.query.y
    together = tl.constexpr(block_size(1, blocks.items))
    if rows == 1:
        return Bands(blocks.query, blocks.items, 1, BAND_OF_LINE, together, tl.constexpr(1))
    return Bands(blocks.query, blocks.items, rows, blocks.query.x, together, tl.constexpr(BAND_ROWS))


@triton.jit(do_not_specialize=["side", "scan", "oldest_inside", "oldest_outside", "stream"])
def scan_kernel(
    ranked, bands, memory, before, side, scan, oldest_inside, oldest_outside, largest, scales, stream
):  # fmt: skip
    """Offer each query the leaves to which the matches of neighbors visited before point.

    `side` is where those neighbors lie: -1 in a scan that goes from first to last.
    """
    limits = ranked.limits
    extent = bands.query
    lane = tl.arange(0, bands.ITEMS * bands.ROWS)
    item = tl.program_id(1) * bands.ITEMS + lane // bands.ROWS
    per_row = tl.cdiv(extent.x, bands.width)
    first_row = (tl.program_id(0) // per_row) * bands.ROWS
    first_x = (tl.program_id(0) % per_row) * bands.width
    row = first_row + lane % bands.ROWS
    t = row // extent.y
    y = row % extent.y
    in_band = row < bands.rows
    # How far from the image's first corner a row begins.
    depth = t + y
    nearest = tl.min(tl.where(in_band, depth, 2147483647), 0)
    farthest = tl.max(tl.where(in_band, depth, 0), 0)
    width = tl.minimum(bands.width, extent.x - first_x)
    waves = farthest - nearest + width
    for step in range(waves):
        wave = step
        if side > 0:
            wave = waves - 1 - step
        x = first_x + nearest + wave - depth
        exists = in_band & (x >= first_x) & (x < first_x + width) & (item < bands.items)
        queries = Queries(exists, item, row * extent.x + x, t, y, x)
        asked = chosen(limits, queries)
        queries = Queries(asked, item, queries.flat, t, y, x)
        entries = load_entries(ranked, memory, item, queries.flat, asked)
        seen = tl.full([asked.shape[0], 4 * ranked.PLACES], -1, tl.int32)
        for dim in range(0 if limits.DIMS == 1 else 3 - limits.DIMS, 3):
            by = step_along(dim, side)
            if limits.DIMS == 1:
                by = step_along(2, side * (MAX_LINE_DISTANCE >> dim))
            neighbor = flatten(Extent(t + by.t, y + by.y, x + by.x), extent)
            by = Extent(by.t + tl.zeros_like(t), by.y + tl.zeros_like(y), by.x + tl.zeros_like(x))
            if limits.DIMS > 1 and limits.query_mask is not None:
                exists = asked & (neighbor >= 0)
                masked = exists & ~chosen(limits, Queries(exists, item, neighbor, t + by.t, y + by.y, x + by.x))
                times = tl.where(masked, FAR, 1)
                by = Extent(by.t * times, by.y * times, by.x * times)
                neighbor = flatten(Extent(t + by.t, y + by.y, x + by.x), extent)
            there = asked & (neighbor >= 0)
            their_row = neighbor // extent.x
            their_x = neighbor - their_row * extent.x
            inside = (their_row >= first_row) & (their_row < first_row + bands.ROWS)
            inside = inside & (their_x >= first_x) & (their_x < first_x + width)
            if limits.SEPARATED:
                for slot in range(ranked.LENGTH):
                    place = (item.to(tl.int64) * ranked.num_queries + neighbor) * ranked.LENGTH + slot
                    theirs = tl.load(memory + place, mask=there & inside, other=EMPTY)
                    theirs = tl.load(before + place, mask=there & ~inside, other=theirs)
                    leaf = _moved_leaf(ranked, item, theirs, by, inside, oldest_inside, oldest_outside)
                    leaf, seen = _unless_seen(leaf, seen, dim * ranked.PLACES + slot)
                    entries = offer_leaves(ranked, queries, entries, leaf[:, None], scan)
            else:
                theirs = load_entries(ranked, memory, item, neighbor, there & inside)
                outside = load_entries(ranked, before, item, neighbor, there & ~inside)
                theirs = tl.where(inside[:, None], theirs, outside)
                shift = Extent(by.t[:, None], by.y[:, None], by.x[:, None])
                leaves = _moved_leaf(
                    ranked, item[:, None], theirs, shift, inside[:, None], oldest_inside, oldest_outside
                )
                entries = offer_leaves(ranked, queries, entries, leaves, scan)
        if limits.IS_CAUSAL or limits.WINDOWED:
            # The tree knows nothing of these limits: search at random around the best match as well.
            best = position_of(tl.min(entries, 1))
            center = place_of(best, limits.key)
            reach = reach_of(limits, queries)
            own = own_stream(stream, item % limits.heads, queries.flat)
            seen = tl.full([asked.shape[0], 4 * ranked.PLACES], -1, tl.int32)
            for scale in range(scales):
                number = tl.zeros_like(best) + scale * limits.DIMS
                key = draw_near(own, number, center, largest >> scale, reach, limits)
                leaf = leaf_at(ranked.tree, item, ranked.num_keys, tl.where(best >= 0, key, -1))
                if limits.SEPARATED:
                    leaf, seen = _unless_seen(leaf, seen, scale)
                entries = offer_leaves(ranked, queries, entries, leaf[:, None], scan)
        if limits.SEPARATED:
            entries = sort_entries(ranked, entries)
        store_entries(ranked, memory, item, queries.flat, asked, entries)
        # The next wave reads what this one has written.
        tl.debug_barrier()


@triton.jit
def _moved_leaf(ranked, item, theirs, by, inside, oldest_inside, oldest_outside):
    """The leaf of each key that a neighbor holds, moved along from there to here; -1 for what has been tried."""
    oldest = tl.where(inside, oldest_inside, oldest_outside)
    wanted = (theirs != EMPTY) & ((theirs & 7) >= oldest)
    there = place_of(position_of(theirs), ranked.limits.key)
    key = flatten(Extent(there.t - by.t, there.y - by.y, there.x - by.x), ranked.limits.key)
    return leaf_at(ranked.tree, item, ranked.num_keys, tl.where(wanted, key, -1))


@triton.jit
def _unless_seen(leaf, seen, number):
    """Drop the leaves that came before in one visit: a second offer could let in what made way in between."""
    leaf = tl.where(tl.max((seen == leaf[:, None]).to(tl.int32), 1) > 0, -1, leaf)
    return leaf, tl.where((tl.arange(0, seen.shape[1]) == number)[None, :], leaf[:, None], seen)
