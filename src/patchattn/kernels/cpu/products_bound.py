"""Bounds of the error of computed products, and so of the similarities they stand for.

A product is r = 2 q.k - |k|^2 for l2, r = q.k otherwise, of patches that were rounded to the precision of the products
(unit roundoff u; for l2 minus a center first, for the cosine divided by their norms). docs/performance.md derives the
bounds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.patch_similarity import COSINE, L2

__all__ = ["Precision", "least_product", "precision_of", "products_error"]


class Precision(NamedTuple):
    """Precision of the products."""

    relative: float
    """Bound of the relative error of a sum of products, rounding of the factors and of float64 measuring included."""
    unit: float
    smallest: float
    """The smallest normal number: what is lost where a product underflows."""
    largest: float
    """Sums up to this do not overflow, nor do the parts of them."""


@lru_cache(256)
def precision_of(dtype: torch.dtype, elements: int, depth: int) -> Precision:
    """`depth`: the roundings that any term of a product passes through, at most; no more than there are elements."""
    numbers = torch.finfo(dtype)
    unit = numbers.eps / 2
    # For the products, and for the similarities in float64 that they are compared with.
    relative = _relative_error(depth + 16, unit) + _relative_error(elements + 16, 2.0**-53)
    return Precision(relative, unit, numbers.tiny, numbers.max / 8)


def _relative_error(roundings: int, unit: float) -> float:
    """The bound of so many roundings in a row: n u / (1 - n u); none beyond where it holds."""
    return roundings * unit / (1 - roundings * unit) if 2 * roundings * unit < 1 else np.inf


@inlined
def products_error(q: float, k: float, kind: int, elements: int, precision: Any) -> float:
    """The largest error of a product of patches with norms q and k; of |q - k|^2 computed from it, for l2."""
    if kind == L2:
        size = (q + k) * (q + k)
    elif kind == COSINE:
        size = 1.0
    else:
        size = q * k
    if not size <= precision.largest:
        return np.inf
    return precision.relative * size + 4 * (elements + 16) * precision.smallest


@inlined
def least_product(s: float, q: float, k: float, kind: int, scale: float, elements: int, precision: Any) -> float:
    """A key whose product is below this is less similar than s. -inf or NaN: nothing is proven.

    q is the norm of the query's patch; k, which l2 does without, the largest norm of a key's.
    """
    if kind != L2:
        return s / scale - products_error(q, k, kind, elements, precision)
    # Keys longer than `reach` are too far; of the others the error is bounded.
    lost = 4 * np.sqrt(1.0 * elements) * precision.smallest
    reach = (q + np.sqrt(-s)) * (1 + 8 * precision.unit) + lost
    edge = np.sqrt(-s) + 2 * precision.unit * (q + reach) + lost
    return q * q - edge * edge - products_error(q, reach, kind, elements, precision)
