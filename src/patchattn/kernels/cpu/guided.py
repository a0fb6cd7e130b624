"""Guided search: propagation-assisted k-d tree search.

Propagation-assisted k-d trees are He and Sun's (2012): neighbors say where to look, a k-d tree what else is there.

Patches become a few integers, their principal components (`projection.py`), keys the leaves of a tree (`tree.py`). Each
query begins with the leaf that the tree leads it to. Then scans go over the image, alternately first to last and last
to first: where the match of a neighbor that was just visited, moved along with it, lies in a leaf, all eight keys of
that leaf are compared. Lists rank by squared distance of the components; at the end each list is measured in full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.aligned import aligned_array
from patchattn.kernels.cpu.frame import MAX_LINE_DISTANCE, Frame
from patchattn.kernels.cpu.guided_finish import finish_range
from patchattn.kernels.cpu.guided_scan import ROWS_AT_ONCE, SEEN, scan_of, scan_range
from patchattn.kernels.cpu.guided_seed import seed_range, seed_scratch
from patchattn.kernels.cpu.items import Item, no_matches, search_items
from patchattn.kernels.cpu.leaf_vectors import LANES
from patchattn.kernels.cpu.patch_differences import AT_ONCE
from patchattn.kernels.cpu.patch_similarity import L1, POINTWISE, chunk_of
from patchattn.kernels.cpu.patchmatch import search_item as search_item_by_patchmatch
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.prepared_keys import PreparedKeys
from patchattn.kernels.cpu.projection import Projection, Side, fit_projection, project, query_side
from patchattn.kernels.cpu.random import stream
from patchattn.kernels.cpu.ranked import Slab, new_lists, workspace
from patchattn.kernels.cpu.topk import TopK
from patchattn.kernels.cpu.tree import Tree
from patchattn.kernels.parameters import (
    BAND_OF_LINE,
    BAND_ROWS,
    MASKED_NEIGHBOR_DISTANCE,
    MIN_EXPLAINED_VARIANCE,
    PATCHMATCH_ITERATIONS,
    ranked_length,
)
from patchattn.problem import Constraints, PatchGeometry
from patchattn.progress import report
from patchattn.reuse import PreparationsOfOneKey, current_preparations

__all__ = ["search_guided"]

SLAB = 1 << 23
"""Entries of lists that exist at one time: those of a million queries at k = 3."""


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

    owners = (key, constraints.key_mask)
    items = geometry.num_heads * max(1 if tensor is None else tensor.shape[0] for tensor in owners)
    preparations = current_preparations()  # items may be searched in other threads
    if items < geometry.num_heads * query.shape[0] and not preparations.keeps:
        preparations = PreparationsOfOneKey(key)

    def search(item: Item) -> TopK:
        name = (geometry, item.number % items)
        prepare = lambda: preparations.find(owners, name, lambda: PreparedKeys(item))  # noqa: E731
        return _Search(item, k, seed, prepare).run(iterations)

    return search_items(query, key, k, geometry, constraints, init, search)


class _Search:
    """The search of one item."""

    def __init__(self, item: Item, k: int, seed: int, prepare: Callable[[], PreparedKeys]) -> None:
        self.item, self.k, self.seed, self.prepare = item, k, seed, prepare
        self.patches, self.limits = item.patches, item.limits
        self.length = ranked_length(k)
        row = self.patches.q_w
        self.band = BAND_ROWS * row if row < item.count else BAND_OF_LINE

    def run(self, iterations: int) -> TopK:
        item, masks = self.item, self.item.masks
        chosen = np.flatnonzero(masks.query) if masks.query.size else np.arange(item.count)
        allowed = masks.candidates[0]
        pairs = item.pairs
        if not chosen.size or not allowed.size:
            return no_matches(item.count, self.k, pairs.query.dtype)
        keys = self.prepare()
        if keys.basis.explained < MIN_EXPLAINED_VARIANCE:
            more = max(iterations, PATCHMATCH_ITERATIONS)
            return search_item_by_patchmatch(item, self.k, more, self.seed, item.init)
        queries = query_side(item.queries, pairs.query, pairs.q_norms, self.patches, keys.largest)
        lists = self._search(queries, keys, fit_projection(keys.basis, queries, chosen, self.patches), iterations)
        if self.patches.kind in (L1, POINTWISE):
            found = np.ascontiguousarray(lists.indices.reshape(item.count, self.k).T)
            lists = search_item_by_patchmatch(item, self.k, iterations, self.seed, found)
        return lists

    def _search(self, queries: Side, keys: PreparedKeys, projection: Projection, iterations: int) -> TopK:
        item, p = self.item, self.patches
        tree, frame = keys.tree(projection, item), keys.frame
        lists = no_matches(item.count, self.k, item.pairs.query.dtype)
        # Whole bands; a slab's queries see nothing of the slabs before it.
        step = max(SLAB // (self.length * self.band), 1) * self.band
        for low in range(0, item.count, step):
            high = min(low + step, item.count)
            components = project(queries, projection, p, low, high)
            self._search_slab(low, components, projection.width, tree, frame, iterations, lists)
            report(round(1000 * (item.number + high / item.count) / item.items), 1000)
        return lists

    def _search_slab(
        self,
        first: int,
        components: NDArray[np.int16],
        width: int,
        tree: Tree,
        frame: Frame,
        iterations: int,
        lists: TopK,
    ) -> None:
        item, count = self.item, components.size // width
        entries = new_lists(count, self.length)
        edge = self._edge()
        before = np.empty(2 * edge * (count // self.band) if edge else entries.size, np.int64)
        slab = Slab(
            first, components, width, tree, frame, entries, self.length, self.patches, self.limits, item.masks.query
        )
        run_ranges(
            seed_range, count, chunk_of(count), slab, self.k, stream(self.seed, 0, item.head), *item.masks.candidates,
            item.init, scratch=lambda: (workspace(1, self.length), *seed_scratch()),
        )  # fmt: skip
        leaves = 3 * self.length  # of the matches of three neighbors

        def scratch() -> tuple[NDArray[Any], ...]:
            candidates, ends = np.empty(ROWS_AT_ONCE * leaves, np.int32), np.empty(ROWS_AT_ONCE, np.int64)
            return workspace(leaves, self.length), np.empty(SEEN, np.int64), candidates, ends

        for number in range(1, iterations + 1):
            self._copy_edges(entries, edge, before)
            scan = scan_of(number, before, edge, self.band)
            run_ranges(scan_range, count, self.band, slab, scan, stream(self.seed, number, item.head), scratch=scratch)
        most = self.length + len(item.init)
        best = -(-self.k // LANES) * LANES

        def measured() -> tuple[NDArray[Any], ...]:
            values = np.empty(most + AT_ONCE, item.pairs.query.dtype)
            places = np.empty(most, np.int64), np.empty(most + AT_ONCE, np.int64)
            new = np.empty(most + LANES, np.int64)
            return (*places, values, values.view(np.int32), new, aligned_array(best, np.int64))

        run_ranges(finish_range, count, chunk_of(count), slab, item.pairs, item.init, lists, self.k, scratch=measured)

    def _edge(self) -> int:
        """Entries on either side of a boundary between bands that queries of the other side may see; 0: all."""
        p = self.patches
        if p.q_t > 1:
            return 0
        rows = MASKED_NEIGHBOR_DISTANCE * p.q_w if p.q_h > 1 else MASKED_NEIGHBOR_DISTANCE
        return (MAX_LINE_DISTANCE if self.limits.dims == 1 else rows) * self.length

    def _copy_edges(self, ranked: NDArray[np.int64], edge: int, before: NDArray[np.int64]) -> None:
        """Keep what bands see of each other during a scan."""
        if edge == 0:
            before[:] = ranked
            return
        band = self.band * self.length
        for number, start in enumerate(range(band, ranked.size, band)):
            part = ranked[start - edge : start + edge]
            before[2 * edge * number :][: part.size] = part
