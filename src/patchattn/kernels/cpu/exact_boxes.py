"""Exact search by box sums, one offset between query and key after the other.

Queries that are compared with the keys at one offset share nearly all pairs of pixels: each pair is looked at once, and
the patches' sums are those of boxes of such terms. They are made by doubling: of sums of 2, 4, 8, ... neighbors come
those of any number in 2 log2(p) additions, which are vector instructions in every dimension. A running sum would take
two, and lose digits by subtracting what it no longer holds. Here every sum is made of its own terms alone, in one order
wherever it is, so that it is as precise as a measured one, NaN stays where it is, and equal patches are exactly as
similar.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.exact_scan import is_apart
from patchattn.kernels.cpu.heap import offer, sort_best_first
from patchattn.kernels.cpu.padded_image import three
from patchattn.kernels.cpu.patch_similarity import COSINE, L1, L2
from patchattn.kernels.cpu.product_blocks import Images

__all__ = ["Boxes", "box_scratch", "boxes_for", "boxes_take_less", "planes_of", "scan_boxes_range"]

CELLS = 1 << 15
"""Terms of a block of queries that are held at a time: 256 KiB, three times."""
MIN_SIDE = 16
"""Queries along a side of a block, at least: its border of terms is as wide as the patch."""

STRETCH = 64
"""Similarities that are passed over by one test."""

CELL, CHANNEL = 15.0, 2.2
"""Nanoseconds of a term's sums, and of each channel of it; beside"""
PAIR, ELEMENT = 60.0, 0.2
"""those of a measured pair, and of each of its elements, most of which are passed over."""

Size = tuple[int, int, int]


class Boxes(NamedTuple):
    """The blocks that queries are cut into, and the keys that each may reach."""

    block: Size
    counts: Size
    """Blocks along each dimension."""
    blocks: int
    cells: int
    """Terms of a block, at most."""
    lows: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    """The first key coordinate within reach of each query coordinate, in each dimension."""
    highs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    """The last one."""


