"""Lists of the k best keys, by products first and then measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.heap import clear, offer, sort_best_first
from patchattn.kernels.cpu.patch_similarity import COSINE, L2
from patchattn.kernels.cpu.product_blocks import measure_in
from patchattn.kernels.cpu.products_bound import least_product
from patchattn.kernels.cpu.vectors import find_above

__all__ = ["improve_range", "rank_range", "settle_range", "sort_lists_range"]

STRETCH = 128
"""Products that are passed over by one test."""


@kernel()
def rank_range(low: int, high: int, part: Any, width: int, rows: Any, lag: int, ranked: Any) -> None:
    """Keep the keys with the largest products; `lag` as in `Limits`, -1 without causality."""
    products, columns = part.products, part.columns
    positions, in_item, count = rows.positions, rows.in_item, rows.queries
    index, value, kept = ranked.indices, ranked.similarity, ranked.k
    for row in range(low, high):
        i = positions[row]
        if i < 0:
            continue
        group = row // in_item
        start = (group * count + i) * kept
        begin, end = row * width, (row + 1) * width
        at = find_above(products, begin, end, value[start])
        while at < end:
            j = columns[group * width + at - begin]
            if lag >= 0 and j + lag > i:
                break  # as are all that follow
            if j >= 0:
                offer(products[at], j, value, index, start, kept)
            at = find_above(products, at + 1, end, value[start])


@kernel()
def settle_range(
    low: int, high: int, rows: Any, longest: Any, elements: int, precision: Any, images: Any, ranked: Any, best: Any,
    unproven: Any,
) -> None:  # fmt: skip
    """Measure what was kept, list the k best, and say of which queries a key that was not kept may be better."""
    items, key_items, positions, in_item, count = rows.items, rows.key_items, rows.positions, rows.in_item, rows.queries
    index, similarity, k = best.indices, best.similarity, best.k
    kept, kind = ranked.k, images.patches.kind
    for row in range(low, high):
        i = positions[row]
        if i < 0:
            continue
        group = row // in_item
        n = group * count + i
        start = n * k
        clear(similarity, index, start, k)
        for m in range(n * kept, (n + 1) * kept):
            j = np.int64(ranked.indices[m])
            if j >= 0:
                s = measure_in(items[group], i, key_items[group], j, images, similarity[start])
                offer(s, j, similarity, index, start, k)
        sort_best_first(similarity, index, start, k)
        q, worst, last = rows.norms[row], similarity[start + k - 1], np.float64(ranked.similarity[n * kept])
        if ranked.indices[n * kept] < 0:
            # Nothing was left out but what has no product, or -inf: no finite key, unless sums overflow.
            size = 1.0
            if kind != COSINE:
                size = (q + longest[group]) * (q + longest[group])
            proven = size <= precision.largest
        else:
            proven = last < least_product(worst, q, longest[group], kind, images.scale, elements, precision)
        # NaN matches nothing, and nothing is nearer than 0.
        unproven[n] = not (proven or np.isnan(q) or (kind == L2 and worst == 0))


@kernel(vectorize=True)
def improve_range(
    low: int, high: int, part: Any, width: int, rows: Any, groups: Any, lag: int, elements: int, precision: Any,
    images: Any, best: Any,
) -> None:  # fmt: skip
    """Measure and offer every key that may be better than the worst in a heap."""
    items, key_items, positions, in_item, count = rows.items, rows.key_items, rows.positions, rows.in_item, rows.queries
    products, columns = part.products, part.columns
    index, similarity, k = best.indices, best.similarity, best.k
    kind = images.patches.kind
    for row in range(low, high):
        i = positions[row]
        if i < 0:
            continue
        group = row // in_item
        n = groups[group] * count + i
        start = n * k
        q, longest_key = rows.norms[row], part.longest[group]
        least = least_product(similarity[start], q, longest_key, kind, images.scale, elements, precision)
        for stretch in range(0, width, STRETCH):
            end = min(stretch + STRETCH, width)
            possible = 0
            for c in range(stretch, end):
                possible += not (products[row * width + c] < least)
            if possible == 0:
                continue
            for c in range(stretch, end):
                if products[row * width + c] < least:
                    continue
                j = columns[group * width + c]
                if j < 0 or (lag >= 0 and j + lag > i) or _contains(index, start, k, j):
                    continue
                worst = similarity[start]
                s = measure_in(items[group], i, key_items[group], j, images, worst)
                offer(s, j, similarity, index, start, k)
                if similarity[start] > worst:
                    least = least_product(similarity[start], q, longest_key, kind, images.scale, elements, precision)


@inlined
def _contains(index: Any, start: int, k: int, j: int) -> bool:
    found = False
    for m in range(start, start + k):
        found |= index[m] == j
    return found


@kernel()
def sort_lists_range(low: int, high: int, numbers: Any, best: Any) -> None:
    for n in range(low, high):
        sort_best_first(best.similarity, best.indices, numbers[n] * best.k, best.k)
