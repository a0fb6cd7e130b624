"""Exact search of small images: one call of one kernel takes an item from its pixels to its matches.

As `exact.py` does it with many calls: products of pixels are summed along the diagonals, first along rows, then across
them; a few more keys than are wanted are kept and measured in float64, and where the bound of the products' error does
not prove that these are the best, all keys are measured. What is found is the same.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.constraints import mask_rows
from patchattn.kernels.cpu.exact_rows import NEGLIGIBLE
from patchattn.kernels.cpu.heap import clear, offer, sort_best_first
from patchattn.kernels.cpu.padded_image import PADDING_MODES, pad_item
from patchattn.kernels.cpu.patch_similarity import (
    COSINE,
    DOT,
    L2,
    NUMBERS_BETWEEN_CHECKS,
    Patches,
    kind_of,
    measure,
    offset_of,
)
from patchattn.kernels.cpu.patch_sums import PatchSteps, sum_product
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.products_bound import least_product, precision_of, products_error
from patchattn.kernels.cpu.vectors import SLACK, find_above, lower_bound, sum_runs, sum_scaled_runs
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["MAX_COSINE_NORM", "is_small", "search_small"]

PAIRS = 1 << 20
"""Pairs of a query and a key up to which an item is small."""
WORKSPACE = 1 << 19
"""Products that are kept at a time, at most: they stay in a processor's cache."""
TOGETHER = 1 << 16
"""Pairs in one range of work: the call of a kernel is cheap beside them."""
SHARED = 1 << 24
"""Multiplications and additions of an item from which on several threads share it: they take longer than a thread to
begin."""
ROWS = 4
"""Rows of queries in one range of work then, at least."""
SAMPLE = 15
"""Queries from which the center is computed."""
MAX_COSINE_NORM = 1e12
"""The largest norm of a patch, and 1 / the smallest, in sums for the cosine: products stay far from float32's ends."""
MARGIN, TINY, LARGEST = 2.0**-20, 2e-38, 3e38
"""Between a number and one just below it in float32; where there is none such between it and infinity."""
NEAR_ZERO = 3e-45
"""Bound of the two numbers of float32 that are next to 0."""


class Side(NamedTuple):
    """Query or key of one item, as working space."""

    pixels: NDArray[np.float64]
    """Padded, channel-last."""
    factors: NDArray[Any]
    """The numbers that are multiplied: channel after channel of the key, pixel after pixel of the query; and for l2
    one more channel, minus the key's squares, times 1.
    """
    squares: NDArray[np.float64]
    """Squares of the padded pixels as they are multiplied, summed over channels; then sums of these along rows."""
    norms: NDArray[np.float64]
    """Norms of the patches as they are multiplied."""
    inverse_norms: NDArray[np.float64]
    """For the cosine, 1 / norm of each patch."""


class SmallScratch(NamedTuple):
    """Working space of a thread."""

    query: Side
    key: Side
    center: NDArray[np.float64]
    sample: NDArray[np.float64]
    gram: NDArray[Any]
    """Products of a row of padded queries with all padded keys; none where they are their own sums along rows."""
    along_row: NDArray[Any]
    """Their sums along rows, for as many rows as a patch has; none where these are the products of patches."""
    products: NDArray[Any]
    """Those of one query with all keys; as wide as the padded keys."""
    row_starts: NDArray[np.int64]
    column_starts: NDArray[np.int64]
    ranked: NDArray[Any]
    ranked_keys: NDArray[np.int32]
    best: NDArray[np.float64]
    best_keys: NDArray[np.int32]
    item: NDArray[np.int64]
    """The item that all this is prepared for; -1: none."""
    reliable: NDArray[np.bool_]
    """Whether its products can be relied on."""


class Sizes(NamedTuple):
    """Sizes and settings that all items share."""

    patches: Patches
    heads: int
    padding: int
    """Number in `PADDING_MODES`."""
    k: int
    kept: int
    lag: int
    """As in `Limits`; -1 without causality."""
    rows: int
    """Rows of queries in one range of work."""
    sorts_rows: bool
    """Larger images with so many matches for a key have whole rows of similarities sorted, which come from products."""


