"""Eigenvectors of small symmetric matrices.

A library's solver wakes threads of its own, which go on spinning for a while beside those of the search: 20 ms of a
processor for a matrix of 48 x 48.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import kernel

__all__ = ["eigh"]

MAX_SWEEPS = 30
"""Sweeps over all pairs; half a dozen are enough for 15 digits."""


def eigh(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, ascending, and the eigenvectors as columns, as `numpy.linalg.eigh` gives them but for signs."""
    lines = np.array(matrix, np.float64, order="C")
    vectors = np.eye(len(lines))
    _rotate(lines, vectors)
    values = lines.diagonal()
    order = np.argsort(values, kind="stable")
    return values[order], vectors[order].T


@kernel(vectorize=True)
def _rotate(a: Any, vectors: Any) -> None:
    """Jacobi's method: rotate pairs of axes until all that is off the diagonal is rounding; `vectors` in lines."""
    n = a.shape[0]
    for _ in range(MAX_SWEEPS):
        largest = 0.0
        for p in range(n - 1):
            for q in range(p + 1, n):
                off, left, right = a[p, q], a[p, p], a[q, q]
                small = abs(off) <= 1e-15 * np.sqrt(abs(left * right))
                if small or off == 0.0:
                    continue
                largest = max(largest, abs(off))
                theta = (right - left) / (2 * off)
                tangent = 1 / (abs(theta) + np.sqrt(theta * theta + 1))
                if theta < 0:
                    tangent = -tangent
                c = 1 / np.sqrt(tangent * tangent + 1)
                s = tangent * c
                for k in range(n):
                    x, y = a[p, k], a[q, k]
                    a[p, k] = c * x - s * y
                    a[q, k] = s * x + c * y
                    x, y = vectors[p, k], vectors[q, k]
                    vectors[p, k] = c * x - s * y
                    vectors[q, k] = s * x + c * y
                # The matrix is symmetric: columns are the lines, but for the four where both cross.
                a[p, p], a[q, q] = left - tangent * off, right + tangent * off
                a[p, q], a[q, p] = 0.0, 0.0
                for k in range(n):
                    a[k, p], a[k, q] = a[p, k], a[q, k]
        if largest == 0.0:
            return
