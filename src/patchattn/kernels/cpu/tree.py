"""A balanced k-d tree over projected keys: leaves of eight, laid out for vector instructions.

The keys end up in blocks of eight, the leaves. Between two blocks lies a boundary, and each boundary is one node of the
tree: node b sends to its left what belongs in blocks before b. A range of blocks [low, high) is parted at its middle
one, so going down the tree is a binary search for the block, along another component at every step. All leaves are full
but the last, whose places left over hold what is farther from all than any key.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.aligned import aligned_array
from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.frame import Frame, framed
from patchattn.kernels.cpu.leaf_vectors import LANES, count_less
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.tree_vectors import add_components
from patchattn.kernels.parameters import COMPONENTS_PER_GROUP, HASH_MULTIPLIER, SPLIT_SAMPLE

__all__ = ["Tree", "build_tree", "leaves_for"]

SUBTREE = 512
"""Leaves below which a part of the tree is built by one thread from top to bottom."""
SORTED = 64
"""Keys of a node up to which sorting them all is faster than to find their middle."""
LEAF_CHUNK = 1024
NOWHERE = np.int64(20000 * 0x0001000100010001)
"""First group of components (four times 20000) of a place that no key is in: squared distances to it have more than 29
bits (queries' norms are at most MAX_NORM), so they are above all limits, and less than 32."""


class Tree(NamedTuple):
    axes: NDArray[np.int32]
    """Component that node b compares."""
    bounds: NDArray[np.int16]
    """Bound of node b: what is less goes to the left."""
    table: NDArray[np.int16]
    """The leaves' keys, see `leaf_vectors`."""
    members: NDArray[np.int32]
    """Framed position of each key in the table."""
    leaf_of: NDArray[np.int32]
    """Leaf of each key, by framed position; -1 outside the image, and for masked keys."""


def build_tree(rows: NDArray[np.int16], width: int, allowed: NDArray[np.int32], frame: Frame) -> Tree:
    """Part the allowed keys, whose components are `rows[j * width : (j + 1) * width]`."""
    count = allowed.size
    leaves = -(-count // LANES)
    order = allowed.astype(np.int32)
    packed = np.empty(count, np.int64)
    axes, bounds = np.zeros(leaves, np.int32), np.zeros(leaves, np.int16)
    parts = np.array([[0, leaves]], np.int32)

    def scratch() -> tuple[tuple[NDArray[Any], ...]]:
        sums, stack, chosen = (np.empty(size, np.int32) for size in (2 * width, 128, 2 * SPLIT_SAMPLE))
        return ((sums, stack, np.empty(SORTED, np.int64), chosen),)

    common = (rows, width, order, packed, axes, bounds)
    while (parts[:, 1] - parts[:, 0]).max() > SUBTREE:
        run_ranges(_part_range, len(parts), 1, parts, False, *common, scratch=scratch)
        middle = (parts[:, 0] + parts[:, 1]) // 2
        parts = np.stack([parts[:, 0], middle, middle, parts[:, 1]], 1).reshape(-1, 2)
    run_ranges(_part_range, len(parts), 1, parts, True, *common, scratch=scratch)
    del packed
    table = aligned_array(leaves * LANES * width, np.int16)
    members = np.empty(leaves * LANES, np.int32)
    leaf_of = np.full(frame.total, -1, np.int32)
    run_ranges(
        _fill_range, leaves, LEAF_CHUNK, rows.view(np.int64), width // COMPONENTS_PER_GROUP, order, frame,
        table.view(np.int64), members, leaf_of,
    )  # fmt: skip
    return Tree(axes, bounds, table, members, leaf_of)


@inlined
def leaves_for(queries: Any, at: int, width: int, count: int, axes: Any, bounds: Any, lows: Any, highs: Any) -> None:
    """Write to `lows` the leaves that the components of some queries lead to: those at `queries[at]` and what follows.

    All go down side by side, so that none waits for a node that another one asks for.
    """
    for m in range(count):
        lows[m], highs[m] = 0, axes.size
    widest = axes.size
    while widest > 1:
        for m in range(count):
            low, high = np.int64(lows[m]), np.int64(highs[m])
            middle = (low + high) >> 1
            left = (queries[at + m * width + axes[middle]] < bounds[middle]) & (middle > low)
            lows[m] = low if left else middle
            highs[m] = middle if left else high
        widest = (widest + 1) >> 1


@kernel(vectorize=True)
def _part_range(
    low: int, high: int, parts: Any, to_the_leaves: bool, rows: Any, width: int, order: Any, packed: Any, axes: Any,
    bounds: Any, scratch: Any,
) -> None:  # fmt: skip
    """Part ranges of leaves at their middle: once, or again and again down to single leaves."""
    sums, stack, few, chosen = scratch
    for n in range(low, high):
        stack[0], stack[1] = parts[n, 0], parts[n, 1]
        held = 2
        while held > 0:
            held -= 2
            first, last = np.int64(stack[held]), np.int64(stack[held + 1])
            if last - first < 2:
                continue
            middle = (first + last) >> 1
            start, end = first * LANES, min(last * LANES, order.size)
            axis = _widest(rows, width, order, start, end, sums, chosen)
            for at in range(start, end):
                key = np.int64(order[at])
                packed[at] = (np.int64(rows[key * width + axis]) << 32) | key
            if end - start <= SORTED:
                _sort_few(packed, start, end, few)
            else:
                _select(packed, start, end - 1, middle * LANES)
            for at in range(start, end):
                order[at] = packed[at] & 0x7FFFFFFF
            axes[middle], bounds[middle] = axis, packed[middle * LANES] >> 32
            if to_the_leaves:
                stack[held], stack[held + 1], stack[held + 2], stack[held + 3] = first, middle, middle, last
                held += 4


@inlined
def _widest(rows: Any, width: int, order: Any, start: int, end: int, sums: Any, chosen: Any) -> int:
    """Component of largest variance among a random SPLIT_SAMPLE of the keys, which depends on no order of them."""
    size = end - start
    for d in range(2 * width):
        sums[d] = 0
    count = size
    if size <= SPLIT_SAMPLE:
        add_components(rows, width, order, start, size, sums)
    else:
        count, waiting = 0, 0
        for at in range(start, end):
            key = order[at]
            lot = np.uint64(np.uint32(np.uint32(key) * np.uint32(HASH_MULTIPLIER)))
            if (lot * np.uint64(size)) >> np.uint64(32) < SPLIT_SAMPLE:
                chosen[waiting] = key
                waiting += 1
                count += 1
            if waiting == chosen.size or at == end - 1:
                add_components(rows, width, chosen, 0, waiting, sums)
                waiting = 0
    axis = 0
    widest = np.int64(-1)
    for d in range(width):
        spread = count * np.int64(sums[width + d]) - np.int64(sums[d]) * np.int64(sums[d])
        if spread > widest:
            widest, axis = spread, d
    return axis


@inlined
def _sort_few(values: Any, start: int, end: int, few: Any) -> None:
    """Sort values[start:end], at most SORTED, by counting for each how many are less: no branch depends on them."""
    size = end - start
    vectors = (size + LANES - 1) // LANES
    for n in range(size):
        few[n] = values[start + n]
    for n in range(size, vectors * LANES):
        few[n] = np.int64(2**63 - 1)
    for n in range(size):
        values[start + count_less(few, 0, vectors, few[n])] = few[n]


@inlined
def _select(values: Any, low: int, high: int, k: int) -> None:
    """Order values[low..high] so far that values[k] is where sorting would put it (quickselect; all are distinct)."""
    state = np.uint32(k)
    while low < high:
        # Pivots from places drawn at random: no order of the keys makes the time quadratic.
        state = np.uint32(state * np.uint32(1664525) + np.uint32(1013904223))
        span = np.uint64(high - low + 1)
        a = values[low + np.int64((np.uint64(state) * span) >> np.uint64(32))]
        state = np.uint32(state * np.uint32(1664525) + np.uint32(1013904223))
        b = values[low + np.int64((np.uint64(state) * span) >> np.uint64(32))]
        c = values[(low + high) >> 1]
        pivot = max(min(a, b), min(max(a, b), c))
        parted = _part(values, low, high, pivot)
        if parted == low:  # the pivot is the least of all
            parted = _part(values, low, high, pivot + 1)
            if k < parted:
                return
        if k < parted:
            high = parted - 1
        else:
            low = parted


@inlined
def _part(values: Any, low: int, high: int, bound: int) -> int:
    """Bring what is less than the bound to the front of values[low..high], without a branch; where the rest begins."""
    parted = low
    for at in range(low, high + 1):
        value = values[at]
        values[at] = values[parted]
        values[parted] = value
        parted += value < bound
    return parted


@kernel()
def _fill_range(
    low: int, high: int, rows: Any, groups: int, order: Any, frame: Any, table: Any, members: Any, leaf_of: Any
) -> None:
    """Lay out leaves; a group of components is one number of `rows` and `table`."""
    for leaf in range(low, high):
        # The order in which keys were parted left no trace: in a leaf they stand by position.
        for at in range(leaf * LANES + 1, min((leaf + 1) * LANES, order.size)):
            key = order[at]
            while at > leaf * LANES and order[at - 1] > key:
                order[at] = order[at - 1]
                at -= 1
            order[at] = key
        for lane in range(LANES):
            at = leaf * LANES + lane
            key = np.int64(order[at if at < order.size else leaf * LANES])
            position = framed(key, frame)
            members[at] = position
            leaf_of[position] = leaf
            for group in range(groups):
                value = rows[key * groups + group]
                if at >= order.size:
                    value = NOWHERE if group == 0 else np.int64(0)
                table[(leaf * groups + group) * LANES + lane] = value
