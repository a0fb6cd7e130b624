"""Constraints as the kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.arguments import Constraints
from patchattn.kernels.cpu.layout import three
from patchattn.kernels.cpu.matches import Limits

__all__ = ["Masks", "choice_rows", "limits_of", "mask_rows", "masks_of"]


@dataclass(frozen=True)
class Masks:
    """The masks of one batch item, flat; an empty array stands for no mask."""

    query: NDArray[np.bool_]
    key: NDArray[np.bool_]
    choices: tuple[NDArray[np.int32], NDArray[np.int32]]
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
    return Masks(_flat(constraints.query_mask, b), key_mask, _choices(key_mask, constraints, int(np.prod(key_size))))


def _choices(
    key_mask: NDArray[np.bool_], constraints: Constraints, keys: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`Masks.choices`."""
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


def choice_rows(
    constraints: Constraints, key_size: Sequence[int], heads: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """`Masks.choices`, a row of each for each item or one for all; in the third the number of allowed keys, as rows of
    the first are filled up.
    """
    keys = int(np.prod(key_size))
    choices = [_choices(row, constraints, keys) for row in mask_rows(constraints.key_mask, 1)]
    counts = np.array([[allowed.size] for allowed, _ in choices], np.int32)
    padded = np.zeros((len(choices), keys), np.int32)
    for row, (allowed, _) in zip(padded, choices, strict=True):
        row[: allowed.size] = allowed
    rows = padded, np.stack([up_to for _, up_to in choices]), counts
    return tuple(part.repeat(heads, 0) if len(part) > 1 else part for part in rows)


def _flat(mask: Tensor | None, b: int) -> NDArray[np.bool_]:
    rows = mask_rows(mask, 1)
    return rows[b % len(rows)]
