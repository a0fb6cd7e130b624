"""First lists of guided search: the leaf of each query, of its initial matches, and of random keys."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.candidates import count_candidates, nth_candidate
from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.frame import framed
from patchattn.kernels.cpu.random import draw, mix
from patchattn.kernels.cpu.ranked import bounds_of, fetch_leaf, offer, offer_leaves
from patchattn.kernels.cpu.tree import leaves_for
from patchattn.kernels.parameters import DRAWS_PER_MATCH, EMPTY, MAX_LISTED, SEED_LEAVES

__all__ = ["seed_range", "seed_scratch"]

TOGETHER = 16
"""Queries that go down the tree side by side."""


def seed_scratch() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Arrays of one thread: the leaves of queries that go down side by side and one more, and bounds on the way."""
    return np.empty(TOGETHER + 1, np.int32), np.empty(TOGETHER, np.int32)


@kernel()
def seed_range(
    low: int, high: int, slab: Any, k: int, key_of_draws: Any, allowed: Any, allowed_up_to: Any, init: Any,
    work: Any, leaves: Any, highs: Any,
) -> None:  # fmt: skip
    """Begin every list with the leaves of the initial matches and with the leaf that the tree leads to.

    Where constraints may forbid all of these, random keys that they allow join in (small sets of keys are gone
    through).
    """
    frame, patches, limits, tree = slab.frame, slab.patches, slab.limits, slab.tree
    lists, length, leaf_of, query_mask = slab.entries, slab.length, slab.tree.leaf_of, slab.query_mask
    limited = limits.is_causal or limits.has_window or limits.separated
    for n in range(low, high):
        i = slab.first + n
        together = (n - low) % TOGETHER
        if together == 0:
            count = min(TOGETHER, high - n)
            leaves_for(slab.components, n * slab.width, slab.width, count, tree.axes, tree.bounds, leaves, highs)
            for m in range(count):
                fetch_leaf(np.int64(leaves[m]), slab)
        start = n * length
        for m in range(length):
            lists[start + m] = EMPTY
        if query_mask.size > 0 and not query_mask[i]:
            continue
        within = bounds_of(n, slab)
        for m in range(init.shape[0]):
            j = np.int64(init[m, i])
            if j >= 0:
                leaf = np.int64(leaf_of[framed(j, frame)])
                if leaf >= 0:
                    offer(leaf, n, 0, slab, within, work)
        own = np.int64(leaves[together])
        least = SEED_LEAVES if limits.dims == 1 else 1
        # Leaves near in the tree, nearest first, until there are k matches.
        turn = np.int64(0)
        while turn < 2 * tree.axes.size and (not limited or turn < SEED_LEAVES):
            leaf = own ^ turn
            turn += 1
            if leaf < tree.axes.size:
                leaves[TOGETHER] = leaf
                offer_leaves(leaves, TOGETHER, TOGETHER + 1, 0, 0, n, 0, slab, within, work)
            if turn >= least and lists[start + k - 1] != EMPTY:
                break
        if not limited:
            continue
        num_candidates = count_candidates(i, allowed, allowed_up_to, patches, limits)
        go_through = num_candidates <= max(DRAWS_PER_MATCH * k, MAX_LISTED)
        own_draws = mix(np.uint32(key_of_draws ^ np.uint32(i)))
        tried = 0
        draws = num_candidates if go_through else DRAWS_PER_MATCH * k
        for r in range(draws):
            j = nth_candidate(
                i, r if go_through else draw(own_draws, r, 0, num_candidates - 1), allowed, patches, limits
            )
            leaf = np.int64(leaf_of[framed(j, frame)])
            if leaf >= 0:
                fetch_leaf(leaf, slab)
                work.trials[tried] = leaf
                tried += 1
            if tried == work.trials.size or r == draws - 1:
                offer_leaves(work.trials, 0, tried, 0, 0, n, 0, slab, within, work)
                tried = 0
