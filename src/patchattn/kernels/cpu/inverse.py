"""A field turned round: for every key, the matches that point to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.batch import Each, item_kernel, run_items

__all__ = ["Inverse", "invert"]


class Inverse(NamedTuple):
    """Entries `first[j]` to `first[j + 1]` of `match`: the flat positions (query * k + m) of the matches to key j.

    A row of either for each item.
    """

    first: Any
    match: Any


def invert(index: NDArray[np.int32], keys: int) -> Inverse:
    """Sort the matches of each item by key.

    It is a counting sort, so in the order of the queries: gradients are summed in that order.
    """
    inverse = Inverse(np.zeros((len(index), keys + 1), np.int64), np.empty(index.shape, np.int64))
    items = len(index)
    run_items(_invert, range(items), 1, 1, *(Each(part) for part in (index, *inverse)))
    return inverse


@item_kernel()
def _invert(low: int, high: int, index: Any, first: Any, match: Any) -> None:
    """Sort the matches of one whole item."""
    for entry in range(index.size):
        if index[entry] >= 0:
            first[index[entry]] += 1
    total = 0
    for j in range(first.size):
        total += first[j]
        first[j] = total
    for entry in range(index.size - 1, -1, -1):
        j = index[entry]
        if j >= 0:
            first[j] -= 1
            match[first[j]] = entry
