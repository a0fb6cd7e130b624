"""Whole rows of similarities, sorted: for so many matches that lists of them would cost more.

Similarities come from products in float64, whose error is far below the last digit of float32 nearly everywhere; where
it is not, and where two similarities are too close to say which is the larger, they are measured.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.heap import clear, offer, sort_best_first
from patchattn.kernels.cpu.patch_similarity import L2
from patchattn.kernels.cpu.product_blocks import measure_in
from patchattn.kernels.cpu.products_bound import products_error

__all__ = ["row_scratch", "sort_range"]

NEGLIGIBLE = 2.0**-28
"""Relative error of a similarity that need not be measured: it moves the float32 nearest to it by one place at most."""
CLOSE = np.uint32(2)
"""Places of float32 between two similarities that are measured to order them."""
BINS = 2048
SIGN = np.uint32(0x80000000)


class RowScratch(NamedTuple):
    """Working space for one row."""

    number: NDArray[np.float32]
    bits: NDArray[np.uint32]
    """Bits of the numbers: the same memory."""
    ranks: NDArray[np.uint32]
    other_ranks: NDArray[np.uint32]
    keys: NDArray[np.int32]
    other_keys: NDArray[np.int32]
    bins: NDArray[np.int64]
    close: NDArray[np.float64]
    close_keys: NDArray[np.int32]


def row_scratch(keys: int) -> tuple[RowScratch]:
    numbers = np.empty(keys, np.float32)
    ranks = lambda: np.empty(keys, np.uint32)  # noqa: E731
    positions = lambda: np.empty(keys, np.int32)  # noqa: E731
    scratch = RowScratch(
        numbers, numbers.view(np.uint32), ranks(), ranks(), positions(), positions(), np.empty(3 * BINS, np.int64),
        np.empty(keys), positions(),
    )  # fmt: skip
    return (scratch,)


@kernel()
def sort_range(
    low: int, high: int, part: Any, width: int, rows: Any, lag: int, elements: int, precision: Any, images: Any,
    best: Any, scratch: Any,
) -> None:  # fmt: skip
    """Compute the similarities of each query to all keys, and sort the k best of them into its list."""
    items, key_items, positions, in_item = rows.items, rows.key_items, rows.positions, rows.in_item
    products, columns = part.products, part.columns
    index, similarity, k = best.indices, best.similarity, best.k
    number, bits, ranks, other_ranks = scratch.number, scratch.bits, scratch.ranks, scratch.other_ranks
    keys, other_keys, bins = scratch.keys, scratch.other_keys, scratch.bins
    close, close_keys = scratch.close, scratch.close_keys
    kind = images.patches.kind
    nothing = -np.inf
    for row in range(low, high):
        i = positions[row]
        if i < 0:
            continue
        group = row // in_item
        q_item, k_item = items[group], key_items[group]
        q = rows.norms[row]
        found = 0
        for c in range(width):
            j = columns[group * width + c]
            if j < 0 or (lag >= 0 and j + lag > i):
                continue
            s = np.float64(products[row * width + c])
            s = s - q * q if kind == L2 else s * images.scale
            error = products_error(q, part.norms[group * width + c], kind, elements, precision)
            if kind != L2:
                error *= images.scale
            if not error <= NEGLIGIBLE * abs(s):  # nor if one of them is not finite
                s = measure_in(q_item, i, k_item, j, images, nothing)
            number[found] = s
            if number[found] > nothing:
                ranks[found] = _rank(bits[found])
                keys[found] = j
                found += 1
        found = _best(ranks, keys, found, k, bins)
        _sort(ranks, other_ranks, keys, other_keys, found, bins)
        start = (group * rows.queries + i) * k
        at = 0
        while at < min(found, k):
            end = at + 1
            while end < found and other_ranks[end] - other_ranks[end - 1] <= CLOSE:
                end += 1
            if end - at == 1:
                bits[0] = _rank(other_ranks[at])
                index[start + at], similarity[start + at] = other_keys[at], number[0]
            else:
                clear(close, close_keys, 0, end - at)
                for m in range(at, end):
                    j = np.int64(other_keys[m])
                    s = measure_in(q_item, i, k_item, j, images, nothing)
                    offer(s, j, close, close_keys, 0, end - at)
                sort_best_first(close, close_keys, 0, end - at)
                for m in range(at, min(end, k)):
                    index[start + m], similarity[start + m] = close_keys[m - at], close[m - at]
            at = end
        for m in range(start + min(found, k), start + k):
            index[m], similarity[m] = -1, nothing


@inlined
def _rank(bits: Any) -> Any:
    """Turn the bits of a float32 into an integer that is the smaller the larger the number; and back."""
    if bits == SIGN:
        bits = np.uint32(0)  # minus zero
    if bits & SIGN:
        return bits
    return bits ^ np.uint32(0x7FFFFFFF)


@inlined
def _best(ranks: Any, keys: Any, found: int, k: int, bins: Any) -> int:
    """Drop what is surely not among the k best, or close to them, by the first digits; return how many are left."""
    if found <= k:
        return found
    for m in range(BINS):
        bins[m] = 0
    for m in range(found):
        bins[ranks[m] >> np.uint32(21)] += 1
    total, last = 0, 0
    while total < k:
        total += bins[last]
        last += 1
    left = 0
    for m in range(found):
        if ranks[m] >> np.uint32(21) <= last:  # the k-th lies before `last`; what is close to it may lie in it
            ranks[left], keys[left] = ranks[m], keys[m]
            left += 1
    return left


@inlined
def _sort(ranks: Any, other_ranks: Any, keys: Any, other_keys: Any, found: int, bins: Any) -> None:
    """Sort by rank into the other arrays, equal ones in the order in which they come (three passes of 11 bits)."""
    for m in range(3 * BINS):
        bins[m] = 0
    for m in range(found):
        rank = ranks[m]
        bins[rank & np.uint32(2047)] += 1
        bins[BINS + ((rank >> np.uint32(11)) & np.uint32(2047))] += 1
        bins[2 * BINS + (rank >> np.uint32(22))] += 1
    for digit in range(3):
        total = 0
        for m in range(digit * BINS, (digit + 1) * BINS):
            total, bins[m] = total + bins[m], total
    for m in range(found):
        rank = ranks[m]
        at = bins[rank & np.uint32(2047)]
        bins[rank & np.uint32(2047)] = at + 1
        other_ranks[at], other_keys[at] = rank, keys[m]
    for m in range(found):
        rank = other_ranks[m]
        digit = BINS + ((rank >> np.uint32(11)) & np.uint32(2047))
        at = bins[digit]
        bins[digit] = at + 1
        ranks[at], keys[at] = rank, other_keys[m]
    for m in range(found):
        rank = ranks[m]
        digit = 2 * BINS + (rank >> np.uint32(22))
        at = bins[digit]
        bins[digit] = at + 1
        other_ranks[at], other_keys[at] = rank, keys[m]