def is_small(query: Tensor, key: Tensor, geometry: PatchGeometry, constraints: Constraints) -> bool:
    """Whether `search_small` can search these, and is faster."""
    if constraints.max_offset is not None or constraints.separated or query.dim() > 4:
        return False
    kind = kind_of(geometry)
    # The order in which a cosine's factors are multiplied is the compiler's, and shows in float64.
    if kind not in (L2, DOT, COSINE) or (kind == COSINE and query.dtype == torch.float64):
        return False
    p_h, p_w = (1, *geometry.patch_size)[-2:]
    q_w, k_h, k_w = query.shape[-1], (1, *key.shape[2:])[-2], key.shape[-1]
    along_row, gram = _workspace(q_w, p_h, p_w, (k_h + p_h - 1) * (k_w + p_w - 1))
    return 0 < prod(query.shape[2:]) * prod(key.shape[2:]) <= PAIRS and max(along_row, gram) <= WORKSPACE


def _workspace(q_w: int, p_h: int, p_w: int, padded_keys: int) -> tuple[int, int]:
    """Sums along rows, and products of pixels, that are kept at a time: none where a patch has but one of them."""
    along_row = 0 if p_h == p_w == 1 else p_h * q_w * padded_keys
    return along_row, 0 if p_w == 1 else (q_w + p_w - 1) * padded_keys


