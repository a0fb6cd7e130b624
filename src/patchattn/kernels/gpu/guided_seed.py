"""First lists of guided search: the leaf of each query, of its initial matches, and of random keys."""

from __future__ import annotations

import triton
import triton.language as tl

from patchattn.kernels.gpu.candidates import count_candidates, nth_candidate
from patchattn.kernels.gpu.constraints import chosen, offset_window
from patchattn.kernels.gpu.grid import Queries, block_of_queries
from patchattn.kernels.gpu.random import draw, own_stream
from patchattn.kernels.gpu.ranked import EMPTY, offer_leaves, sort_entries, store_entries
from patchattn.kernels.gpu.tree import leaf_at, leaf_for

__all__ = ["seed_kernel"]


@triton.jit(do_not_specialize=["stream"])
def seed_kernel(ranked, blocks, candidates, memory, init, held, K: tl.constexpr, drawn, tries, seed_leaves, stream):
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
        if limits.DIMS == 1:  # a sequence has fewer neighbors to hear from than an image
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
