"""Max-flow on the grid of an image's pixels, by the algorithm of Boykov and Kolmogorov (2004)."""

from __future__ import annotations

from typing import Any

from patchattn.kernels.cpu.compiler import kernel

__all__ = ["SINK", "max_flow"]

NONE, TERMINAL, ORPHAN = -1, 4, 5
"""States of a node's parent: there is none, it is source or sink, it was lost. Other values are directions: 0 to 3 for
right, left, below and above, so that d and d ^ 1 are opposite."""
FREE, SOURCE, SINK = 0, 1, 2
FAR = 1 << 30
LEAST = 1e-12
"""Residual capacity that counts as none."""


@kernel()
def _walk_to_root(node: Any, time: Any, neighbors: Any, parent: Any, stamp: Any, distance: Any) -> Any:
    """Distance of a node from its terminal, FAR if its tree has lost it; marks what it has found on the way."""
    at, steps = node, 0
    while True:
        if stamp[at] == time:
            steps += distance[at]
            break
        up = parent[at]
        steps += 1
        if up == TERMINAL:
            stamp[at], distance[at] = time, 1
            break
        if up in (NONE, ORPHAN):
            return FAR
        at = neighbors[at, up]
    at, left = node, steps
    while stamp[at] != time:
        stamp[at], distance[at] = time, left
        left -= 1
        at = neighbors[at, parent[at]]
    return steps


@kernel()
def _adopt(
    orphans: Any, count: Any, time: Any, neighbors: Any, capacity: Any, tree: Any, parent: Any, stamp: Any,
    distance: Any, queue: Any, queued: Any, ends: Any, nodes: Any,
) -> None:  # fmt: skip
    """Give every orphan another parent in its tree, or set it free together with its children."""
    first = 0
    while first < count:
        node = orphans[first % nodes]
        first += 1
        best, nearest = NONE, FAR
        for d in range(4):
            other = neighbors[node, d]
            if other < 0 or tree[other] != tree[node]:
                continue
            residual = capacity[other, d ^ 1] if tree[node] == SOURCE else capacity[node, d]
            if residual > LEAST:
                steps = _walk_to_root(other, time, neighbors, parent, stamp, distance)
                if steps < nearest:
                    best, nearest = d, steps
        if best != NONE:
            parent[node], stamp[node], distance[node] = best, time, nearest + 1
            continue
        for d in range(4):
            other = neighbors[node, d]
            if other < 0 or tree[other] != tree[node]:
                continue
            residual = capacity[other, d ^ 1] if tree[node] == SOURCE else capacity[node, d]
            if residual > LEAST and not queued[other]:
                queue[ends[1] % nodes] = other
                queued[other] = 1
                ends[1] += 1
            if parent[other] == d ^ 1:
                parent[other] = ORPHAN
                orphans[count % nodes] = other
                count += 1
        tree[node], parent[node] = FREE, NONE


@kernel()
def _augment(node: Any, d: Any, neighbors: Any, capacity: Any, terminal: Any, parent: Any, orphans: Any) -> Any:
    """Push what the path through this edge, from a node of the source's tree to one of the sink's, can take.

    Return the number of orphans.
    """
    other = neighbors[node, d]
    flow = capacity[node, d]
    at = node
    while parent[at] != TERMINAL:
        up = parent[at]
        at = neighbors[at, up]
        flow = min(flow, capacity[at, up ^ 1])
    flow = min(flow, terminal[at])
    at = other
    while parent[at] != TERMINAL:
        flow = min(flow, capacity[at, parent[at]])
        at = neighbors[at, parent[at]]
    flow = min(flow, -terminal[at])

    count = 0
    capacity[node, d] -= flow
    capacity[other, d ^ 1] += flow
    at = node
    while parent[at] != TERMINAL:
        up = parent[at]
        above = neighbors[at, up]
        capacity[at, up] += flow
        capacity[above, up ^ 1] -= flow
        if capacity[above, up ^ 1] <= LEAST:
            parent[at] = ORPHAN
            orphans[count] = at
            count += 1
        at = above
    terminal[at] -= flow
    if terminal[at] <= LEAST:
        parent[at] = ORPHAN
        orphans[count] = at
        count += 1
    at = other
    while parent[at] != TERMINAL:
        up = parent[at]
        above = neighbors[at, up]
        capacity[above, up ^ 1] += flow
        capacity[at, up] -= flow
        if capacity[at, up] <= LEAST:
            parent[at] = ORPHAN
            orphans[count] = at
            count += 1
        at = above
    terminal[at] += flow
    if -terminal[at] <= LEAST:
        parent[at] = ORPHAN
        orphans[count] = at
        count += 1
    return count


@kernel()
def max_flow(
    nodes: Any, neighbors: Any, capacity: Any, terminal: Any, tree: Any, parent: Any, stamp: Any, distance: Any,
    queue: Any, queued: Any, orphans: Any, ends: Any,
) -> None:  # fmt: skip
    """Find a minimum cut; the nodes of the sink's side are those with `tree[i] == SINK` then.

    Args:
        nodes: their number; all arrays hold one entry for each at least.
        neighbors: int `(nodes, 4)`: right, left, below and above; -1: none.
        capacity: of the edges to these; what is left of it afterwards.
        terminal: capacity from the source less that to the sink; what is left of it afterwards.
        tree, parent, stamp, distance, queue, queued, orphans, ends: int scratch; two numbers of the last.
    """
    ends[0], ends[1] = 0, 0
    for node in range(nodes):
        stamp[node], distance[node], queued[node] = 0, 1, 0
        tree[node], parent[node] = FREE, NONE
        if abs(terminal[node]) > LEAST:
            tree[node] = SOURCE if terminal[node] > 0 else SINK
            parent[node] = TERMINAL
            queue[ends[1]], queued[node] = node, 1
            ends[1] += 1
    time = 0
    while ends[0] < ends[1]:
        node = queue[ends[0] % nodes]
        ends[0] += 1
        queued[node] = 0
        d = 0
        while d < 4 and tree[node] != FREE:
            other = neighbors[node, d]
            if other < 0:
                d += 1
                continue
            residual = capacity[node, d] if tree[node] == SOURCE else capacity[other, d ^ 1]
            if residual <= LEAST:
                d += 1
                continue
            if tree[other] == FREE:
                tree[other], parent[other] = tree[node], d ^ 1
                stamp[other], distance[other] = stamp[node], distance[node] + 1
                if not queued[other]:
                    queue[ends[1] % nodes], queued[other] = other, 1
                    ends[1] += 1
                d += 1
                continue
            if tree[other] == tree[node]:
                d += 1
                continue
            time += 1
            if tree[node] == SOURCE:
                count = _augment(node, d, neighbors, capacity, terminal, parent, orphans)
            else:
                count = _augment(other, d ^ 1, neighbors, capacity, terminal, parent, orphans)
            # The edge may lead on: it is looked at again, until it is full or the node is free.
            _adopt(orphans, count, time, neighbors, capacity, tree, parent, stamp, distance, queue, queued, ends, nodes)
