"""Guided search: propagation-assisted k-d tree search.

Propagation-assisted k-d trees are He and Sun's (2012): neighbors say where to look, a k-d tree what else is there.

Patches become a few integers, their principal components (`projection.py`), keys the leaves of a tree (`tree.py`). Each
query begins with the leaf that the tree leads it to. Then scans go over the image, alternately first to last and last
to first: where the match of a neighbor that was just visited, moved along with it, lies in a leaf, all keys of that
leaf are compared (`ranked.py`). At the end each list is measured in full.

A scan is one launch, with a program for each band of rows. It goes from corner to corner, visiting one query of each of
its rows at every step: those do not depend on each other. What lies in other bands is seen as it was before the scan.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.candidates import Candidates, candidates_of, count_candidates, draw_near, nth_candidate
from patchattn.kernels.gpu.constraints import chosen, offset_window, reach_of
from patchattn.kernels.gpu.grid import (
    Blocks,
    Extent,
    Queries,
    block_of_queries,
    blocks_of,
    flatten,
    place_of,
    step_along,
)
from patchattn.kernels.gpu.launch import FEW_REGISTERS, block_size, launch
from patchattn.kernels.gpu.padded_image import compute_dtype
from patchattn.kernels.gpu.patch_similarity import WARPS, sides_of
from patchattn.kernels.gpu.patchmatch import Search, as_field, flat, offer, run, search_of
from patchattn.kernels.gpu.projection import Positions, fit_projection, project, sides_to_project
from patchattn.kernels.gpu.random import draw, own_stream, stream
from patchattn.kernels.gpu.ranked import (
    EMPTY,
    Ranked,
    load_entries,
    offer_leaves,
    position_of,
    sort_entries,
    store_entries,
)
from patchattn.kernels.gpu.topk import empty_lists, store_lists, stored
from patchattn.kernels.gpu.tree import build_tree, leaf_at, leaf_for
from patchattn.kernels.parameters import (
    BAND_OF_LINE,
    BAND_ROWS,
    DRAWS_PER_MATCH,
    LATEST_SCAN,
    LEAF_SIZE,
    LINE_DISTANCES,
    MAX_COMPONENTS,
    MAX_LISTED,
    MIN_EXPLAINED_VARIANCE,
    PATCHMATCH_ITERATIONS,
    RANKED_BY_COMPONENTS,
    SEED_LEAVES,
    ranked_length,
)
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["search_guided"]

MAX_LINE_DISTANCE = tl.constexpr(LINE_DISTANCES[0])
"""The others of LINE_DISTANCES are halves of it."""
SEED_BLOCK = 32


def search_guided(
    query: Tensor,
    key: Tensor,
    k: int,
    geometry: PatchGeometry,
    constraints: Constraints,
    iterations: int,
    seed: int,
    init: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Find k matches for every query by the guided search; see `patchattn.match`."""
    search, candidates, start = search_of(query, key, geometry, constraints), candidates_of(constraints), flat(init)
    index, similarity, explained = _search(search, candidates, constraints, query, key, k, iterations, seed, start)
    if geometry.similarity.name not in RANKED_BY_COMPONENTS:
        lists = run(search, candidates, k, k, iterations, seed, 0, index)
        index, similarity = lists.index, lists.similarity
    if explained is not None:
        # Whether PatchMatch searches is a number on the device: its programs end at once where it is not wanted.
        unguided = (explained < MIN_EXPLAINED_VARIANCE).to(torch.uint8)
        more = max(iterations, PATCHMATCH_ITERATIONS)
        others = run(search._replace(active=unguided), candidates, k, k, more, seed, 0, start)
        wanted = unguided.bool()[:, None, None]
        index = torch.where(wanted, others.index, index)
        similarity = torch.where(wanted, others.similarity, similarity)
    return as_field(index, similarity, query, geometry)


