"""Constraints: the keys that a query may match, and the matches that exclude each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import Extent, place_of, three
from patchattn.problem import Constraints

__all__ = ["Limits", "Window", "admissible", "chosen", "conflicting", "limits_of", "offset_window", "reach_of"]


class Limits(NamedTuple):
    """`Constraints` as kernels read them."""

    query: Extent
    key: Extent
    heads: Any
    query_mask: Any
    """uint8 `(batch or 1, queries)`, or None."""
    query_mask_rows: Any
    key_mask: Any
    key_mask_rows: Any
    lag: Any
    separation: Extent
    """Nearer than this in every dimension two matches conflict; 1: they must be distinct."""
    offset: Extent
    IS_CAUSAL: Any
    SEPARATED: Any
    WINDOWED: Any
    DIMS: Any
    """Dimensions that the images really have, the last ones."""


class Window(NamedTuple):
    """First and last key coordinate that each query may match, by dimension."""

    first: Extent
    last: Extent


def limits_of(constraints: Constraints, query_shape: tuple[int, ...], key_shape: tuple[int, ...], heads: int) -> Limits:
    dims = len(query_shape)
    separation = constraints.min_separation or (1,) * dims
    offset = constraints.max_offset or (0,) * dims
    query_mask, key_mask = _bytes(constraints.query_mask), _bytes(constraints.key_mask)
    return Limits(
        query=three(query_shape, 1),
        key=three(key_shape, 1),
        heads=heads,
        query_mask=query_mask,
        query_mask_rows=1 if query_mask is None else query_mask.shape[0],
        key_mask=key_mask,
        key_mask_rows=1 if key_mask is None else key_mask.shape[0],
        lag=constraints.lag,
        separation=three(tuple(max(1, least) for least in separation), 1),
        # An offset beyond the image is no limit, and might not fit into 32 bits.
        offset=three(tuple(min(most, size) for most, size in zip(offset, key_shape, strict=True)), 0),
        IS_CAUSAL=tl.constexpr(constraints.is_causal),
        SEPARATED=tl.constexpr(constraints.separated),
        WINDOWED=tl.constexpr(constraints.max_offset is not None),
        DIMS=tl.constexpr(dims),
    )


def _bytes(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.flatten(1).contiguous().view(torch.uint8)


@triton.jit
def chosen(limits, queries):
    """Mask of the queries that exist and get matches."""
    exists = queries.exists
    if limits.query_mask is not None:
        count = limits.query.t * limits.query.y * limits.query.x
        row = (queries.item // limits.heads) % limits.query_mask_rows
        allowed = tl.load(limits.query_mask + row.to(tl.int64) * count + queries.flat, mask=exists, other=0)
        exists = exists & (allowed != 0)
    return exists


@triton.jit
def offset_window(limits, queries):
    """The window of keys within `max_offset` of each query's home; without it the whole domain."""
    t0, t1 = _side(limits, queries.t, limits.query.t, limits.key.t, limits.offset.t)
    y0, y1 = _side(limits, queries.y, limits.query.y, limits.key.y, limits.offset.y)
    x0, x1 = _side(limits, queries.x, limits.query.x, limits.key.x, limits.offset.x)
    return Window(Extent(t0, y0, x0), Extent(t1, y1, x1))


@triton.jit
def _side(limits, coordinate, num_queries, num_keys, most):
    first = tl.zeros_like(coordinate)
    last = first + (num_keys - 1)
    if limits.WINDOWED:
        home = (((2 * coordinate.to(tl.int64) + 1) * num_keys) // (2 * num_queries)).to(tl.int32)
        first = tl.maximum(home - most, 0)
        last = tl.minimum(home + most, num_keys - 1)
    return first, last


@triton.jit
def reach_of(limits, queries):
    """The window in which keys near a match are drawn: under causality nothing beyond the query's own row."""
    window = offset_window(limits, queries)
    if limits.IS_CAUSAL:
        if limits.DIMS == 1:
            last = Extent(window.last.t, window.last.y, tl.minimum(window.last.x, queries.x))
        elif limits.DIMS == 2:
            last = Extent(window.last.t, tl.minimum(window.last.y, queries.y), window.last.x)
        else:
            last = Extent(tl.minimum(window.last.t, queries.t), window.last.y, window.last.x)
        window = Window(window.first, last)
    return window


@triton.jit
def admissible(limits, queries, window, key):
    """Mask of the keys (flat, -1 for none) that the queries may match, apart from the queries' own mask."""
    allowed = key >= 0
    if limits.IS_CAUSAL:
        allowed = allowed & (key + limits.lag <= queries.flat)
    if limits.WINDOWED:
        place = place_of(key, limits.key)
        allowed = allowed & (place.t >= window.first.t) & (place.t <= window.last.t)
        allowed = allowed & (place.y >= window.first.y) & (place.y <= window.last.y)
        allowed = allowed & (place.x >= window.first.x) & (place.x <= window.last.x)
    if limits.key_mask is not None:
        count = limits.key.t * limits.key.y * limits.key.x
        row = (queries.item // limits.heads) % limits.key_mask_rows
        at = tl.load(limits.key_mask + row.to(tl.int64) * count + key, mask=allowed, other=0)
        allowed = allowed & (at != 0)
    return allowed


@triton.jit
def conflicting(limits, first, second):
    """Mask of the pairs of keys (flat, at least 0) that may not be matches of one query together."""
    if limits.SEPARATED:
        one = place_of(first, limits.key)
        other = place_of(second, limits.key)
        conflict = tl.abs(one.t - other.t) < limits.separation.t
        conflict = conflict & (tl.abs(one.y - other.y) < limits.separation.y)
        conflict = conflict & (tl.abs(one.x - other.x) < limits.separation.x)
    else:
        conflict = first == second
    return conflict
