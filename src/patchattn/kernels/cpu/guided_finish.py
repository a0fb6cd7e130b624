"""Result of guided search: what the ranked lists hold, measured in full, and the best k of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.constraints import admissible
from patchattn.kernels.cpu.frame import place_in_frame
from patchattn.kernels.cpu.leaf_vectors import LANES, prefetch
from patchattn.kernels.cpu.list_vectors import merge_sorted
from patchattn.kernels.cpu.patch_differences import AT_ONCE, has_short_rows, squared_differences
from patchattn.kernels.cpu.patch_similarity import L2, measure_pair, offset_of
from patchattn.kernels.cpu.patch_sums import PatchSteps
from patchattn.kernels.cpu.ranked import position_in
from patchattn.kernels.cpu.topk import Index, contains, insert
from patchattn.kernels.parameters import EMPTY

__all__ = ["finish_range"]


@kernel()
def finish_range(
    low: int, high: int, slab: Any, pairs: Any, init: Any, lists: Any, k: int, candidate: Any, k_start: Any,
    measured: Any, bits: Any, new: Any, entries: Any,
) -> None:  # fmt: skip
    """Measure what each list holds, and the initial matches, in full: the best k of them are the result."""
    p, limits, query_mask = pairs.patches, pairs.limits, pairs.query_mask
    ranked, kept, frame = slab.entries, slab.length, slab.frame
    nothing = -pairs.query.dtype.type(np.inf)
    four_at_once = p.kind == L2 and has_short_rows(p.length, measured.itemsize)
    steps = PatchSteps(p.slices, p.rows, p.length, p.q_slice, p.q_row, p.k_slice, p.k_row, p.check)
    for n in range(low, high):
        i = slab.first + n
        if query_mask.size > 0 and not query_mask[i]:
            continue
        count = Index(0)
        for m in range(kept):
            entry = ranked[n * kept + m]
            if entry == EMPTY:
                break
            t, y, x = place_in_frame(position_in(entry), frame)
            candidate[count] = (t * p.k_h + y) * p.k_w + x
            k_start[count] = t * p.k_slice + y * p.k_row + x * p.channels
            count += Index(1)
        for m in range(init.shape[0]):
            j = np.int64(init[m, i])
            if j >= 0 and admissible(i, j, pairs.key_mask, p, limits) and not contains(candidate, Index(0), count, j):
                candidate[count] = j
                k_start[count] = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
                count += Index(1)
        q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        for c in range(count):
            for number in range(0, p.length, 16):
                prefetch(pairs.key, k_start[c] + number)
        if four_at_once:
            for c in range(AT_ONCE):
                k_start[count + c] = k_start[0]
            for c in range(0, count, AT_ONCE):
                squared_differences(pairs.query, q_start, pairs.key, k_start, c, steps, measured)
            for c in range(count):
                measured[c] = -measured[c]
        else:
            for c in range(count):
                measured[c] = measure_pair(pairs, q_start, k_start[c], i, candidate[c], nothing)
        if limits.separated or measured.itemsize != 4:
            for c in range(count):
                insert(candidate[c], measured[c], lists, 0, Index(i * k), Index(k), p, limits)
            continue
        # Without branches: one integer holds a similarity and, of equal ones, which comes first.
        for m in range(entries.size):
            entries[m] = EMPTY
        for c in range(count):
            entry = (_descending(bits[c]) << 32) | np.int64(c)
            new[c] = entry if measured[c] > nothing else EMPTY
        for m in range(LANES):
            new[count + m] = EMPTY
        for c in range(0, count, LANES):
            merge_sorted(entries, 0, entries.size // LANES, new, c)
        for m in range(k):
            if entries[m] == EMPTY:
                break
            c = entries[m] & 0xFFFFFFFF
            lists.indices[i * k + m] = candidate[c]
            lists.similarity[i * k + m] = measured[c]


@inlined
def _descending(bits: int) -> int:
    """An integer that is the smaller the larger the float32 of these bits is; -0 counts as 0."""
    signed = np.int64(bits)
    if signed >= 0:
        return ~signed
    return signed & 0x7FFFFFFF if signed != -0x80000000 else ~np.int64(0)