def search_small(
    query: Tensor, key: Tensor, k: int, geometry: PatchGeometry, constraints: Constraints, index: Tensor,
    similarity: Tensor, rows_from: int,
) -> bool:  # fmt: skip
    """Write the field; see `search_exact`. Return whether it is, to the last digit, that of sorted rows too."""
    heads, channels = geometry.num_heads, query.shape[1] // geometry.num_heads
    q_h, q_w = (1, *query.shape[2:])[-2:]
    k_h, k_w = (1, *key.shape[2:])[-2:]
    p_h, p_w = (1, *geometry.patch_size)[-2:]
    q_row, k_row = (q_w + p_w - 1) * channels, (k_w + p_w - 1) * channels
    length, keys = p_w * channels, k_h * k_w
    patches = Patches(
        kind_of(geometry), 1, p_h, length, channels, -(-NUMBERS_BETWEEN_CHECKS // length),
        1, q_h, q_w, (q_h + p_h - 1) * q_row, q_row, 1, k_h, k_w, (k_h + p_h - 1) * k_row, k_row,
    )  # fmt: skip
    dtype = np.float64 if query.dtype == torch.float64 else np.float32
    query_mask, key_mask = mask_rows(constraints.query_mask, 1), mask_rows(constraints.key_mask, 1)
    columns = keys if constraints.key_mask is None else int(key_mask.sum(1).max())
    items = query.shape[0] * heads
    # With fewer items than threads, several share an item. What they find is the same: a range of rows begins with the
    # sums of p_h - 1 rows that the one before it had too.
    alone = items >= torch.get_num_threads() or q_h * q_w * keys * (channels + p_h + p_w) < SHARED
    rows = q_h if alone else max(ROWS, 2 * (p_h - 1), -(-TOGETHER // (q_w * keys)))
    sizes = Sizes(
        patches, heads, PADDING_MODES[geometry.padding_mode], k, min(k + max(4, k // 2), keys),
        constraints.lag if constraints.is_causal else -1, min(rows, q_h),
        k * rows_from >= columns and dtype == np.float32,
    )  # fmt: skip
    precision = precision_of(similarity.dtype, p_h * length, channels + p_h + p_w + 1)
    rows_precision, unsure = precision_of(torch.float64, p_h * length, p_h * length), np.zeros(1, np.bool_)

    def side(h: int, w: int) -> Side:
        n, padded = h * w, (h + p_h - 1) * (w + p_w - 1)
        return Side(
            np.empty(padded * channels + SLACK), np.empty(padded * (channels + 1) + SLACK, dtype), np.empty(padded),
            np.empty(n), np.empty(n if patches.kind == COSINE else 0),
        )  # fmt: skip

    def scratch() -> tuple[SmallScratch]:
        padded_keys = (k_h + p_h - 1) * (k_w + p_w - 1)
        along_row, gram = _workspace(q_w, p_h, p_w, padded_keys)
        return (
            SmallScratch(
                side(q_h, q_w), side(k_h, k_w),
                np.empty(channels), np.empty(SAMPLE), np.empty(gram + SLACK, dtype),
                np.empty(along_row + SLACK, dtype), np.empty(padded_keys + SLACK, dtype),
                np.empty(p_w, np.int64), np.empty(p_h, np.int64), np.empty(sizes.kept, dtype),
                np.empty(sizes.kept, np.int32), np.empty(k), np.empty(k, np.int32), np.full(1, -1, np.int64),
                np.ones(1, np.bool_),
            ),
        )  # fmt: skip

    ranges = items * -(-q_h // sizes.rows)
    images = (_planes(x) for x in (query, key))
    run_ranges(
        _search_range, ranges, max(1, TOGETHER // (sizes.rows * q_w * keys)), *images, sizes, query_mask, key_mask,
        precision, rows_precision, geometry.scale(query.shape[1]), index.view(items, k, -1).numpy(),
        similarity.view(items, k, -1).numpy(), unsure, scratch=scratch,
    )  # fmt: skip
    return not unsure[0]


def _planes(image: Tensor) -> NDArray[Any]:
    """The numbers of an image, `(B, C, positions)`, in float32 or float64."""
    if image.dtype in (torch.float16, torch.bfloat16):
        image = image.float()
    array = np.ascontiguousarray(image.detach().numpy())
    return array.reshape(*array.shape[:2], -1)


@kernel()
def _search_range(
    low: int, high: int, query: Any, key: Any, sizes: Any, query_mask: Any, key_mask: Any, precision: Any,
    rows_precision: Any, scale: float, index: Any, similarity: Any, unsure: Any, scratch: Any,
) -> None:  # fmt: skip
    p = sizes.patches
    p_w = p.length // p.channels
    q_w, k_w = p.q_w + p_w - 1, p.k_w + p_w - 1
    padded_keys = (p.k_h + p.rows - 1) * k_w
    width = (p.k_h - 1) * k_w + p.k_w
    # 2 q.k - |k|^2, pixel by pixel, for l2.
    terms = p.channels + 1 if p.kind == L2 else p.channels
    gram, along_row, products = scratch.gram, scratch.along_row, scratch.products
    row_starts, column_starts = scratch.row_starts, scratch.column_starts
    for d in range(p_w):
        row_starts[d] = d * (padded_keys + 1)
    for lane in range(SLACK):
        products[width + lane] = -np.inf
    # Pixels are sums of one term.
    is_pixel = p_w == 1 and p.rows == 1
    multiplied = gram if p_w > 1 else along_row
    strips = -(-p.q_h // sizes.rows)
    for number in range(low, high):
        item, first = number // strips, number % strips * sizes.rows
        b = item // sizes.heads
        q_mask, k_mask = b % query_mask.shape[0], b % key_mask.shape[0]
        if scratch.item[0] != item:
            _prepare_item(item, query, key, sizes, scratch)
            scratch.item[0] = item
        reliable, longest = scratch.reliable[0], 0.0
        for j in range(p.k_h * p.k_w):
            norm = scratch.key.norms[j]
            if norm < np.inf and not (key_mask.shape[1] > 0 and not key_mask[k_mask, j]):
                longest = max(longest, norm)
        for row in range(first, min(first + sizes.rows, p.q_h) + p.rows - 1):
            place = row % p.rows
            if not is_pixel:
                for u in range(q_w):
                    to = u * padded_keys if p_w > 1 else (place * p.q_w + u) * padded_keys
                    _multiply(multiplied, to, row * q_w + u, terms, padded_keys, sizes, scratch)
            if p_w > 1:
                for x in range(p.q_w):
                    to = (place * p.q_w + x) * padded_keys
                    sum_runs(along_row, to, gram, row_starts, 0, p_w, x * padded_keys, padded_keys - p_w + 1)
            y = row - p.rows + 1
            if y < first:
                continue
            for d in range(p.rows):
                column_starts[d] = (y + d) % p.rows * p.q_w * padded_keys + d * k_w
            for x in range(p.q_w):
                i = y * p.q_w + x
                if query_mask.shape[1] > 0 and not query_mask[q_mask, i]:
                    for m in range(sizes.k):
                        index[item, m, i], similarity[item, m, i] = -1, -np.inf
                    continue
                if is_pixel:
                    _multiply(products, 0, i, terms, padded_keys, sizes, scratch)
                else:
                    sum_runs(products, 0, along_row, column_starts, 0, p.rows, x * padded_keys, width)
                if p.kind == COSINE:
                    _scale_products(products, scratch.query.inverse_norms[i], scratch.key.inverse_norms, k_w, p)
                _rank(i, products, width, k_w, key_mask, k_mask, sizes, scratch)
                zeros = _settle(i, longest, reliable, key_mask, k_mask, scale, precision, sizes, scratch)
                for m in range(sizes.k):
                    s = similarity.dtype.type(scratch.best[m])
                    # What float32 has no number for is no match.
                    match = np.int64(scratch.best_keys[m])
                    if match >= 0 and _may_round_elsewhere(
                        i, match, scratch.best[m], scale, rows_precision, sizes, scratch
                    ):
                        unsure[0] = True
                    index[item, m, i] = match if s > -np.inf else -1
                    similarity[item, m, i] = 0 if s == 0 and zeros == 1 and sizes.sorts_rows else s


@inlined
def _prepare_item(item: int, query: Any, key: Any, sizes: Any, scratch: Any) -> None:
    """Pad an item's images, round what is multiplied, and find norms."""
    p = sizes.patches
    radius = (0, p.rows // 2, p.length // p.channels // 2)
    b, channel = item // sizes.heads, item % sizes.heads * p.channels
    own_query, own_key = query[b, channel : channel + p.channels], key[b % len(key), channel : channel + p.channels]
    pad_item(own_query, (1, p.q_h, p.q_w), radius, sizes.padding, scratch.query.pixels)
    pad_item(own_key, (1, p.k_h, p.k_w), radius, sizes.padding, scratch.key.pixels)
    _find_center(own_query, sizes, scratch)
    reliable = _prepare(scratch.query, p.q_h, p.q_w, p.q_row, True, sizes, scratch.center)
    scratch.reliable[0] = _prepare(scratch.key, p.k_h, p.k_w, p.k_row, False, sizes, scratch.center) and reliable


@inlined
def _multiply(output: Any, to: int, u: int, terms: int, padded_keys: int, sizes: Any, scratch: Any) -> None:
    """Multiply pixel u of the padded queries by all padded keys."""
    q_at = u * (sizes.patches.channels + 1)
    sum_scaled_runs(
        output, to, scratch.key.factors, padded_keys, scratch.query.factors, q_at, terms, padded_keys
    )  # fmt: skip


@inlined
def _find_center(query: Any, sizes: Any, scratch: Any) -> None:
    """The median of some pixels, for l2: the nearer to the queries it is, the fewer digits the products lose."""
    p, sample = sizes.patches, scratch.sample
    for c in range(p.channels):
        scratch.center[c] = 0
    if p.kind != L2:
        return
    queries = p.q_h * p.q_w
    step = -(-queries // SAMPLE)
    if sizes.lag >= 0:
        step = queries
    for c in range(p.channels):
        found = 0
        for i in range(0, queries, step):
            value = query[c, i]
            if abs(value) < np.inf:
                at = found
                while at > 0 and sample[at - 1] > value:
                    sample[at] = sample[at - 1]
                    at -= 1
                sample[at] = value
                found += 1
        if found > 0:
            scratch.center[c] = sample[(found - 1) // 2]


@inlined
def _prepare(side: Any, height: int, width: int, row_step: int, is_query: bool, sizes: Any, center: Any) -> bool:
    """Round what is multiplied, and find norms. Return whether products of such numbers can be relied on."""
    p = sizes.patches
    p_w = p.length // p.channels
    padded_width = width + p_w - 1
    padded = (height + p.rows - 1) * padded_width
    factors, squares, norms = side.factors, side.squares, side.norms
    number = factors.dtype
    for u in range(padded):
        square = 0.0
        for c in range(p.channels):
            value = number.type(side.pixels[u * p.channels + c] - center[c])
            square += np.float64(value) * np.float64(value)
            if is_query:
                factors[u * (p.channels + 1) + c] = 2 * value if p.kind == L2 else value
            else:
                factors[c * padded + u] = value
        squares[u] = square
        if is_query:
            factors[u * (p.channels + 1) + p.channels] = 1
        else:
            factors[p.channels * padded + u] = -square
    # Sums along rows take the place of what they are made of.
    for row in range(height + p.rows - 1):
        for x in range(width):
            total = 0.0
            for d in range(p_w):
                total += squares[row * padded_width + x + d]
            squares[row * padded_width + x] = total
    reliable = True
    for y in range(height):
        for x in range(width):
            i, total = y * width + x, 0.0
            for d in range(p.rows):
                total += squares[(y + d) * padded_width + x]
            norms[i] = np.sqrt(total)
            if p.kind == COSINE:
                start = offset_of(i, height, width, 0, row_step, p.channels)
                steps = PatchSteps(1, p.rows, p.length, 0, row_step, 0, row_step, p.check)
                square = sum_product(side.pixels, start, side.pixels, start, steps, side.pixels[start])
                inverse = 1 / np.sqrt(square) if square > 0 else 0.0
                side.inverse_norms[i] = inverse
                norms[i] *= inverse
                reliable = reliable and inverse < MAX_COSINE_NORM and (inverse == 0 or inverse > 1 / MAX_COSINE_NORM)
    return reliable


@inlined
def _scale_products(products: Any, q_inverse: float, k_inverses: Any, k_w: int, patches: Any) -> None:
    number = products.dtype
    factor = number.type(q_inverse)
    for y in range(patches.k_h):
        for x in range(patches.k_w):
            products[y * k_w + x] *= factor * number.type(k_inverses[y * patches.k_w + x])


@inlined
def _rank(i: int, products: Any, width: int, k_w: int, key_mask: Any, mask: int, sizes: Any, scratch: Any) -> None:
    """Keep the keys with the largest products."""
    p, value, keys, kept = sizes.patches, scratch.ranked, scratch.ranked_keys, sizes.kept
    clear(value, keys, 0, kept)
    floor = value[0]
    if sizes.lag < 0 and key_mask.shape[1] == 0:
        # All keys take part, and enough of them reach the bound: what is below it needs no offer.
        for row in range(p.k_h - 1):
            for between in range(row * k_w + p.k_w, (row + 1) * k_w):
                products[between] = -np.inf
        bound = np.float64(lower_bound(products, width, kept))
        # Just below it, also where numbers next to 0 are flushed to it: a key at the bound is offered.
        floor = products.dtype.type(bound - abs(bound) * MARGIN - TINY if bound < LARGEST else LARGEST)
    at = find_above(products, 0, width, floor)
    while at < width:
        y = np.int64(np.uint32(at) // np.uint32(k_w))
        x = at - y * k_w
        j = y * p.k_w + min(x, p.k_w - 1)
        if sizes.lag >= 0 and j + sizes.lag > i:
            break  # as are all that follow
        if x < p.k_w and (key_mask.shape[1] == 0 or key_mask[mask, j]):
            offer(products[at], j, value, keys, 0, kept)
        at = find_above(products, at + 1, width, max(value[0], floor))


@inlined
def _settle(
    i: int, longest: float, reliable: bool, key_mask: Any, mask: int, scale: float, precision: Any, sizes: Any,
    scratch: Any,
) -> int:  # fmt: skip
    """Measure what was kept, and all keys where a key that was not kept may be better; list the k best.

    Return how many are as good as 0.
    """
    p, best, keys, k = sizes.patches, scratch.best, scratch.best_keys, sizes.k
    clear(best, keys, 0, k)
    zeros = 0
    for m in range(sizes.kept):
        kept = np.int64(scratch.ranked_keys[m])
        if kept >= 0:
            s = _measure(i, kept, best[0], scale, sizes, scratch)
            offer(s, kept, best, keys, 0, k)
            zeros += abs(s) < NEAR_ZERO
    q, elements = scratch.query.norms[i], p.rows * p.length
    if scratch.ranked_keys[0] < 0:
        # Nothing was left out but what has no product, or -inf: no finite key, unless sums overflow.
        size = 1.0 if p.kind == COSINE else (q + longest) * (q + longest)
        proven = size <= precision.largest
    else:
        last = np.float64(scratch.ranked[0])
        # The worst of k is on top of the heap.
        proven = last < least_product(best[0], q, longest, p.kind, scale, elements, precision)
    if not ((proven and reliable) or np.isnan(q) or (p.kind == L2 and best[0] == 0)):
        clear(best, keys, 0, k)
        zeros = 0
        for j in range(p.k_h * p.k_w):
            if sizes.lag >= 0 and j + sizes.lag > i:
                break
            if key_mask.shape[1] == 0 or key_mask[mask, j]:
                s = _measure(i, j, best[0], scale, sizes, scratch)
                offer(s, j, best, keys, 0, k)
                zeros += abs(s) < NEAR_ZERO
    sort_best_first(best, keys, 0, k)
    return zeros


@inlined
def _measure(i: int, j: int, worst: float, scale: float, sizes: Any, scratch: Any) -> float:
    p, q, k = sizes.patches, scratch.query, scratch.key
    q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
    k_start = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
    return measure(q.pixels, q_start, k.pixels, k_start, i, j, q.inverse_norms, k.inverse_norms, scale, None, p, worst)


@inlined
def _may_round_elsewhere(i: int, j: int, s: float, scale: float, precision: Any, sizes: Any, scratch: Any) -> bool:
    """Whether a similarity that comes from a product may be rounded to another float32 than the measured one."""
    p = sizes.patches
    if not sizes.sorts_rows:
        return False
    error = products_error(scratch.query.norms[i], scratch.key.norms[j], p.kind, p.rows * p.length, precision)
    if p.kind != L2:
        error *= scale
    return error <= 16 * NEGLIGIBLE * abs(s) and np.float32(s - error) != np.float32(s + error)
