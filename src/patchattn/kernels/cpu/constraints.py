"""Constraints: the keys that a query may match, and the matches that exclude each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.padded_image import three
from patchattn.problem import Constraints

__all__ = [
    "Limits",
    "Masks",
    "admissible",
    "candidate_rows",
    "conflicting",
    "limits_of",
    "mask_rows",
    "masks_of",
    "offset_window",
]


class Limits(NamedTuple):
    """The constraints that are plain numbers."""

    dims: int
    """Number of spatial dimensions of the images."""
    is_causal: bool
    lag: int
    """1 if a causal match must lie before the query, 0 if it may be at it."""
    separated: bool
    separation: tuple[int, int, int]
    has_window: bool
    window: tuple[int, int, int]
    """max_offset."""


@dataclass(frozen=True)
class Masks:
    """The masks of one batch item, flat; an empty array stands for no mask."""

    query: NDArray[np.bool_]
    key: NDArray[np.bool_]
    candidates: tuple[NDArray[np.int32], NDArray[np.int32]]
    """The keys allowed by the mask, ascending; and, for causal search, how many of them each query may match (else
    empty)."""


def limits_of(constraints: Constraints, dims: int) -> Limits:
    offset = constraints.max_offset
    return Limits(
        dims=dims,
        is_causal=constraints.is_causal,
        lag=constraints.lag,
        separated=constraints.separated,
        separation=three(constraints.min_separation or (0,), 0),
        has_window=offset is not None,
        window=(0, 0, 0) if offset is None else three(offset, 0),
    )


def masks_of(constraints: Constraints, b: int, key_size: Sequence[int]) -> Masks:
    key_mask = _flat(constraints.key_mask, b)
    return Masks(_flat(constraints.query_mask, b), key_mask, _candidates(key_mask, constraints, int(np.prod(key_size))))


def _candidates(
    key_mask: NDArray[np.bool_], constraints: Constraints, keys: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`Masks.candidates`."""
    allowed = np.flatnonzero(key_mask).astype(np.int32) if key_mask.size else np.arange(keys, dtype=np.int32)
    allowed_up_to = np.empty(0, np.int32)
    if constraints.is_causal:
        allowed_up_to = np.searchsorted(allowed, np.arange(keys) - constraints.lag, side="right").astype(np.int32)
    return allowed, allowed_up_to


def mask_rows(mask: Tensor | None, heads: int) -> NDArray[np.bool_]:
    """A mask, flat: a row for each item, or one for all; no mask is a row of nothing."""
    if mask is None:
        return np.empty((1, 0), np.bool_)
    rows = mask.reshape(mask.shape[0], -1).contiguous().numpy()
    return rows.repeat(heads, 0) if len(rows) > 1 else rows


def candidate_rows(
    constraints: Constraints, key_size: Sequence[int], heads: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """`Masks.candidates`, a row of each for each item or one for all; the third array is the number of allowed keys, as
    the rows of the first are filled up.
    """
    keys = int(np.prod(key_size))
    candidates = [_candidates(row, constraints, keys) for row in mask_rows(constraints.key_mask, 1)]
    counts = np.array([[allowed.size] for allowed, _ in candidates], np.int32)
    padded = np.zeros((len(candidates), keys), np.int32)
    for row, (allowed, _) in zip(padded, candidates, strict=True):
        row[: allowed.size] = allowed
    rows = padded, np.stack([up_to for _, up_to in candidates]), counts
    return tuple(part.repeat(heads, 0) if len(part) > 1 else part for part in rows)


def _flat(mask: Tensor | None, b: int) -> NDArray[np.bool_]:
    rows = mask_rows(mask, 1)
    return rows[b % len(rows)]


@inlined
def home_of(q: int, n_query: int, n_key: int) -> int:
    """The key coordinate that corresponds to a query coordinate."""
    if n_query == n_key:
        return q
    return ((2 * q + 1) * n_key) // (2 * n_query)


@inlined
def offset_window(i: int, patches: Any, limits: Any) -> tuple[int, int, int, int, int, int]:
    """First and last key coordinate that query i may reach, in each dimension."""
    p = patches
    t0, t1, y0, y1, x0, x1 = 0, p.k_t - 1, 0, p.k_h - 1, 0, p.k_w - 1
    if limits.has_window:
        t = home_of(i // (p.q_w * p.q_h), p.q_t, p.k_t)
        y = home_of((i // p.q_w) % p.q_h, p.q_h, p.k_h)
        x = home_of(i % p.q_w, p.q_w, p.k_w)
        t0, t1 = max(t0, t - limits.window[0]), min(t1, t + limits.window[0])
        y0, y1 = max(y0, y - limits.window[1]), min(y1, y + limits.window[1])
        x0, x1 = max(x0, x - limits.window[2]), min(x1, x + limits.window[2])
    return t0, t1, y0, y1, x0, x1


@inlined
def admissible(i: int, j: int, key_mask: Any, patches: Any, limits: Any) -> bool:
    """Whether query i may match key j, apart from what is in its list."""
    if key_mask.size > 0 and not key_mask[j]:
        return False
    if limits.is_causal and j + limits.lag > i:
        return False
    if limits.has_window:
        p = patches
        i_x, j_x = i % p.q_w, j % p.k_w
        i_row, j_row = i // p.q_w, j // p.k_w
        if abs(j_x - home_of(i_x, p.q_w, p.k_w)) > limits.window[2]:
            return False
        if abs(j_row % p.k_h - home_of(i_row % p.q_h, p.q_h, p.k_h)) > limits.window[1]:
            return False
        if abs(j_row // p.k_h - home_of(i_row // p.q_h, p.q_t, p.k_t)) > limits.window[0]:
            return False
    return True


@inlined
def conflicting(a: int, b: int, patches: Any, limits: Any) -> bool:
    width, height = patches.k_w, patches.k_h
    n_t, n_y, n_x = max(1, limits.separation[0]), max(1, limits.separation[1]), max(1, limits.separation[2])
    # Most are far apart, which their positions tell without a division.
    if abs(a - b) > ((n_t - 1) * height + n_y - 1) * width + n_x - 1:
        return False
    a_row, b_row = a // width, b // width
    return (
        abs(a % width - b % width) < n_x
        and abs(a_row % height - b_row % height) < n_y
        and abs(a_row // height - b_row // height) < n_t
    )
