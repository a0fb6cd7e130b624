"""The list of the k best matches of one query: what may enter, and where."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import inlined

__all__ = ["Limits", "Lists", "admissible", "contains", "domain", "home_of", "insert", "too_near"]

Index = np.uint64
"""Unsigned, so that Numba does not test every subscript for being negative."""


class Lists(NamedTuple):
    """The lists of all queries of one item; flat, query i's at [i k, (i + 1) k), best first."""

    index: NDArray[np.int32]  # type: ignore[assignment]  # a tuple's own index() is of no use here
    similarity: NDArray[Any]
    born: NDArray[np.int32]
    """The step in which a match entered."""


class Limits(NamedTuple):
    """The constraints that are plain numbers. (Arrays in a tuple would cost reference counts in the inner loops.)"""

    dims: int
    """How many spatial dimensions the images have."""
    is_causal: bool
    lag: int
    """1 if a causal match must lie before the query, 0 if it may be at it."""
    separated: bool
    separation: tuple[int, int, int]
    has_window: bool
    window: tuple[int, int, int]
    """max_offset."""


@inlined
def home_of(q: int, n_query: int, n_key: int) -> int:
    """The key coordinate that corresponds to a query coordinate."""
    if n_query == n_key:
        return q
    return ((2 * q + 1) * n_key) // (2 * n_query)


@inlined
def domain(i: int, patches: Any, limits: Any) -> tuple[int, int, int, int, int, int]:
    """First and last key coordinate that query i may reach, in each dimension."""
    p = patches
    t0, t1, y0, y1, x0, x1 = 0, p.k_t - 1, 0, p.k_h - 1, 0, p.k_w - 1
    if limits.has_window:
        t = home_of(i // (p.q_w * p.q_h), p.q_t, p.k_t)
        y = home_of((i // p.q_w) % p.q_h, p.q_h, p.k_h)
        x = home_of(i % p.q_w, p.q_w, p.k_w)
        t0, t1 = max(t0, t - limits.window[0]), min(t1, t + limits.window[0])
        y0, y1 = max(y0, y - limits.window[1]), min(y1, y + limits.window[1])
        x0, x1 = max(x0, x - limits.window[2]), min(x1, x + limits.window[2])
    return t0, t1, y0, y1, x0, x1


@inlined
def admissible(i: int, j: int, key_mask: Any, patches: Any, limits: Any) -> bool:
    """Whether query i may match key j, apart from what is in its list."""
    if key_mask.size > 0 and not key_mask[j]:
        return False
    if limits.is_causal and j + limits.lag > i:
        return False
    if limits.has_window:
        p = patches
        i_x, j_x = i % p.q_w, j % p.k_w
        i_row, j_row = i // p.q_w, j // p.k_w
        if abs(j_x - home_of(i_x, p.q_w, p.k_w)) > limits.window[2]:
            return False
        if abs(j_row % p.k_h - home_of(i_row % p.q_h, p.q_h, p.k_h)) > limits.window[1]:
            return False
        if abs(j_row // p.k_h - home_of(i_row // p.q_h, p.q_t, p.k_t)) > limits.window[0]:
            return False
    return True


@inlined
def contains(index: Any, start: Any, k: Any, j: int) -> bool:
    found = False
    for m in range(k):
        found |= index[start + m] == j
    return found


@inlined
def insert(
    j: int, similarity: float, index: Any, similarities: Any, born: Any, now: int, start: Any, k: Any,
    patches: Any, limits: Any,
) -> None:  # fmt: skip
    """Put key j into the list at `start`, after every match at least as good; the last drops out.

    Nothing happens if j is there already, is no better than the last, or comes too near to a match at least as good;
    worse matches that come too near make way.
    """
    last = start + k - Index(1)
    if limits.separated:
        # A worse neighbor may make way for j even in a full list, so the last match is no threshold yet.
        if not similarity > -np.inf:
            return
        if not _make_room(j, similarity, index, similarities, born, start, k, patches, limits):
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
def _make_room(
    j: int, similarity: float, index: Any, similarities: Any, born: Any, start: Any, k: Any, patches: Any, limits: Any
) -> bool:
    """Remove the worse matches within the separation of j; False, and no change, if one of them is at least as good."""
    for m in range(k):
        other = index[start + m]
        if other >= 0 and too_near(j, other, patches, limits) and not similarities[start + m] < similarity:
            return False
    kept = start
    for m in range(k):
        at = start + m
        if index[at] >= 0 and not too_near(j, index[at], patches, limits):
            index[kept], similarities[kept], born[kept] = index[at], similarities[at], born[at]
            kept += Index(1)
    while kept < start + k:
        index[kept] = -1
        similarities[kept] = -np.inf
        kept += Index(1)
    return True


@inlined
def too_near(a: int, b: int, patches: Any, limits: Any) -> bool:
    width, height = patches.k_w, patches.k_h
    n_t, n_y, n_x = max(1, limits.separation[0]), max(1, limits.separation[1]), max(1, limits.separation[2])
    # Most are far apart, which their positions tell without a division.
    if abs(a - b) > ((n_t - 1) * height + n_y - 1) * width + n_x - 1:
        return False
    a_row, b_row = a // width, b // width
    return (
        abs(a % width - b % width) < n_x
        and abs(a_row % height - b_row % height) < n_y
        and abs(a_row // height - b_row // height) < n_t
    )
