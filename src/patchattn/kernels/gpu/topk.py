"""The lists of best matches, held in registers: a tuple of tensors, one entry of every query each."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from patchattn.kernels.gpu.constraints import conflicting

__all__ = ["StoredTopK", "TopK", "contains", "empty_lists", "insert", "load_lists", "store_lists", "stored"]


class StoredTopK(NamedTuple):
    """Lists in memory, `(items, k, queries)`."""

    index: Any
    similarity: Any
    born: Any
    """The step of the search in which a match entered; None where nobody asks."""
    K: Any


class TopK(NamedTuple):
    """Lists in registers: tuples of K tensors, best first; -1 and -inf where there is no match."""

    index: Any
    similarity: Any
    born: Any


def stored(items: int, k: int, count: int, dtype: torch.dtype, device: torch.device, dated: bool = False) -> StoredTopK:
    """Memory for lists, not yet written; `dated` if they say when a match entered."""
    index = torch.empty((items, k, count), dtype=torch.int32, device=device)
    similarity = torch.empty((items, k, count), dtype=dtype, device=device)
    return StoredTopK(index, similarity, torch.empty_like(index) if dated else None, tl.constexpr(k))


@triton.jit
def empty_lists(like, K: tl.constexpr, COMPUTE: tl.constexpr):
    """Lists without a match, for as many queries as `like` has numbers."""
    nothing = tl.full([like.shape[0]], -1, tl.int32)
    worst = tl.full([like.shape[0]], float("-inf"), COMPUTE)
    index = ()
    similarity = ()
    born = ()
    for _ in tl.static_range(K):
        index = index + (nothing,)
        similarity = similarity + (worst,)
        born = born + (nothing * 0,)
    return TopK(index, similarity, born)


@triton.jit
def load_lists(stored, queries, count):
    index = ()
    similarity = ()
    born = ()
    for slot in tl.static_range(stored.K):
        place = (queries.item * stored.K + slot).to(tl.int64) * count + queries.flat
        index = index + (tl.load(stored.index + place, mask=queries.exists, other=-1),)
        similarity = similarity + (tl.load(stored.similarity + place, mask=queries.exists, other=float("-inf")),)
        if stored.born is None:
            born = born + (tl.zeros_like(queries.flat),)
        else:
            born = born + (tl.load(stored.born + place, mask=queries.exists, other=0),)
    return TopK(index, similarity, born)


@triton.jit
def store_lists(stored, queries, count, lists):
    place = queries.flat + (queries.item * stored.K).to(tl.int64) * count
    for slot in tl.static_range(stored.K):
        tl.store(stored.index + place, lists.index[slot], mask=queries.exists)
        tl.store(stored.similarity + place, lists.similarity[slot], mask=queries.exists)
        if stored.born is not None:
            tl.store(stored.born + place, lists.born[slot], mask=queries.exists)
        place += count


@triton.jit
def contains(lists, key, K: tl.constexpr):
    found = lists.index[0] == key
    for slot in tl.static_range(1, K):
        found = found | (lists.index[slot] == key)
    return found


@triton.jit
def insert(lists, limits, key, similarity, now, K: tl.constexpr):
    """Offer one key to each query that its list does not hold yet; -inf is refused.

    A key that conflicts with a match at least as good is refused; matches that are worse make way for it, otherwise the
    last one does. It goes behind its equals.
    """
    if limits.SEPARATED and K > 1:
        refused = similarity == float("-inf")
        near = ()
        for slot in tl.static_range(K):
            # One after the other: side by side the coordinates of all matches would take too many registers.
            held = tl.where(refused, -1, lists.index[slot])
            at_slot = (held >= 0) & conflicting(limits, held, key)
            refused = refused | (at_slot & (lists.similarity[slot] >= similarity))
            near = near + (at_slot,)
        similarity = tl.where(refused, float("-inf"), similarity)
        lists = _without(lists, near, ~refused, K)
    index = ()
    similarities = ()
    born = ()
    entered = tl.zeros_like(key)
    if not limits.SEPARATED:
        # Lists that give way to what is too near are not dated, which leaves a third of their registers free.
        entered += now
    better = similarity > float("inf")
    for slot in tl.static_range(K):
        # From its place on, what gives way goes on to the next slot.
        better = better | (similarity > lists.similarity[slot])
        index = index + (tl.where(better, key, lists.index[slot]),)
        similarities = similarities + (tl.where(better, similarity, lists.similarity[slot]),)
        born = born + (tl.where(better, entered, lists.born[slot]),)
        key = tl.where(better, lists.index[slot], key)
        similarity = tl.where(better, lists.similarity[slot], similarity)
        entered = tl.where(better, lists.born[slot], entered)
    return TopK(index, similarities, born)


@triton.jit
def _without(lists, near, entering, K: tl.constexpr):
    """Take out the matches near a key that enters, and close the gaps."""
    index = ()
    similarities = ()
    for slot in tl.static_range(K):
        gone = near[slot] & entering
        index = index + (tl.where(gone, -1, lists.index[slot]),)
        similarities = similarities + (tl.where(gone, float("-inf"), lists.similarity[slot]),)
    lists = TopK(index, similarities, lists.born)
    while tl.max(_has_gap(lists, K).to(tl.int32), 0) > 0:
        lists = _gap_to_end(lists, K)
    return lists


@triton.jit
def _has_gap(lists, K: tl.constexpr):
    """Mask of the lists that have a match behind none."""
    found = (lists.index[0] < 0) & (lists.index[1] >= 0)
    for slot in tl.static_range(2, K):
        found = found | ((lists.index[slot - 1] < 0) & (lists.index[slot] >= 0))
    return found


@triton.jit
def _gap_to_end(lists, K: tl.constexpr):
    """Move the first gap behind all matches."""
    index = ()
    similarities = ()
    born = ()
    gap = lists.index[0] < 0
    for slot in tl.static_range(K - 1):
        index = index + (tl.where(gap, lists.index[slot + 1], lists.index[slot]),)
        similarities = similarities + (tl.where(gap, lists.similarity[slot + 1], lists.similarity[slot]),)
        born = born + (tl.where(gap, lists.born[slot + 1], lists.born[slot]),)
        gap = gap | (lists.index[slot + 1] < 0)
    index = index + (tl.where(gap, -1, lists.index[K - 1]),)
    similarities = similarities + (tl.where(gap, float("-inf"), lists.similarity[K - 1]),)
    born = born + (lists.born[K - 1],)
    return TopK(index, similarities, born)
