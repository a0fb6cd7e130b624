"""Result of guided search: what the ranked lists hold, measured in full, and the best k of it."""

from __future__ import annotations

import triton
import triton.language as tl

from patchattn.kernels.gpu.constraints import chosen, offset_window
from patchattn.kernels.gpu.grid import block_of_queries
from patchattn.kernels.gpu.patch_similarity import sides_of
from patchattn.kernels.gpu.patchmatch import offer
from patchattn.kernels.gpu.ranked import EMPTY, load_entries, position_of
from patchattn.kernels.gpu.topk import empty_lists, store_lists

__all__ = ["finish_kernel"]


@triton.jit
def finish_kernel(search, ranked, memory, init, held, lists):
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
