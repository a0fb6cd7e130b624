"""The k best of many, as a heap: the worst on top, so that whatever is better takes its place in log k steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import inlined

__all__ = ["Heaps", "clear", "offer", "sort_best_first"]


class Heaps(NamedTuple):
    """The heaps of all queries, flat: `k` places for each."""

    indices: NDArray[np.int32]
    similarity: NDArray[Any]
    k: int


@inlined
def clear(similarity: Any, index: Any, start: int, k: int) -> None:
    for m in range(start, start + k):
        similarity[m] = -float("inf")
        index[m] = -1


@inlined
def offer(s: float, j: int, similarity: Any, index: Any, start: int, k: int) -> None:
    """Let key j take the worst one's place if it is better: more similar, or as similar and earlier. -inf and NaN never
    are.
    """
    if s > similarity[start] or (s == similarity[start] and j < index[start]):
        _sink(s, j, similarity, index, start, k)


@inlined
def sort_best_first(similarity: Any, index: Any, start: int, k: int) -> None:
    """Turn the heap into a list, best first."""
    for last in range(k - 1, 0, -1):
        s, j = similarity[start + last], index[start + last]
        similarity[start + last], index[start + last] = similarity[start], index[start]
        _sink(s, j, similarity, index, start, last)


@inlined
def _sink(s: float, j: int, similarity: Any, index: Any, start: int, k: int) -> None:
    """Put (s, j) in the place of the top, below all that is worse."""
    at = 0
    child = 1
    while child < k:
        here = start + child
        if child + 1 < k and _is_worse(similarity[here + 1], index[here + 1], similarity[here], index[here]):
            child += 1
            here += 1
        if not _is_worse(similarity[here], index[here], s, j):
            break
        similarity[start + at], index[start + at] = similarity[here], index[here]
        at = child
        child = 2 * at + 1
    similarity[start + at] = s
    index[start + at] = j


@inlined
def _is_worse(s: float, j: int, other_s: float, other_j: int) -> bool:
    return s < other_s or (s == other_s and j > other_j)
