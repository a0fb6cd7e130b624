"""Exact search by measuring key after key."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.constraints import conflicting, offset_window
from patchattn.kernels.cpu.heap import offer, sort_best_first
from patchattn.kernels.cpu.product_blocks import measure_in

__all__ = ["is_apart", "scan_range"]


@kernel()
def scan_range(low: int, high: int, rows: Any, allowed: Any, limits: Any, images: Any, best: Any) -> None:
    """Measure every key within reach, one after the other.

    With a separation, the list that holds only matches apart from each other depends on the order in which keys come;
    what is asked for is the greedy choice, so the keys are gone through once for each match.
    """
    items, key_items, positions, in_item = rows.items, rows.key_items, rows.positions, rows.in_item
    index, similarity, k = best.indices, best.similarity, best.k
    p = images.patches
    rounds, places = (k, 1) if limits.separated else (1, k)
    for row in range(low, high):
        i = positions[row]
        if i < 0:
            continue
        group = row // in_item
        start = (group * rows.queries + i) * k
        t0, t1, y0, y1, x0, x1 = offset_window(i, p, limits)
        for m in range(rounds):
            at = start + m
            for t in range(t0, t1 + 1):
                for y in range(y0, y1 + 1):
                    for x in range(x0, x1 + 1):
                        j = (t * p.k_h + y) * p.k_w + x
                        if allowed.size > 0 and not allowed[group, j]:
                            continue
                        if limits.is_causal and j + limits.lag > i:
                            continue
                        if not is_apart(j, index, start, m, p, limits):
                            continue
                        s = measure_in(items[group], i, key_items[group], j, images, similarity[at])
                        offer(s, j, similarity, index, at, places)
        if not limits.separated:
            sort_best_first(similarity, index, start, k)


@inlined
def is_apart(j: int, index: Any, start: Any, chosen: int, patches: Any, limits: Any) -> bool:
    for m in range(chosen):
        other = index[start + m]
        if other >= 0 and conflicting(j, np.int64(other), patches, limits):
            return False
    return True
