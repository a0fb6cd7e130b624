"""The key that most of the patches that hold a query say it has."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups, item_kernel, run_items
from patchattn.kernels.cpu.constraints import admissible, limits_of, mask_rows
from patchattn.kernels.cpu.fields import lists_of, store_lists
from patchattn.kernels.cpu.grid import grid_of, place_in
from patchattn.kernels.cpu.padded_image import three
from patchattn.kernels.cpu.patch_similarity import CHUNK
from patchattn.problem import Constraints

__all__ = ["majority"]


def majority(
    index: Tensor, key_shape: tuple[int, ...], window: tuple[int, ...], constraints: Constraints
) -> tuple[Tensor, Tensor]:
    """Return the most frequent vote of every query's neighbors, the first key of those as frequent; and its share.

    Returns:
        int32 and float32 `(B, heads, 1, *query)`; -1 and 0 without any vote.
    """
    query_shape = tuple(index.shape[3:])
    grid, limits = grid_of(query_shape, key_shape), limits_of(constraints, len(key_shape))
    radius, k, count = three(tuple(size // 2 for size in window), 0), index.shape[2], prod(query_shape)
    shape = (*index.shape[:2], 1, *query_shape)
    key, share = torch.empty(shape, dtype=torch.int32), torch.empty(shape)
    items, heads = index.shape[0] * index.shape[1], index.shape[1]
    masks = [Each(mask_rows(mask, heads)) for mask in (constraints.query_mask, constraints.key_mask)]
    most = k * prod(2 * r + 1 for r in radius)
    for group in groups(items, count):
        keys, shares = np.empty((len(group), count), np.int32), np.empty((len(group), count), np.float32)
        run_items(
            _majority_range, group, count, CHUNK, Each(lists_of(index, group)), k, radius, grid, limits, *masks,
            Each(keys), Each(shares), scratch=lambda: (np.empty(most, np.int64), np.empty(most, np.int32)),
        )  # fmt: skip
        store_lists(keys, group, key)
        store_lists(shares, group, share)
    return key, share


@item_kernel()
def _majority_range(
    low: int, high: int, index: Any, k: int, radius: Any, grid: Any, limits: Any, query_mask: Any, key_mask: Any,
    keys: Any, shares: Any, voted: Any, votes: Any,
) -> None:  # fmt: skip
    g = grid
    for i in range(low, high):
        keys[i], shares[i] = -1, 0
        if query_mask.size > 0 and not query_mask[i]:
            continue
        i_t, i_y, i_x = i // (g.q_h * g.q_w), i // g.q_w % g.q_h, i % g.q_w
        distinct, total, last = 0, 0, 0
        for o_t in range(max(-radius[0], -i_t), min(radius[0], g.q_t - 1 - i_t) + 1):
            for o_y in range(max(-radius[1], -i_y), min(radius[1], g.q_h - 1 - i_y) + 1):
                for o_x in range(max(-radius[2], -i_x), min(radius[2], g.q_w - 1 - i_x) + 1):
                    neighbor = i + (o_t * g.q_h + o_y) * g.q_w + o_x
                    for m in range(neighbor * k, (neighbor + 1) * k):
                        if index[m] < 0:
                            continue
                        t, y, x = place_in(np.int64(index[m]), g)
                        t, y, x = t - o_t, y - o_y, x - o_x
                        if not (0 <= t < g.k_t and 0 <= y < g.k_h and 0 <= x < g.k_w):
                            continue
                        j = (t * g.k_h + y) * g.k_w + x
                        # Neighbors mostly agree: the last vote is looked at first.
                        if distinct == 0 or voted[last] != j:
                            last = 0
                            while last < distinct and voted[last] != j:
                                last += 1
                        if last == distinct:
                            if not admissible(i, j, key_mask, g, limits):
                                last = 0
                                continue
                            voted[last], votes[last] = j, 0
                            distinct += 1
                        votes[last] += 1
                        total += 1
        best = 0
        for n in range(1, distinct):
            if votes[n] > votes[best] or (votes[n] == votes[best] and voted[n] < voted[best]):
                best = n
        if distinct > 0:
            keys[i] = voted[best]
            shares[i] = np.float32(votes[best]) / np.float32(total)
