"""Random candidates: the keys that a search starts from, and those near a match."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from patchattn.kernels.gpu.random import draw
from patchattn.problem import Constraints

__all__ = ["Candidates", "candidates_of", "count_candidates", "draw_near", "nth_candidate"]


class Candidates(NamedTuple):
    """The keys that a mask allows, in ascending order; without a mask (None) all of them."""

    allowed: Any
    """int32 `(rows, keys)`."""
    up_to: Any
    """Number of allowed keys up to this one: int32 `(rows, keys)`."""
    rows: Any


def candidates_of(constraints: Constraints) -> Candidates:
    mask = constraints.key_mask
    if mask is None or constraints.max_offset is not None:
        return Candidates(None, None, 1)
    allowed = mask.flatten(1)
    ascending = torch.sort((~allowed).to(torch.uint8), dim=1, stable=True).indices
    return Candidates(ascending.int(), allowed.cumsum(1, dtype=torch.int32), allowed.shape[0])


@triton.jit
def count_candidates(candidates, limits, queries, window):
    """Number of keys that a query may start from: all that are admissible, and maybe more."""
    num_keys = limits.key.t * limits.key.y * limits.key.x
    if limits.WINDOWED:
        count = (window.last.t - window.first.t + 1) * (window.last.y - window.first.y + 1)
        count = count * (window.last.x - window.first.x + 1)
    elif candidates.up_to is not None:
        row = (queries.item // limits.heads) % candidates.rows
        last = tl.zeros_like(queries.flat) + (num_keys - 1)
        if limits.IS_CAUSAL:
            last = queries.flat - limits.lag
        there = queries.exists & (last >= 0)
        count = tl.load(candidates.up_to + row.to(tl.int64) * num_keys + last, mask=there, other=0)
    elif limits.IS_CAUSAL:
        count = queries.flat - limits.lag + 1
    else:
        count = tl.zeros_like(queries.flat) + num_keys
    return count


@triton.jit
def nth_candidate(candidates, limits, queries, window, number, wanted):
    """The key of that number, from 0; -1 where it is not wanted."""
    num_keys = limits.key.t * limits.key.y * limits.key.x
    if limits.WINDOWED:
        # A query outside the image may have an empty window.
        width = tl.maximum(window.last.x - window.first.x + 1, 1)
        height = tl.maximum(window.last.y - window.first.y + 1, 1)
        line = number // width
        t = window.first.t + line // height
        y = window.first.y + line % height
        key = (t * limits.key.y + y) * limits.key.x + window.first.x + number % width
    elif candidates.allowed is not None:
        row = (queries.item // limits.heads) % candidates.rows
        key = tl.load(candidates.allowed + row.to(tl.int64) * num_keys + number, mask=wanted, other=-1)
    else:
        key = number
    return tl.where(wanted, key, -1)


@triton.jit
def draw_near(own, number, center, radius, reach, limits):
    """A random key at most `radius` from `center` in each dimension, inside `reach`; a draw for each dimension."""
    t = center.t
    y = center.y
    if limits.DIMS == 3:
        t = draw(own, number, tl.maximum(reach.first.t, center.t - radius), tl.minimum(reach.last.t, center.t + radius))
    if limits.DIMS >= 2:
        at = number + (limits.DIMS - 2)
        y = draw(own, at, tl.maximum(reach.first.y, center.y - radius), tl.minimum(reach.last.y, center.y + radius))
    at = number + (limits.DIMS - 1)
    x = draw(own, at, tl.maximum(reach.first.x, center.x - radius), tl.minimum(reach.last.x, center.x + radius))
    return (t * limits.key.y + y) * limits.key.x + x
