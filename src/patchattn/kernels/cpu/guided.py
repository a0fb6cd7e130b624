"""Guided search: neighbors say where to look, a k-d tree what else is there.

Patches become a few whole numbers (`projection.py`), keys the leaves of a tree (`tree.py`). Each query begins with the
leaf that the tree leads it to. Then scans go over the image, alternately first to last and last to first: where the
match of a neighbor that was just visited, moved along with it, lies in a leaf, all eight keys of that leaf are
compared. Lists rank by squared distance of the numbers; at the end each list is measured in full.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.arguments import Constraints, PatchGeometry
from patchattn.kernels.cpu.aligned import aligned_array
from patchattn.kernels.cpu.candidates import count_candidates, draw_near, nth_candidate, reach
from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.constraints import admissible
from patchattn.kernels.cpu.frame import MAX_LINE_DISTANCE, Frame, frame_of, framed, unframed
from patchattn.kernels.cpu.grid import place_in
from patchattn.kernels.cpu.items import Item, no_matches, search_items
from patchattn.kernels.cpu.leaf_vectors import LANES, insert_sorted, prefetch
from patchattn.kernels.cpu.patch_similarity import CHUNK, L1, POINTWISE, measure, offset_of
from patchattn.kernels.cpu.patchmatch import search_item as search_item_by_patchmatch
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.projection import Projection, Side, fit_projection, key_side, project, query_side
from patchattn.kernels.cpu.random import draw, mix, stream
from patchattn.kernels.cpu.ranked import measure_leaf, new_lists, offer, offer_measured, position_in
from patchattn.kernels.cpu.topk import Index, TopK, contains, insert
from patchattn.kernels.cpu.tree import Tree, build_tree, leaf_for
from patchattn.kernels.parameters import (
    BAND_OF_LINE,
    BAND_ROWS,
    DRAWS_PER_MATCH,
    EMPTY,
    LATEST_SCAN,
    MAX_LISTED,
    MIN_EXPLAINED_VARIANCE,
    PATCHMATCH_ITERATIONS,
    SEED_LEAVES,
    ranked_length,
)
from patchattn.progress import report

__all__ = ["search_guided"]

SLAB = 1 << 23
"""Entries of lists that exist at one time: those of a million queries at k = 3."""
SEEN = 256
"""Leaves that a query remembers having looked at."""


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
    """Find k matches for every query by `iterations` guided scans; see `patchattn.match`."""
    search = lambda item: _Search(item, k, seed).run(iterations)  # noqa: E731
    return search_items(query, key, k, geometry, constraints, init, search)


class _Search:
    """The search of one item."""

    def __init__(self, item: Item, k: int, seed: int) -> None:
        self.item, self.k, self.seed = item, k, seed
        self.patches, self.limits = item.patches, item.limits
        self.length = ranked_length(k)
        row = self.patches.q_w
        self.band = BAND_ROWS * row if row < item.count else BAND_OF_LINE

    def run(self, iterations: int) -> TopK:
        item, masks = self.item, self.item.masks
        chosen = np.flatnonzero(masks.query) if masks.query.size else np.arange(item.count)
        allowed = masks.candidates[0]
        query, key, q_norms, k_norms = item.pair[:4]
        if not chosen.size or not allowed.size:
            return no_matches(item.count, self.k, query.dtype)
        keys, largest = key_side(item.keys, key, k_norms, self.patches)
        queries = query_side(item.queries, query, q_norms, self.patches, largest)
        projection = fit_projection(queries, keys, chosen, allowed, self.patches)
        if projection.explained < MIN_EXPLAINED_VARIANCE:
            more = max(iterations, PATCHMATCH_ITERATIONS)
            return search_item_by_patchmatch(item, self.k, more, self.seed, item.init)
        lists = self._search(queries, keys, projection, iterations)
        if self.patches.kind in (L1, POINTWISE):
            found = np.ascontiguousarray(lists.index.reshape(item.count, self.k).T)
            lists = search_item_by_patchmatch(item, self.k, iterations, self.seed, found)
        return lists

    def _search(self, queries: Side, keys: Side, projection: Projection, iterations: int) -> TopK:
        item, p = self.item, self.patches
        frame = frame_of((p.k_t, p.k_h, p.k_w), self.limits.dims)
        rows = project(keys, projection, p, 0, p.k_t * p.k_h * p.k_w)
        tree = build_tree(rows, projection.width, item.masks.candidates[0], frame)
        del rows
        lists = no_matches(item.count, self.k, item.pair[0].dtype)
        # Whole bands; a slab's queries see nothing of the slabs before it.
        step = max(SLAB // (self.length * self.band), 1) * self.band
        for low in range(0, item.count, step):
            high = min(low + step, item.count)
            numbers = project(queries, projection, p, low, high)
            self._search_slab(low, numbers, projection.width, tree, frame, iterations, lists)
            report(round(1000 * (item.number + high / item.count) / item.items), 1000)
        return lists

    def _search_slab(
        self,
        first: int,
        numbers: NDArray[np.int16],
        width: int,
        tree: Tree,
        frame: Frame,
        iterations: int,
        lists: TopK,
    ) -> None:
        item, count = self.item, numbers.size // width
        ranked = new_lists(count, self.length)
        before = np.empty_like(ranked)
        common = (
            first, numbers, width, tree.table, tree.members, tree.leaf_of, ranked, self.length, frame,
            self.patches, self.limits, item.masks.query,
        )  # fmt: skip
        run_ranges(
            _seed_range, count, CHUNK, *common, tree.axes, tree.bounds, self.k, stream(self.seed, 0, item.head),
            *item.masks.candidates, item.init, scratch=lambda: (np.empty(LANES, np.int64),),
        )  # fmt: skip
        leaves = 2 * 3 * self.length  # of the matches of three neighbors, of this query and the next

        def scratch() -> tuple[NDArray[Any], ...]:
            return np.empty(leaves // 2 * LANES, np.int64), np.empty(SEEN, np.int64), np.empty(leaves, np.int32)

        for scan in range(1, iterations + 1):
            self._copy_edges(ranked, before)
            run_ranges(
                _scan_range, count, self.band, *common, before, -1 if scan % 2 else 1, scan,
                stream(self.seed, scan, item.head), scratch=scratch,
            )  # fmt: skip
        dtype = item.pair[0].dtype
        most = self.length + len(item.init)
        best = -(-self.k // LANES) * LANES

        def measured() -> tuple[NDArray[Any], ...]:
            values = np.empty(most, dtype)
            places = np.empty(most, np.int64), np.empty(most, np.int64)
            return (*places, values, values.view(np.int32), aligned_array(best, np.int64))

        run_ranges(
            _finish_range, count, CHUNK, first, *item.pair, ranked, self.length, frame, item.init, *lists,
            self.k, scratch=measured,
        )  # fmt: skip

    def _copy_edges(self, ranked: NDArray[np.int64], before: NDArray[np.int64]) -> None:
        """Keep what other bands see of a band during a scan: the queries beside its neighbors."""
        p = self.patches
        if p.q_t > 1:
            before[:] = ranked
            return
        edge = (p.q_w if p.q_h > 1 else MAX_LINE_DISTANCE if self.limits.dims == 1 else 1) * self.length
        for start in range(self.band * self.length, ranked.size, self.band * self.length):
            before[start - edge : start + edge] = ranked[start - edge : start + edge]


@kernel()
def _seed_range(
    low: int, high: int, first: int, numbers: Any, width: int, table: Any, members: Any, leaf_of: Any, lists: Any,
    length: int, frame: Any, patches: Any, limits: Any, query_mask: Any,
    axes: Any, bounds: Any, k: int, key_of_draws: Any, allowed: Any, allowed_up_to: Any, init: Any,
    distances: Any,
) -> None:  # fmt: skip
    """Begin every list with the leaves of the initial matches and with the leaf that the tree leads to.

    Where constraints may forbid all of these, random keys that they allow join in (small sets of keys are gone
    through).
    """
    limited = limits.is_causal or limits.has_window or limits.separated
    for n in range(low, high):
        i = first + n
        start, at = n * length, n * width
        for m in range(length):
            lists[start + m] = EMPTY
        if query_mask.size > 0 and not query_mask[i]:
            continue
        for m in range(init.shape[0]):
            j = np.int64(init[m, i])
            if j >= 0:
                leaf = np.int64(leaf_of[framed(j, frame)])
                if leaf >= 0:
                    offer(
                        leaf, i, 0, numbers, at, width, table, members, lists, start, length, frame, patches, limits,
                        distances,
                    )  # fmt: skip
        own = leaf_for(numbers, at, axes, bounds)
        least = SEED_LEAVES if limits.dims == 1 else 1
        # Leaves near in the tree, nearest first, until there are k matches.
        turn = np.int64(0)
        while turn < 2 * axes.size and (not limited or turn < SEED_LEAVES):
            leaf = own ^ turn
            turn += 1
            if leaf < axes.size:
                offer(
                    leaf, i, 0, numbers, at, width, table, members, lists, start, length, frame, patches, limits,
                    distances,
                )  # fmt: skip
            if turn >= least and lists[start + k - 1] != EMPTY:
                break
        if not limited:
            continue
        num_candidates = count_candidates(i, allowed, allowed_up_to, patches, limits)
        go_through = num_candidates <= max(DRAWS_PER_MATCH * k, MAX_LISTED)
        own_draws = mix(np.uint32(key_of_draws ^ np.uint32(i)))
        for r in range(num_candidates if go_through else DRAWS_PER_MATCH * k):
            j = nth_candidate(
                i, r if go_through else draw(own_draws, r, 0, num_candidates - 1), allowed, patches, limits
            )
            leaf = np.int64(leaf_of[framed(j, frame)])
            if leaf >= 0:
                offer(
                    leaf, i, 0, numbers, at, width, table, members, lists, start, length, frame, patches, limits,
                    distances,
                )  # fmt: skip


@inlined
def _skip_own_leaves(n: int, leaf_of: Any, lists: Any, length: int, limits: Any, seen: Any) -> None:
    """Remember the leaves of what query n holds as seen: they were offered as wholes, and lists only improve.

    (Unless matches make way for the sake of separation.)
    """
    if limits.separated:
        return
    for m in range(n * length, n * length + length):
        entry = lists[m]
        if entry == EMPTY:
            break
        leaf = np.int64(leaf_of[position_in(entry)])
        seen[leaf & (SEEN - 1)] = (n << 32) | leaf


@inlined
def _gather(
    n: int, direction: int, end: int, count: int, low: int, high: int, first: int, table: Any, width: int,
    leaf_of: Any, lists: Any, before: Any, length: int, frame: Any, patches: Any, limits: Any, side: int, since: int,
    since_outside: int, seen: Any, candidates: Any,
) -> int:  # fmt: skip
    """Append to `candidates[count:]` the leaves that the neighbors of query n in some directions point to.

    Directions are t, y and x; in one dimension they are distances, the nearest last.
    """
    p = patches
    i = first + n
    row = np.int64(np.uint32(i) // np.uint32(p.q_w))
    x = i - row * p.q_w
    t = np.int64(np.uint32(row) // np.uint32(p.q_h))
    y = row - t * p.q_h
    queries = before.size // length
    known = count
    while direction < end:
        if limits.dims == 1:
            step = MAX_LINE_DISTANCE >> direction
            there, shift = 0 <= x + side * step < p.q_w, step
        elif direction == 0:
            there, step, shift = 0 <= t + side < p.q_t, p.q_h * p.q_w, frame.plane
        elif direction == 1:
            there, step, shift = 0 <= y + side < p.q_h, p.q_w, frame.row
        else:
            there, step, shift = 0 <= x + side < p.q_w, 1, 1
        direction += 1
        neighbor = n + side * step
        if not there or not 0 <= neighbor < queries:
            continue
        inside = low <= neighbor < high
        oldest = since if inside else since_outside
        for m in range(neighbor * length, neighbor * length + length):
            entry = lists[m] if inside else before[m]
            if entry == EMPTY:
                break
            leaf = np.int64(leaf_of[position_in(entry) - side * shift])
            tag = (n << 32) | leaf
            slot = leaf & (SEEN - 1)
            # Nobody foresees which leaves are new: one that is not is written all the same, and the next over it.
            held = seen[slot]
            fresh = (leaf >= 0) & ((entry & LATEST_SCAN) >= oldest) & (held != tag)
            seen[slot] = tag if fresh else held
            candidates[count] = leaf
            count += fresh
    for c in range(known, count):
        for number in range(0, width * LANES, 32):
            prefetch(table, candidates[c] * LANES * width + number)
    return count


@kernel()
def _scan_range(
    low: int, high: int, first: int, numbers: Any, width: int, table: Any, members: Any, leaf_of: Any, lists: Any,
    length: int, frame: Any, patches: Any, limits: Any, query_mask: Any,
    before: Any, side: int, scan: int, key_of_draws: Any, distances: Any, seen: Any, candidates: Any,
) -> None:  # fmt: skip
    """Visit the queries of a band in order (or against it): look where the neighbors visited before found matches."""
    p = patches
    stamp = min(scan, LATEST_SCAN)
    # The neighbors on this side were looked at two scans ago: what they held then has been tried.
    since, since_outside = min(scan - 1, LATEST_SCAN), min(scan - 2, LATEST_SCAN)
    if scan < 3:
        since, since_outside = 0, 0
    for m in range(SEEN):
        seen[m] = -1
    half = candidates.size // 2
    waiting = 0
    for visit in range(high - low):
        n = low + visit if side < 0 else high - 1 - visit
        i = first + n
        start, at = n * length, n * width
        # What the neighbors in other rows hold is known one visit ahead: their leaves are on the way by now.
        here, ahead = (visit & 1) * half, (1 - (visit & 1)) * half
        count = waiting
        if visit == 0 or p.q_w == 1:
            _skip_own_leaves(n, leaf_of, lists, length, limits, seen)
            count = _gather(
                n, 0, 2, here, low, high, first, table, width, leaf_of, lists, before, length, frame, patches, limits,
                side, since, since_outside, seen, candidates,
            )  # fmt: skip
        count = _gather(
            n, 2, 3, count, low, high, first, table, width, leaf_of, lists, before, length, frame, patches, limits,
            side, since, since_outside, seen, candidates,
        )  # fmt: skip
        if p.q_w > 1 and visit + 1 < high - low:
            _skip_own_leaves(n - side, leaf_of, lists, length, limits, seen)
            waiting = _gather(
                n - side, 0, 2, ahead, low, high, first, table, width, leaf_of, lists, before, length, frame, patches,
                limits, side, since, since_outside, seen, candidates,
            )  # fmt: skip
        if query_mask.size > 0 and not query_mask[i]:
            continue
        # All leaves are measured, then offered: so the processor need not wait for what a list takes to know the next.
        for m in range(here, count):
            measure_leaf(np.int64(candidates[m]), numbers, at, width, table, distances, (m - here) * LANES)
        for m in range(here, count):
            offer_measured(
                np.int64(candidates[m]), i, stamp, distances, (m - here) * LANES, members, lists, start, length, frame,
                patches, limits,
            )  # fmt: skip
        if limits.has_window or limits.is_causal:
            # The tree knows nothing of these limits: search at random around the best match as well.
            best = lists[start]
            if best == EMPTY:
                continue
            j = unframed(position_in(best), frame)
            j_t, j_y, j_x = place_in(j, p)
            limit = reach(i, patches, limits)
            own_draws = mix(np.uint32(key_of_draws ^ np.uint32(i)))
            draws = 0
            radius = max(p.k_t, p.k_h, p.k_w)
            while radius >= 1:
                c_t, c_y, c_x = draw_near(own_draws, draws, j_t, j_y, j_x, radius, limit, limits.dims)
                leaf = np.int64(leaf_of[framed((c_t * p.k_h + c_y) * p.k_w + c_x, frame)])
                draws += 1
                radius //= 2
                if leaf >= 0:
                    offer(
                        leaf, i, stamp, numbers, at, width, table, members, lists, start, length, frame, patches,
                        limits, distances,
                    )  # fmt: skip


@kernel()
def _finish_range(
    low: int, high: int, first: int, query: Any, key: Any, q_norms: Any, k_norms: Any, scale: Any, function: Any,
    patches: Any, limits: Any, query_mask: Any, key_mask: Any, ranked: Any, kept: int, frame: Any, init: Any,
    index: Any, similarity: Any, born: Any, k: int, candidate: Any, k_start: Any, measured: Any, bits: Any,
    entries: Any,
) -> None:  # fmt: skip
    """Measure what each list holds, and the initial matches, in full: the best k of them are the result."""
    p = patches
    nothing = -query.dtype.type(np.inf)
    for n in range(low, high):
        i = first + n
        if query_mask.size > 0 and not query_mask[i]:
            continue
        count = Index(0)
        for m in range(kept):
            entry = ranked[n * kept + m]
            if entry == EMPTY:
                break
            candidate[count] = unframed(position_in(entry), frame)
            count += Index(1)
        for m in range(init.shape[0]):
            j = np.int64(init[m, i])
            if j >= 0 and admissible(i, j, key_mask, patches, limits) and not contains(candidate, Index(0), count, j):
                candidate[count] = j
                count += Index(1)
        q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        for c in range(count):
            k_start[c] = offset_of(candidate[c], p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
            for number in range(0, p.length, 16):
                prefetch(key, k_start[c] + number)
        for c in range(count):
            measured[c] = measure(
                query, q_start, key, k_start[c], i, candidate[c], q_norms, k_norms, scale, function, patches, nothing
            )
        if limits.separated or measured.itemsize != 4:
            for c in range(count):
                insert(
                    candidate[c], measured[c], index, similarity, born, 0, Index(i * k), Index(k), patches, limits
                )  # fmt: skip
            continue
        # Without branches: one whole number holds a similarity and, of equal ones, which comes first.
        for m in range(entries.size):
            entries[m] = EMPTY
        for c in range(count):
            if measured[c] > nothing:
                insert_sorted(entries, 0, entries.size // LANES, (_descending(bits[c]) << 32) | np.int64(c << 3))
        for m in range(k):
            if entries[m] == EMPTY:
                break
            c = (entries[m] & 0xFFFFFFFF) >> 3
            index[i * k + m] = candidate[c]
            similarity[i * k + m] = measured[c]


@inlined
def _descending(bits: int) -> int:
    """A whole number that is the smaller the larger the float32 of these bits is; -0 counts as 0."""
    signed = np.int64(bits)
    if signed >= 0:
        return ~signed
    return signed & 0x7FFFFFFF if signed != -0x80000000 else ~np.int64(0)
