"""The neighborhoods of the matches, as a set: SCRAM's Algorithm 2, lines 2 to 6."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups, item_kernel, run_items
from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.constraints import admissible, limits_of, mask_rows
from patchattn.kernels.cpu.fields import lists_of, store_lists
from patchattn.kernels.cpu.grid import grid_of, place_in
from patchattn.kernels.cpu.padded_image import three
from patchattn.kernels.cpu.patch_similarity import CHUNK
from patchattn.problem import Constraints

__all__ = ["expand"]


def expand(index: Tensor, key_shape: tuple[int, ...], radius: tuple[int, ...], constraints: Constraints) -> Tensor:
    """Every match becomes the window of keys around it; a key that an earlier match has reached is not repeated.

    Returns:
        int32 `(B, heads, k * keys of a window, *query)`; -1 for what lies outside, is not admissible or repeats.
    """
    query_shape = tuple(index.shape[3:])
    grid, limits = grid_of(query_shape, key_shape), limits_of(constraints, len(key_shape))
    k, window = index.shape[2], prod(2 * r + 1 for r in radius)
    output = torch.empty((*index.shape[:2], k * window, *query_shape), dtype=torch.int32)
    count = prod(query_shape)
    items, heads = index.shape[0] * index.shape[1], index.shape[1]
    masks = [Each(mask_rows(mask, heads)) for mask in (constraints.query_mask, constraints.key_mask)]
    for group in groups(items, count):
        keys = np.empty((len(group), count * k * window), np.int32)
        run_items(
            _expand_range, group, count, CHUNK, Each(lists_of(index, group)), k, three(radius, 0), grid, limits,
            *masks, Each(keys),
        )  # fmt: skip
        store_lists(keys, group, output)
    return output


@item_kernel()
def _expand_range(
    low: int, high: int, index: Any, k: int, radius: Any, grid: Any, limits: Any, query_mask: Any, key_mask: Any,
    output: Any,
) -> None:  # fmt: skip
    g = grid
    window = (2 * radius[0] + 1) * (2 * radius[1] + 1) * (2 * radius[2] + 1)
    for i in range(low, high):
        at = i * k * window
        for n in range(at, at + k * window):
            output[n] = -1
        if query_mask.size > 0 and not query_mask[i]:
            continue
        for m in range(i * k, (i + 1) * k):
            if index[m] >= 0:
                t, y, x = place_in(np.int64(index[m]), g)
                slot = at + (m - i * k) * window
                for o_t in range(-radius[0], radius[0] + 1):
                    for o_y in range(-radius[1], radius[1] + 1):
                        for o_x in range(-radius[2], radius[2] + 1):
                            j_t, j_y, j_x = t + o_t, y + o_y, x + o_x
                            if 0 <= j_t < g.k_t and 0 <= j_y < g.k_h and 0 <= j_x < g.k_w:
                                j = (j_t * g.k_h + j_y) * g.k_w + j_x
                                if admissible(i, j, key_mask, g, limits) and not _reached(
                                    j_t, j_y, j_x, index, i * k, m, radius, g
                                ):
                                    output[slot] = j
                            slot += 1


@inlined
def _reached(t: int, y: int, x: int, index: Any, first: int, end: int, radius: Any, grid: Any) -> bool:
    """Whether a key lies in the window of one of the matches `first` to `end`."""
    for m in range(first, end):
        if index[m] >= 0:
            m_t, m_y, m_x = place_in(np.int64(index[m]), grid)
            if abs(t - m_t) <= radius[0] and abs(y - m_y) <= radius[1] and abs(x - m_x) <= radius[2]:
                return True
    return False
