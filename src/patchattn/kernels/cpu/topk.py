"""The list of the k best matches of one query: what may enter, and where."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.constraints import conflicting

__all__ = ["Index", "TopK", "contains", "insert"]

Index = np.uint64
"""Unsigned, so that Numba does not test every subscript for being negative."""


class TopK(NamedTuple):
    """The lists of all queries of one item; flat, query i's at [i k, (i + 1) k), best first."""

    indices: NDArray[np.int32]
    similarity: NDArray[Any]
    born: NDArray[np.int32]
    """The step in which a match entered."""


@inlined
def contains(index: Any, start: Any, k: Any, j: int) -> bool:
    found = False
    for m in range(k):
        found |= index[start + m] == j
    return found


@inlined
def insert(
    j: int, similarity: float, lists: Any, now: int, start: Any, k: Any, patches: Any, limits: Any
) -> None:  # fmt: skip
    """Put key j into the list at `start`, after every match at least as good; the last drops out.

    Nothing happens if j is there already, is no better than the last, or comes too near to a match at least as good;
    worse matches that come too near make way.
    """
    index, similarities, born = lists.indices, lists.similarity, lists.born
    last = start + k - Index(1)
    if limits.separated:
        # A worse neighbor may make way for j even in a full list, so the last match is no threshold yet.
        if not similarity > -np.inf:
            return
        if not _make_room(j, similarity, lists, start, k, patches, limits):
            return
    if not similarity > similarities[last]:
        return
    if contains(index, start, k, j):
        return
    at = last
    while at > start and similarities[at - Index(1)] < similarity:
        similarities[at] = similarities[at - Index(1)]
        index[at] = index[at - Index(1)]
        born[at] = born[at - Index(1)]
        at -= Index(1)
    similarities[at] = similarity
    index[at] = j
    born[at] = now


@inlined
def _make_room(j: int, similarity: float, lists: Any, start: Any, k: Any, patches: Any, limits: Any) -> bool:
    """Remove the worse matches within the separation of j; False, and no change, if one of them is at least as good."""
    index, similarities, born = lists.indices, lists.similarity, lists.born
    for m in range(k):
        other = index[start + m]
        if other >= 0 and conflicting(j, other, patches, limits) and not similarities[start + m] < similarity:
            return False
    kept = start
    for m in range(k):
        at = start + m
        if index[at] >= 0 and not conflicting(j, index[at], patches, limits):
            index[kept], similarities[kept], born[kept] = index[at], similarities[at], born[at]
            kept += Index(1)
    while kept < start + k:
        index[kept] = -1
        similarities[kept] = -np.inf
        kept += Index(1)
    return True
