"""Lists of guided search: keys ranked by the squared distance of their components, offered one leaf at a time.

An entry is one integer, so that comparing entries compares distances, then positions: squared distance (29 bits),
key position (31 bits), scan in which it entered (3 bits). The lists of a program are a tile `[queries, length]`, in no
order unless matches may conflict.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from patchattn.kernels import parameters
from patchattn.kernels.gpu.constraints import Limits, admissible, conflicting, offset_window
from patchattn.kernels.gpu.grid import Queries
from patchattn.kernels.gpu.tree import Tree

__all__ = ["Ranked", "load_entries", "offer_leaves", "position_of", "sort_entries", "store_entries"]

EMPTY = tl.constexpr(parameters.EMPTY)
DISTANCE_SHIFT = tl.constexpr(parameters.DISTANCE_SHIFT)
POSITION_SHIFT = tl.constexpr(parameters.POSITION_SHIFT)
POSITION_MASK = tl.constexpr(parameters.POSITION_MASK)


class Ranked(NamedTuple):
    """Arguments of the lists besides their entries."""

    limits: Limits
    tree: Tree
    query_components: Any
    """int32 words `(items, queries, WORDS)`."""
    words: Any
    """Number of words in use: int32 `(items,)`."""
    num_queries: Any
    num_keys: Any
    LENGTH: Any
    """Length of a list."""
    PLACES: Any
    """The next power of two."""
    WORDS_AT_ONCE: Any
    """Words of the components of a patch in one load."""


@triton.jit
def position_of(entries):
    """The key positions in entries; -1 for none."""
    return tl.where(entries == EMPTY, -1, ((entries >> POSITION_SHIFT) & POSITION_MASK).to(tl.int32))


@triton.jit
def load_entries(ranked, memory, item, query, exists):
    """The lists of some queries: a tile `[queries, PLACES]`. Every query has its item."""
    slot = tl.arange(0, ranked.PLACES)
    place = (item.to(tl.int64) * ranked.num_queries + query) * ranked.LENGTH
    inside = exists[:, None] & (slot < ranked.LENGTH)[None, :]
    return tl.load(memory + place[:, None] + slot[None, :], mask=inside, other=EMPTY)


@triton.jit
def store_entries(ranked, memory, item, query, exists, entries):
    slot = tl.arange(0, ranked.PLACES)
    place = (item.to(tl.int64) * ranked.num_queries + query) * ranked.LENGTH
    inside = exists[:, None] & (slot < ranked.LENGTH)[None, :]
    tl.store(memory + place[:, None] + slot[None, :], entries, mask=inside)


@triton.jit
def sort_entries(ranked, entries):
    """Put lists in ascending order."""
    slot = tl.arange(0, ranked.PLACES)
    ordered = tl.full([entries.shape[0], ranked.PLACES], EMPTY, tl.int64)
    for n in range(ranked.LENGTH):
        least = tl.min(entries, 1)
        ordered = tl.where(slot[None, :] == n, least[:, None], ordered)
        entries = tl.where(entries == least[:, None], EMPTY, entries)
    return ordered


@triton.jit
def offer_leaves(ranked, queries, entries, leaves, scan):
    """Offer each query all keys of some leaves, `[queries, leaves]`, -1 for none.

    A key that is in the list already leaves it as it is. With a separation a key is refused if one that is nearer
    conflicts with it, and otherwise replaces those that it conflicts with; but what is farther than the last of a full
    list when its leaf's turn comes is not looked at. Leaves must then come one at a time.
    """
    if tl.max(tl.max(leaves, 1), 0) >= 0:
        new = _compared(ranked, queries, leaves, scan)
        if ranked.limits.SEPARATED:
            entries = _insert_in_turn(ranked, entries, new)
        else:
            entries = _merge(ranked, entries, new)
    return entries


@triton.jit
def _compared(ranked, queries, leaves, scan):
    """The entries of all keys of the leaves, `[queries, leaves, 8]`; EMPTY for what is inadmissible."""
    tree = ranked.tree
    lane = tl.arange(0, 8)
    there = queries.exists[:, None] & (leaves >= 0)
    item = queries.item.to(tl.int64)
    leaf = item[:, None] * tree.room + tl.where(there, leaves, 0)
    inside = there[:, :, None] & (lane >= 0)[None, None, :]
    key = tl.load(tree.members + leaf[:, :, None] * 8 + lane[None, None, :], mask=inside, other=-1)
    rows = Queries(
        queries.exists[:, None, None], queries.item[:, None, None], queries.flat[:, None, None],
        queries.t[:, None, None], queries.y[:, None, None], queries.x[:, None, None],
    )  # fmt: skip
    allowed = inside & admissible(ranked.limits, rows, offset_window(ranked.limits, rows), key)
    of_query = ranked.query_components + (item * ranked.num_queries + queries.flat) * tree.WORDS
    of_leaf = tree.components + leaf * (tree.WORDS * 8)
    distance = tl.zeros(key.shape, tl.int32)
    part = tl.arange(0, ranked.WORDS_AT_ONCE)
    for first in range(0, tl.max(tl.load(ranked.words + item, mask=queries.exists, other=0), 0), ranked.WORDS_AT_ONCE):
        word = first + part
        used = word < tree.WORDS
        q = tl.load(of_query[:, None] + word[None, :], mask=queries.exists[:, None] & used[None, :], other=0)
        q = q[:, None, None, :]
        column = lane[:, None] + (word * 8)[None, :]
        read = allowed[:, :, :, None] & used[None, None, None, :]
        k = tl.load(of_leaf[:, :, None, None] + column[None, None, :, :], mask=read, other=0)
        # Each word holds two numbers of 16 bits.
        low = ((k << 16) >> 16) - ((q << 16) >> 16)
        high = (k >> 16) - (q >> 16)
        distance += tl.sum(low * low + high * high, 3)
    entries = (distance.to(tl.int64) << DISTANCE_SHIFT) | (key.to(tl.int64) << POSITION_SHIFT) | scan
    return tl.where(allowed, entries, EMPTY)


@triton.jit
def _merge(ranked, entries, new):
    """Keep the nearest of all, whatever the order."""
    slot = tl.arange(0, ranked.PLACES)[None, :]
    # Places that only round the length up to a power of two are never free.
    free = slot < ranked.LENGTH
    worst, at = tl.max(tl.where(free, entries, -1), 1, return_indices=True)
    least = tl.min(tl.min(new, 2), 1)
    while tl.max((least < worst).to(tl.int32), 0) > 0:
        known = tl.max((entries >> POSITION_SHIFT == (least >> POSITION_SHIFT)[:, None]).to(tl.int32), 1) > 0
        enters = (least < worst) & ~known
        entries = tl.where((slot == at[:, None]) & enters[:, None], least[:, None], entries)
        new = tl.where(new >> POSITION_SHIFT == (least >> POSITION_SHIFT)[:, None, None], EMPTY, new)
        worst, at = tl.max(tl.where(free, entries, -1), 1, return_indices=True)
        least = tl.min(tl.min(new, 2), 1)
    return entries


@triton.jit
def _insert_in_turn(ranked, entries, new):
    """Insert the keys of one leaf, `[queries, 1, 8]`, one after the other, as each may take the place of others."""
    slot = tl.arange(0, ranked.PLACES)[None, :]
    free = slot < ranked.LENGTH
    last = tl.max(tl.where(free, entries, -1), 1)
    lane = tl.arange(0, 8)[None, None, :]
    # What is not nearer than the last of a full list is not looked at.
    new = tl.where(new >> DISTANCE_SHIFT > (last >> DISTANCE_SHIFT)[:, None, None], EMPTY, new)
    n = 0
    while tl.min(tl.min(tl.min(new, 2), 1), 0) < EMPTY:
        entry = tl.min(tl.min(tl.where(lane == n, new, EMPTY), 2), 1)[:, None]
        if tl.min(tl.min(entry, 1), 0) < EMPTY:
            entries = _insert(ranked, entries, entry)
        new = tl.where(lane == n, EMPTY, new)
        n += 1
    return entries


@triton.jit
def _insert(ranked, entries, entry):
    """Insert one key each, `[queries, 1]`, in place of those that conflict with it or of the last."""
    slot = tl.arange(0, ranked.PLACES)[None, :]
    held = position_of(entries)
    key = position_of(entry)
    near = (held >= 0) & (key >= 0)
    near = near & conflicting(ranked.limits, tl.maximum(held, 0), tl.maximum(key, 0))
    refused = tl.max((near & (entries < entry)).to(tl.int32), 1)[:, None] > 0
    entry = tl.where(refused, EMPTY, entry)
    entries = tl.where(near & ~refused, EMPTY, entries)
    worst, at = tl.max(tl.where(slot < ranked.LENGTH, entries, -1), 1, return_indices=True)
    return tl.where((slot == at[:, None]) & (entry < worst[:, None]), entry, entries)
