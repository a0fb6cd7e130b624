"""Similarities: how alike a query patch and a key patch are (larger is better)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["BY_PRODUCTS", "Similarity", "pointwise_similarity", "resolve_similarity"]

Pointwise = Callable[[Any, Any], Any]
PointwiseDerivative = Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Similarity:
    """A similarity of two patches; make your own with `pointwise_similarity`.

    `name` identifies it everywhere (operators take the name, since their schemas hold no objects). `function` and
    `derivative` are set for a user's own similarity only; the built-in ones are known to the kernels by name.
    """

    name: str
    function: Pointwise | None = None
    derivative: PointwiseDerivative | None = None


BY_PRODUCTS = ("l2", "dot", "scaled_dot", "cosine")
"""Those that a matrix product tells for all pairs of patches at once."""
BUILT_IN = (*BY_PRODUCTS, "l1")

_known = {name: Similarity(name) for name in BUILT_IN}
_counter = itertools.count()


def pointwise_similarity(function: Pointwise, derivative: PointwiseDerivative | None = None) -> Similarity:
    r"""Make a similarity from a function of two scalars.

    $$s(i, j) = \sum_{o \in \text{patch}} \sum_c f(q_{c, i + o}, k_{c, j + o})$$

    Args:
        function: `f(q, k)`, larger for scalars that are more alike. It is compiled by Numba for the CPU kernels and
            called with NumPy arrays by the reference: use operators, `abs` and NumPy's elementwise functions.
        derivative: `(q, k) -> (df/dq, df/dk)`, written alike. Needed only for gradients with respect to query and key.

    Returns:
        An object to pass as `similarity=` anywhere.

    Example:
        >>> from patchattn import pointwise_similarity
        >>> charbonnier = pointwise_similarity(
        ...     lambda q, k: -((1e-2 + (q - k) ** 2) ** 0.5),
        ...     lambda q, k: (-(q - k) / (1e-2 + (q - k) ** 2) ** 0.5, (q - k) / (1e-2 + (q - k) ** 2) ** 0.5),
        ... )
    """
    if not callable(function):
        raise ValueError(f"function: expected a function of two scalars, got {type(function).__name__}.")
    if derivative is not None and not callable(derivative):
        raise ValueError(f"derivative: expected a function of two scalars or None, got {type(derivative).__name__}.")
    name = f"pointwise_{next(_counter)}"
    _known[name] = Similarity(name, function, derivative)
    return _known[name]


def resolve_similarity(similarity: str | Similarity) -> Similarity:
    """Return the `Similarity` of a name, or the object itself."""
    if isinstance(similarity, Similarity):
        return similarity
    if not isinstance(similarity, str) or similarity not in _known:
        allowed = ", ".join(repr(name) for name in BUILT_IN)
        raise ValueError(
            f"similarity: got {similarity!r}; allowed are {allowed} and an object made by pointwise_similarity()."
        )
    return _known[similarity]