def boxes_for(patches: Any, limits: Any) -> Boxes:
    """Cut the queries into blocks whose terms fit into a processor's cache."""
    patch, queries, keys = _sizes(patches)
    block = list(queries)
    while prod(_padded(block, patch)) > CELLS:
        wide = [n if n > max(MIN_SIDE, p // 2) else 0 for n, p in zip(block, patch, strict=True)]
        if not any(wide):
            break
        block[int(np.argmax(wide))] = -(-max(wide) // 2)
    counts = [-(-n // b) for n, b in zip(queries, block, strict=True)]
    window = limits.window if limits.has_window else keys
    reach = [_reach(*of_dim) for of_dim in zip(queries, keys, window, strict=True)]
    lows, highs = zip(*reach, strict=True)
    return Boxes(
        three(tuple(block), 1), three(tuple(counts), 1), prod(counts), prod(_padded(block, patch)), lows, highs
    )


def boxes_take_less(boxes: Boxes, patches: Any, queries: int, allowed: int) -> bool:
    """Whether the box sums of an item take less time than measuring the keys within reach one by one.

    For so many queries that take part and keys that are allowed; sums are made for all.
    """
    patch, counts, keys = _sizes(patches)
    cells, pairs = 1, queries * allowed / (prod(counts) * prod(keys))
    for size, side, low, high in zip(patch, boxes.block, boxes.lows, boxes.highs, strict=True):
        within = int((high - low + 1).sum())
        at = np.arange(low.size)
        starts = np.arange(0, low.size, side)
        offsets = np.maximum.reduceat(high - at, starts) - np.minimum.reduceat(low - at, starts) + 1
        cells *= within + (size - 1) * int(offsets.sum())
        pairs *= within
    elements = prod(patch) * patches.channels
    return cells * (CELL + CHANNEL * patches.channels) < pairs * (PAIR + ELEMENT * elements)


def _sizes(patches: Any) -> tuple[Size, Size, Size]:
    """The sizes of patches, query and key."""
    p = patches
    return (p.slices, p.rows, p.length // p.channels), (p.q_t, p.q_h, p.q_w), (p.k_t, p.k_h, p.k_w)


def _padded(size: Sequence[int], patch: Size) -> list[int]:
    return [n + p - 1 for n, p in zip(size, patch, strict=True)]


def _reach(queries: int, keys: int, window: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`offset_window` along one dimension."""
    home = (2 * np.arange(queries) + 1) * keys // (2 * queries)
    return np.maximum(home - window, 0), np.minimum(home + window, keys - 1)


def planes_of(images: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Query and key channel by channel, flat: `(items, channels, *padded)`."""
    p = images.patches
    planes = [
        side.reshape(-1, t + p.slices - 1, h + p.rows - 1, w + p.length // p.channels - 1, p.channels)
        for side, t, h, w in ((images.query, p.q_t, p.q_h, p.q_w), (images.key, p.k_t, p.k_h, p.k_w))
    ]
    query, key = (np.moveaxis(side, -1, 1).reshape(-1) for side in planes)
    return query, key


def box_scratch(boxes: Boxes) -> tuple[NDArray[np.float64], ...]:
    """Arrays of one thread: three for terms and their sums, and the worst match of each query of a block."""
    return *(np.empty(boxes.cells) for _ in range(3)), np.empty(prod(boxes.block))


@kernel(vectorize=True)
def scan_boxes_range(
    low: int, high: int, rows: Any, asked: Any, allowed: Any, limits: Any, images: Any, planes: Any, boxes: Any,
    best: Any, terms: Any, spare: Any, sums: Any, worst: Any,
) -> None:  # fmt: skip
    """Compare the queries of some blocks with every key within reach; see `scan_range`.

    Offsets ascend, and with them the keys of a query, so that of equals the first one is held.
    """
    p, lows, highs = images.patches, boxes.lows, boxes.highs
    index, similarity, k = best.indices, best.similarity, best.k
    (b_t, b_y, b_x), (_, n_y, n_x) = boxes.block, boxes.counts
    same_size = p.q_t == p.k_t and p.q_h == p.k_h and p.q_w == p.k_w
    for number in range(low, high):
        group, block = number // boxes.blocks, number % boxes.blocks
        t0, y0, x0 = block // (n_y * n_x) * b_t, block // n_x % n_y * b_y, block % n_x * b_x
        t1, y1, x1 = min(t0 + b_t, p.q_t), min(y0 + b_y, p.q_h), min(x0 + b_x, p.q_w)
        of_block = (t0, y0, x0), (t1, y1, x1)
        first_t, last_t = _offsets(t0, t1, lows[0], highs[0])
        first_y, last_y = _offsets(y0, y1, lows[1], highs[1])
        first_x, last_x = _offsets(x0, x1, lows[2], highs[2])
        for m in range(k if limits.separated else 1):
            _forget_worst(group, of_block, asked, p, worst)
            for d_t in range(first_t, last_t + 1):
                t_a, t_b = _span(d_t, t0, t1, lows[0], highs[0])
                for d_y in range(first_y, last_y + 1):
                    y_a, y_b = _span(d_y, y0, y1, lows[1], highs[1])
                    if t_a == t_b or y_a == y_b:
                        continue
                    for d_x in range(first_x, last_x + 1):
                        x_a, x_b = _span(d_x, x0, x1, lows[2], highs[2])
                        offset = (d_t * p.k_h + d_y) * p.k_w + d_x
                        if x_a == x_b or (limits.is_causal and same_size and offset + limits.lag > 0):
                            continue
                        box = (t_a, y_a, x_a), (t_b, y_b, x_b), (t_a + d_t, y_a + d_y, x_a + d_x)
                        _write_terms(rows.items[group], rows.key_items[group], box, p, images.function, planes, terms)
                        in_place = _sum_boxes(box, p, terms, spare, sums)
                        found = terms if in_place else sums
                        _offer_box(group, m, of_block, box, found, rows, allowed, limits, images, best, worst)
        if limits.separated:
            continue
        for t in range(t0, t1):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    i = (t * p.q_h + y) * p.q_w + x
                    sort_best_first(similarity, index, (group * rows.queries + i) * k, k)


@inlined
def _forget_worst(group: int, block: Any, asked: Any, patches: Any, worst: Any) -> None:
    """No query of a block has a match; those that may not have any hold the best there is."""
    p, ((t0, y0, x0), (t1, y1, x1)) = patches, block
    at = 0
    for t in range(t0, t1):
        for y in range(y0, y1):
            for x in range(x0, x1):
                takes_part = asked.size == 0 or asked[group, (t * p.q_h + y) * p.q_w + x]
                worst[at] = -np.inf if takes_part else np.inf
                at += 1


@inlined
def _offer_box(
    group: int, m: int, block: Any, box: Any, sums: Any, rows: Any, allowed: Any, limits: Any, images: Any, best: Any,
    worst: Any,
) -> None:  # fmt: skip
    """Offer each query of a box the key that is compared with it; with a separation, for its m-th place."""
    p, k = images.patches, best.k
    index, similarity = best.indices, best.similarity
    (t0, y0, x0), (_, y1, x1) = block
    (t_a, y_a, x_a), (t_b, y_b, x_b), (k_t, k_y, k_x) = box
    places = 1 if limits.separated else k
    height, width = y_b - y_a + p.rows - 1, x_b - x_a + p.length // p.channels - 1
    count = x_b - x_a
    for t in range(t_b - t_a):
        for y in range(y_b - y_a):
            i = ((t_a + t) * p.q_h + y_a + y) * p.q_w + x_a
            j = ((k_t + t) * p.k_h + k_y + y) * p.k_w + k_x
            at, held = (t * height + y) * width, ((t_a + t - t0) * (y1 - y0) + y_a + y - y0) * (x1 - x0) + x_a - x0
            row, threshold = sums[at : at + count], worst[held : held + count]
            _scale(rows.items[group], i, rows.key_items[group], j, images, row)
            for stretch in range(0, count, STRETCH):
                end = min(stretch + STRETCH, count)
                better = 0
                for x in range(stretch, end):
                    better += row[x] > threshold[x]
                if better == 0:
                    continue
                for x in range(stretch, end):
                    if not row[x] > threshold[x]:
                        continue
                    if allowed.size > 0 and not allowed[group, j + x]:
                        continue
                    if limits.is_causal and j + x + limits.lag > i + x:
                        continue
                    start = (group * rows.queries + i + x) * k
                    if not is_apart(j + x, index, start, m, p, limits):
                        continue
                    offer(row[x], j + x, similarity, index, start + m, places)
                    threshold[x] = similarity[start + m]


@inlined
def _offsets(begin: int, end: int, lows: Any, highs: Any) -> tuple[int, int]:
    """The first and the last offset to a key within reach of any query of a block."""
    first, last = lows[begin] - begin, highs[begin] - begin
    for n in range(begin, end):
        first, last = min(first, lows[n] - n), max(last, highs[n] - n)
    return first, last


@inlined
def _span(offset: int, begin: int, end: int, lows: Any, highs: Any) -> tuple[int, int]:
    """The queries of a block within whose reach the key at an offset is; they follow each other.

    (The offset of the key that corresponds to a query only grows from query to query, or only falls.)
    """
    while begin < end and not lows[begin] <= begin + offset <= highs[begin]:
        begin += 1
    while end > begin and not lows[end - 1] <= end - 1 + offset <= highs[end - 1]:
        end -= 1
    return begin, end


@inlined
def _write_terms(
    q_item: int, k_item: int, box: Any, patches: Any, function: Any, planes: Any, terms: Any
) -> None:  # fmt: skip
    """Write what each pair of pixels of a box adds to similarities, summed over the channels."""
    p, (query, key) = patches, planes
    (t_a, y_a, x_a), (t_b, y_b, x_b), (k_t, k_y, k_x) = box
    column = p.length // p.channels - 1
    depth, height, n = t_b - t_a + p.slices - 1, y_b - y_a + p.rows - 1, x_b - x_a + column
    for t in range(depth):
        for y in range(height):
            at = (t * height + y) * n
            row = terms[at : at + n]
            for x in range(n):
                row[x] = 0
            for c in range(p.channels):
                q_at = (q_item * p.channels + c) * (p.q_t + p.slices - 1) + t_a + t
                q_at = (q_at * (p.q_h + p.rows - 1) + y_a + y) * (p.q_w + column) + x_a
                k_at = (k_item * p.channels + c) * (p.k_t + p.slices - 1) + k_t + t
                k_at = (k_at * (p.k_h + p.rows - 1) + k_y + y) * (p.k_w + column) + k_x
                a, b = query[q_at : q_at + n], key[k_at : k_at + n]
                if function is not None:
                    for x in range(n):
                        row[x] += function(a[x], b[x])
                elif p.kind == L2:
                    for x in range(n):
                        row[x] -= (a[x] - b[x]) * (a[x] - b[x])
                elif p.kind == L1:
                    for x in range(n):
                        row[x] -= abs(a[x] - b[x])
                else:
                    for x in range(n):
                        row[x] += a[x] * b[x]


@inlined
def _sum_boxes(box: Any, patches: Any, terms: Any, spare: Any, sums: Any) -> bool:
    """Sum the terms of each patch, to where it begins, in `sums`; or in `terms`, if it says so.

    What lies past the last patch of a row or column is no sum of a patch.
    """
    p, ((t_a, y_a, x_a), (t_b, y_b, x_b), _) = patches, box
    column = p.length // p.channels
    height, width = y_b - y_a + p.rows - 1, x_b - x_a + column - 1
    length = (t_b - t_a + p.slices - 1) * height * width
    in_place = True
    for dim in range(3):
        count, step = p.slices, height * width
        if dim == 1:
            count, step = p.rows, width
        elif dim == 2:
            count, step = column, 1
        if count > 1:
            _sum_neighbors(length, step, count, terms, spare, sums)
            length -= (count - 1) * step
            terms, sums = sums, terms
            in_place = not in_place
    return in_place


@inlined
def _sum_neighbors(length: int, step: int, count: int, terms: Any, spare: Any, sums: Any) -> None:
    """Write the sum of `count` terms, a step apart from each other, to where the first of them is."""
    ends = length - (count - 1) * step
    done, width = 0, 1
    while True:
        # `terms` are sums of `width` neighbors.
        if count & width:
            total, more = sums[:ends], terms[done * step : done * step + ends]
            if done == 0:
                for x in range(ends):
                    total[x] = more[x]
            else:
                for x in range(ends):
                    total[x] += more[x]
            done += width
        if done == count:
            return
        length -= width * step
        here, there, both = terms[:length], terms[width * step : width * step + length], spare[:length]
        for x in range(length):
            both[x] = here[x] + there[x]
        terms, spare = spare, terms
        width *= 2


@inlined
def _scale(q_item: int, i: int, k_item: int, j: int, images: Any, row: Any) -> None:
    """Turn sums of products into similarities."""
    p = images.patches
    if p.kind == COSINE:
        q_at, k_at = q_item * p.q_t * p.q_h * p.q_w + i, k_item * p.k_t * p.k_h * p.k_w + j
        for x in range(len(row)):
            row[x] = (row[x] * images.q_norms[q_at + x]) * images.k_norms[k_at + x]
    elif images.scale != 1:
        for x in range(len(row)):
            row[x] *= images.scale