def _search(
    search: Search,
    candidates: Candidates,
    constraints: Constraints,
    query: Tensor,
    key: Tensor,
    k: int,
    iterations: int,
    seed: int,
    init: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return index and similarity, `(items, k, queries)`, and the share of the variance that the projection explains,
    None where it is certainly enough.
    """
    pairs, limits, blocks, device = search.pairs, search.limits, search.blocks, query.device
    items, count, num_keys = blocks.items, prod(query.shape[2:]), prod(key.shape[2:])
    dtype = compute_dtype(query, key)
    query_side, key_side = sides_to_project(pairs, items, blocks.query, dtype)
    queries = _positions(constraints.query_mask, query.shape[0], limits.heads, count, device)
    keys = _positions(constraints.key_mask, query.shape[0], limits.heads, num_keys, device)
    fit = fit_projection(pairs, query_side, key_side, queries, keys)
    tree = build_tree(project(pairs, key_side, fit), keys)
    query_components = project(pairs, query_side, fit).view(torch.int32)
    length = ranked_length(k)
    ranked = Ranked(
        limits, tree, query_components, fit.num_components // 2, count, num_keys,
        tl.constexpr(length), tl.constexpr(triton.next_power_of_2(length)),
        tl.constexpr(block_size(1, MAX_COMPONENTS // 2)),
    )  # fmt: skip
    entries = torch.empty((items, count, length), dtype=torch.int64, device=device)
    held = 0 if init is None else init.shape[1]
    # Long lists are tiles of several registers for every thread of few warps.
    warps, ptx_options = (4, None) if length == LEAF_SIZE else (16, FEW_REGISTERS)
    drawn = DRAWS_PER_MATCH * k
    seed_blocks = blocks_of(blocks.query, items, SEED_BLOCK)
    launch(
        _seed_kernel, seed_blocks.grid, device, ranked, seed_blocks, candidates, entries, init, held, tl.constexpr(k),
        drawn, max(drawn, MAX_LISTED), SEED_LEAVES, stream(seed, 0), num_warps=warps, ptx_options=ptx_options,
    )  # fmt: skip
    bands = _bands_of(blocks)
    for scan in range(1, iterations + 1):
        # The neighbors on this side were looked at two scans ago: what they held then has been tried.
        inside, outside = (0, 0) if scan < 3 else (min(scan - 1, LATEST_SCAN), min(scan - 2, LATEST_SCAN))
        launch(
            _scan_kernel, bands.grid, device, ranked, bands, entries, entries.clone(), -1 if scan % 2 else 1,
            min(scan, LATEST_SCAN), inside, outside, max(limits.key), max(limits.key).bit_length(), stream(seed, scan),
            num_warps=warps, ptx_options=FEW_REGISTERS,
        )  # fmt: skip
    lists = stored(items, k, count, dtype, device)
    launch(
        _finish_kernel, blocks.grid, device, search, ranked, entries, init, held, lists,
        num_warps=WARPS, ptx_options=FEW_REGISTERS,
    )  # fmt: skip
    short = pairs.T.value * pairs.Y.value * pairs.X.value * pairs.key.CHANNELS.value < tree.WORDS.value * 2
    return lists.index, lists.similarity, None if short else fit.explained


def _positions(mask: Tensor | None, batch: int, heads: int, count: int, device: torch.device) -> Positions:
    """The positions where a mask is True, all without a mask, for each item."""
    if mask is None:
        order = torch.arange(count, device=device).repeat(batch * heads, 1)
        return Positions(order, torch.full((batch * heads,), count, device=device))
    rows = mask.flatten(1)
    order = torch.sort((~rows).to(torch.uint8), dim=1, stable=True).indices
    per_item = order.expand(batch, -1).repeat_interleave(heads, 0)
    return Positions(per_item, rows.sum(1).expand(batch).repeat_interleave(heads, 0))


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


def _bands_of(blocks: Blocks) -> Bands:
    rows = blocks.query.t * blocks.query.y
    together = tl.constexpr(block_size(1, blocks.items))
    if rows == 1:
        return Bands(blocks.query, blocks.items, 1, BAND_OF_LINE, together, tl.constexpr(1))
    return Bands(blocks.query, blocks.items, rows, blocks.query.x, together, tl.constexpr(BAND_ROWS))


@triton.jit(do_not_specialize=["stream"])
def _seed_kernel(ranked, blocks, candidates, memory, init, held, K: tl.constexpr, drawn, tries, seed_leaves, stream):
    """Offer the leaves of the initial matches, that to which the tree leads, and those near it until there are k.

    Where constraints may forbid all of these, random keys that they allow join in.
    """
    limits = ranked.limits
    tree = ranked.tree
    queries = block_of_queries(blocks)
    exists = queries.exists
    asked = chosen(limits, queries)
    item = tl.where(exists, queries.item, 0)
    queries = Queries(asked, item, queries.flat, queries.t, queries.y, queries.x)
    entries = tl.full([queries.flat.shape[0], ranked.PLACES], EMPTY, tl.int64)
    if init is not None:
        for n in range(held):
            place = (item.to(tl.int64) * held + n) * ranked.num_queries + queries.flat
            leaf = leaf_at(tree, item, ranked.num_keys, tl.load(init + place, mask=asked, other=-1))
            entries = offer_leaves(ranked, queries, entries, leaf[:, None], 0)
    leaves = tl.load(tree.leaves + item)
    components = ranked.query_components.to(tl.pointer_type(tl.int16), bitcast=True)
    components += (item.to(tl.int64) * ranked.num_queries + queries.flat) * (tree.WORDS * 2)
    own = leaf_for(tree, item, components, asked)
    turns = 2 * leaves
    if limits.IS_CAUSAL or limits.WINDOWED or limits.SEPARATED:
        turns = tl.minimum(turns, seed_leaves)
    waiting = asked & (leaves > 0)
    turn = 0
    while tl.max(waiting.to(tl.int32), 0) > 0:
        near = own ^ turn
        leaf = tl.where(waiting & (near < leaves), near, -1)
        entries = offer_leaves(ranked, queries, entries, leaf[:, None], 0)
        turn += 1
        wanting = tl.sum((entries != EMPTY).to(tl.int32), 1) < K
        if limits.DIMS == 1:  # a sequence has fewer neighbors to hear from than a picture
            wanting = wanting | (turn < seed_leaves)
        waiting = asked & (turn < turns) & wanting
    if limits.IS_CAUSAL or limits.WINDOWED or limits.SEPARATED:
        window = offset_window(limits, queries)
        num_candidates = count_candidates(candidates, limits, queries, window)
        go_through = num_candidates <= tries
        last = tl.where(go_through, num_candidates, drawn)
        own_words = own_stream(stream, item % limits.heads, queries.flat)
        nothing = tl.zeros_like(last)
        trial = 0
        while trial < tl.max(tl.where(asked, last, 0), 0):
            number = tl.where(go_through, trial, draw(own_words, nothing + trial, nothing, num_candidates - 1))
            key = nth_candidate(candidates, limits, queries, window, number, asked & (trial < last))
            leaf = leaf_at(tree, item, ranked.num_keys, key)
            entries = offer_leaves(ranked, queries, entries, leaf[:, None], 0)
            trial += 1
    if limits.SEPARATED:
        entries = sort_entries(ranked, entries)
    store_entries(ranked, memory, item, queries.flat, exists, entries)


@triton.jit(do_not_specialize=["side", "scan", "oldest_inside", "oldest_outside", "stream"])
def _scan_kernel(
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
                leaves = _moved_leaf(ranked, item[:, None], theirs, by, inside[:, None], oldest_inside, oldest_outside)
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


@triton.jit
def _finish_kernel(search, ranked, memory, init, held, lists):
    """Measure what the lists and the initial matches hold, and keep the best."""
    queries = block_of_queries(search.blocks)
    exists = chosen(search.limits, queries)
    sides = sides_of(search.pairs, queries, exists)
    window = offset_window(search.limits, queries)
    entries = load_entries(ranked, memory, queries.item, queries.flat, exists)
    found = empty_lists(queries.flat, lists.K, search.pairs.COMPUTE)
    least = tl.min(entries, 1)
    while tl.min(least, 0) < EMPTY:
        found = offer(search, queries, sides, window, found, position_of(least), exists, 0, lists.K)
        entries = tl.where(entries == least[:, None], EMPTY, entries)
        least = tl.min(entries, 1)
    if init is not None:
        for n in range(held):
            place = (queries.item.to(tl.int64) * held + n) * ranked.num_queries + queries.flat
            key = tl.load(init + place, mask=exists, other=-1)
            found = offer(search, queries, sides, window, found, key, exists, 0, lists.K)
    count = search.blocks.query.t * search.blocks.query.y * search.blocks.query.x
    store_lists(lists, queries, count, found)
