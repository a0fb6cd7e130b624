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

__all__ = ["Masks", "limits_of", "masks_of"]


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
    keys = int(np.prod(key_size))
    allowed = np.flatnonzero(key_mask).astype(np.int32) if key_mask.size else np.arange(keys, dtype=np.int32)
    allowed_up_to = np.empty(0, np.int32)
    if constraints.is_causal:
        allowed_up_to = np.searchsorted(allowed, np.arange(keys) - constraints.lag, side="right").astype(np.int32)
    return Masks(_flat(constraints.query_mask, b), key_mask, (allowed, allowed_up_to))


def _flat(mask: Tensor | None, b: int) -> NDArray[np.bool_]:
    if mask is None:
        return np.empty(0, np.bool_)
    return mask[b if mask.shape[0] > 1 else 0].reshape(-1).contiguous().numpy()
