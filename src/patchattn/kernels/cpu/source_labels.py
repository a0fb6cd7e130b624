"""Alpha-expansion over the offsets from which the pixels of a hole are copied (`tasks.source_labels`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.graph_cut import SINK, max_flow

__all__ = ["expand_labels"]


def expand_labels(
    labels: NDArray[np.int32],
    order: NDArray[np.int32],
    offsets: NDArray[np.int32],
    image: NDArray[np.float32],
    compared: NDArray[np.float32],
    target: NDArray[np.float32],
    hole: NDArray[np.bool_],
    sources: NDArray[np.bool_],
    reach: int,
) -> float:
    """Run one move of alpha-expansion for each label in turn (Boykov et al. 2001); see `tasks.source_labels`.

    A move that would raise the energy, as one of a difference that is no metric may, is not made.

    Args:
        labels: `(height, width)`, in the hole; changed in place.
        order: the labels to expand.
        offsets: `(labels, 2)`, rows and columns.
        image: `(height, width, channels)`, compared at seams; 0 in the hole.
        compared: `(height, width, features)` of what is copied; there may be none.
        target: the same of each pixel, that copies are to resemble.
        hole: `(height, width)`.
        sources: what may be copied.
        reach: a pixel takes a label that stood within so many pixels before the call; 0: any.

    Returns:
        By how much the energy fell.
    """
    height, width = hole.shape
    position = np.flatnonzero(hole).astype(np.int64)
    n = len(position)
    node = np.full((height + 2, width + 2), -1, np.int32)
    node[1:-1, 1:-1][hole] = np.arange(n)
    sides = node[1:-1, 2:], node[1:-1, :-2], node[2:, 1:-1], node[:-2, 1:-1]
    grid = np.stack([side[hole] for side in sides], 1)
    start = np.where(hole, labels, -1).reshape(-1)
    integers = [np.empty(n, np.int32) for _ in range(9)]
    planes = [plane.reshape(height * width, plane.shape[2]) for plane in (image, compared, target)]
    return float(
        _expand(
            labels.reshape(-1), start, order, offsets, *planes, hole.reshape(-1), sources.reshape(-1), height, width,
            reach, position, grid, np.empty(n), np.empty((n, 4), np.int32), np.empty((n, 4)), np.empty(n), *integers,
            np.empty(2, np.int64),
        )
    )  # fmt: skip


@inlined
def _shifted(row: Any, column: Any, offsets: Any, label: Any, height: Any, width: Any) -> Any:
    """The position at an offset, the nearest one for a position outside."""
    y = min(max(row + offsets[label, 0], 0), height - 1)
    x = min(max(column + offsets[label, 1], 0), width - 1)
    return y * width + x


@inlined
def _difference(one: Any, other: Any, i: Any, j: Any) -> Any:
    total = 0.0
    for c in range(one.shape[1]):
        step = np.float64(one[i, c]) - np.float64(other[j, c])
        total += step * step
    return total


@kernel()
def _own_cost(
    at: Any, label: Any, offsets: Any, image: Any, compared: Any, target: Any, hole: Any, sources: Any, height: Any,
    width: Any,
) -> Any:  # fmt: skip
    """Cost of a label at a pixel without its neighbors in the hole; infinity where it may not be copied."""
    row, column = at // width, at % width
    y, x = row + offsets[label, 0], column + offsets[label, 1]
    if y < 0 or y >= height or x < 0 or x >= width or not sources[y * width + x]:
        return np.inf
    cost = _difference(target, compared, at, y * width + x)
    for d in range(4):
        beside_row, beside_column = _beside(row, column, d)
        if 0 <= beside_row < height and 0 <= beside_column < width:
            beside = beside_row * width + beside_column
            if not hole[beside]:
                there = _shifted(beside_row, beside_column, offsets, label, height, width)
                cost += _difference(image, image, beside, there)
    return cost


@kernel()
def _seam_cost(at: Any, beside: Any, one: Any, other: Any, offsets: Any, image: Any, height: Any, width: Any) -> Any:
    """Cost of the seam between two pixels beside each other with these labels."""
    if one == other:
        return 0.0
    cost = 0.0
    for pixel in (at, beside):
        row, column = pixel // width, pixel % width
        first = _shifted(row, column, offsets, one, height, width)
        second = _shifted(row, column, offsets, other, height, width)
        cost += _difference(image, image, first, second)
    return cost


@inlined
def _beside(row: Any, column: Any, d: Any) -> Any:
    """The pixel to the right, left, below or above."""
    if d == 0:
        return row, column + 1
    if d == 1:
        return row, column - 1
    if d == 2:
        return row + 1, column
    return row - 1, column


@kernel()
def _is_near(at: Any, label: Any, start: Any, height: Any, width: Any, reach: Any) -> Any:
    row, column = at // width, at % width
    for y in range(max(row - reach, 0), min(row + reach, height - 1) + 1):
        for x in range(max(column - reach, 0), min(column + reach, width - 1) + 1):
            if start[y * width + x] == label:
                return True
    return False


@kernel()
def _expand(
    labels: Any, start: Any, order: Any, offsets: Any, image: Any, compared: Any, target: Any, hole: Any, sources: Any,
    height: Any, width: Any, reach: Any, position: Any, grid: Any, own: Any, neighbors: Any, capacity: Any,
    terminal: Any, variable: Any, chosen: Any, tree: Any, parent: Any, stamp: Any, distance: Any, queue: Any,
    queued: Any, orphans: Any, ends: Any,
) -> Any:  # fmt: skip
    fallen = 0.0
    for i in range(position.size):
        own[i] = _own_cost(
            position[i], labels[position[i]], offsets, image, compared, target, hole, sources, height, width
        )
    for label in order:
        # Nodes of the graph: the pixels that may take the label.
        count = 0
        for i in range(position.size):
            variable[i] = -1
            at = position[i]
            if labels[at] == label or (reach > 0 and not _is_near(at, label, start, height, width, reach)):
                continue
            cost = _own_cost(at, label, offsets, image, compared, target, hole, sources, height, width)
            if cost < np.inf:
                variable[i], chosen[count], terminal[count] = count, i, cost - min(own[i], 1e12)
                count += 1
        if count == 0:
            continue
        for v in range(count):
            for d in range(4):
                neighbors[v, d], capacity[v, d] = -1, 0.0
        for v in range(count):
            at = position[chosen[v]]
            for d in range(4):
                other = grid[chosen[v], d]
                if other < 0:
                    continue
                w, beside = variable[other], position[other]
                mine, theirs = labels[at], labels[beside]
                keep = _seam_cost(at, beside, mine, theirs, offsets, image, height, width)
                take = _seam_cost(at, beside, label, theirs, offsets, image, height, width)
                if w < 0:
                    terminal[v] += take - keep
                elif d in (0, 2):
                    # Both may change: keep-keep, keep-take, take-keep, 0 (Kolmogorov and Zabih 2004).
                    give = _seam_cost(at, beside, mine, label, offsets, image, height, width)
                    terminal[v] += take - keep
                    terminal[w] -= take
                    neighbors[v, d], neighbors[w, d ^ 1] = w, v
                    capacity[v, d] = max(give + take - keep, 0.0)
        max_flow(count, neighbors, capacity, terminal, tree, parent, stamp, distance, queue, queued, orphans, ends)
        change = _change(
            label, count, chosen, tree, position, grid, variable, labels, own, offsets, image, compared, target, hole,
            sources, height, width,
        )  # fmt: skip
        if change < -1e-9:
            fallen -= change
            for v in range(count):
                if tree[v] == SINK:
                    i = chosen[v]
                    labels[position[i]] = label
                    own[i] = _own_cost(
                        position[i], label, offsets, image, compared, target, hole, sources, height, width
                    )
    return fallen


@kernel()
def _change(
    label: Any, count: Any, chosen: Any, tree: Any, position: Any, grid: Any, variable: Any, labels: Any, own: Any,
    offsets: Any, image: Any, compared: Any, target: Any, hole: Any, sources: Any, height: Any, width: Any,
) -> Any:  # fmt: skip
    """By how much the energy changes if the nodes of the sink's side take the label."""
    change = 0.0
    for v in range(count):
        if tree[v] != SINK:
            continue
        at = position[chosen[v]]
        cost = _own_cost(at, label, offsets, image, compared, target, hole, sources, height, width)
        change += cost - min(own[chosen[v]], 1e12)
        for d in range(4):
            other = grid[chosen[v], d]
            if other < 0:
                continue
            w, beside = variable[other], position[other]
            before = _seam_cost(at, beside, labels[at], labels[beside], offsets, image, height, width)
            if w >= 0 and tree[w] == SINK:
                change -= before / 2  # seen from both
            else:
                change += _seam_cost(at, beside, label, labels[beside], offsets, image, height, width) - before
    return change
