"""Random candidates: the keys that a search starts from, and those near a match, as the constraints allow."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.constraints import offset_window
from patchattn.kernels.cpu.random import draw

__all__ = ["count_candidates", "draw_near", "nth_candidate", "reach"]


@inlined
def count_candidates(i: int, allowed: Any, allowed_up_to: Any, patches: Any, limits: Any) -> int:
    """Number of keys that a first match of query i is drawn from."""
    if limits.has_window:
        t0, t1, y0, y1, x0, x1 = offset_window(i, patches, limits)
        return (t1 - t0 + 1) * (y1 - y0 + 1) * (x1 - x0 + 1)
    if limits.is_causal:
        return np.int64(allowed_up_to[i])
    return np.int64(allowed.size)


@inlined
def nth_candidate(i: int, r: int, allowed: Any, patches: Any, limits: Any) -> int:
    """The r-th of those keys; inside a window it may still be masked, or come after the query."""
    if limits.has_window:
        p = patches
        t0, _, y0, y1, x0, x1 = offset_window(i, patches, limits)
        n_y, n_x = y1 - y0 + 1, x1 - x0 + 1
        return ((t0 + r // (n_x * n_y)) * p.k_h + y0 + (r // n_x) % n_y) * p.k_w + x0 + r % n_x
    return np.int64(allowed[r])


@inlined
def reach(i: int, patches: Any, limits: Any) -> tuple[int, int, int, int, int, int]:
    """First and last key coordinate that the random search of query i may look at."""
    t0, t1, y0, y1, x0, x1 = offset_window(i, patches, limits)
    if limits.is_causal:
        # Nothing in a later slice (row, or column in one dimension) comes before the query.
        if limits.dims == 3:
            t1 = min(t1, i // (patches.q_w * patches.q_h))
        elif limits.dims == 2:
            y1 = min(y1, i // patches.q_w)
        else:
            x1 = min(x1, i)
    return t0, t1, y0, y1, x0, x1


@inlined
def draw_near(stream: Any, n: int, t: int, y: int, x: int, radius: int, bounds: Any, dims: int) -> tuple[int, int, int]:
    """The n-th random key within a radius of a key, inside the bounds.

    The dimensions in front that the image does not have draw no numbers.
    """
    t0, t1, y0, y1, x0, x1 = bounds
    j_t, j_y = np.int64(0), np.int64(0)
    first = n * dims
    if dims == 3:
        j_t = draw(stream, first, max(t0, t - radius), min(t1, t + radius))
    if dims >= 2:
        j_y = draw(stream, first + dims - 2, max(y0, y - radius), min(y1, y + radius))
    j_x = draw(stream, first + dims - 1, max(x0, x - radius), min(x1, x + radius))
    return j_t, j_y, j_x
