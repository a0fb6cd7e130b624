"""Sums along diagonals: those of plain loops, bit for bit, and their adjoint."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest

from patchattn.kernels.cpu.diagonals import gather_diagonals, spread_diagonals
from patchattn.kernels.cpu.vectors import SLACK

CASES = [
    ((23,), (29,), (5,)),
    ((9, 7), (8, 11), (3, 5)),
    ((1, 6), (40, 1), (1, 3)),
    ((3, 4, 2), (2, 4, 3), (3, 1, 3)),
]


def tables(rows: int, columns: int, size: int, dtype: Any) -> tuple[Any, Any, Any]:
    """A table, in memory for the larger one, and two buffers for that."""
    table = np.zeros(size + SLACK, dtype)
    table[: rows * columns] = np.random.default_rng(0).standard_normal(rows * columns)
    return table[: rows * columns].reshape(rows, columns), np.empty_like(table), np.empty_like(table)


def summed_by_loops(table: Any, rows: Any, columns: Any, patch: Any) -> Any:
    """The last dimension first, its terms in their order."""
    table = table.reshape(*rows, *columns)
    for dim in reversed(range(len(patch))):
        n, m = (table.shape[axis] - patch[dim] + 1 for axis in (dim, dim + len(patch)))
        total = np.zeros_like(table.take(range(n), dim).take(range(m), dim + len(patch)))
        for o in range(patch[dim]):
            total += table.take(range(o, o + n), dim).take(range(o, o + m), dim + len(patch))
        table = total
    return table


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("queries", "keys", "patch"), CASES)
def test_sums_are_those_of_loops(queries: Any, keys: Any, patch: Any, dtype: Any) -> None:
    rows, columns = (tuple(n + p - 1 for n, p in zip(size, patch, strict=True)) for size in (queries, keys))
    table, *buffers = tables(prod(rows), prod(columns), prod(rows) * prod(columns), dtype)
    expected = summed_by_loops(table, rows, columns, patch).reshape(prod(queries), prod(keys))
    assert np.array_equal(gather_diagonals(table, rows, columns, patch, *buffers), expected)


@pytest.mark.parametrize(("queries", "keys", "patch"), CASES)
def test_spreading_is_the_adjoint_of_gathering(queries: Any, keys: Any, patch: Any) -> None:
    rows, columns = (tuple(n + p - 1 for n, p in zip(size, patch, strict=True)) for size in (queries, keys))
    table, *buffers = tables(prod(queries), prod(keys), prod(rows) * prod(columns), np.float64)
    expected = np.zeros((*rows, *columns))
    for offset in product(*map(range, patch)):
        at = [slice(o, o + n) for size in (queries, keys) for o, n in zip(offset, size, strict=True)]
        expected[tuple(at)] += table.reshape(*queries, *keys)
    found = spread_diagonals(table, queries, keys, patch, *buffers)
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-13, atol=1e-13)
