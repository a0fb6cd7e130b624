"""Products of all pixels of two images, their sums along diagonals, and what is multiplied with them.

Images are channel-first here, `(channels, pixels)`, so that the loops inside run over neighboring pixels. Every sum is
computed by one thread, in one order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.pool import run_ranges

__all__ = ["add_products", "add_transposed_products", "gather_diagonals", "pair_products", "spread_diagonals"]

ROWS = 16
"""Rows in one range of work."""
COLUMNS = 512
"""Columns that are computed together: with 16 channels of an image they fill a first-level cache."""

Size = tuple[int, ...]


def pair_products(
    first: NDArray[Any], second: NDArray[Any], squared_differences: bool, output: NDArray[Any]
) -> NDArray[Any]:
    """Sum over the channels of the products, or squared differences, of all pixels: `(pixels, pixels)`, in `output`."""
    rows, columns = first.shape[1], second.shape[1]
    table = output[: rows * columns].reshape(rows, columns)
    run_ranges(_pair_range, rows, ROWS, first, second, squared_differences, table)
    return table


@kernel(vectorize=True)
def _pair_range(low: int, high: int, first: Any, second: Any, squared_differences: bool, output: Any) -> None:
    channels, columns = second.shape
    for left in range(0, columns, COLUMNS):
        right = min(left + COLUMNS, columns)
        for u in range(low, high):
            target = output[u, left:right]
            target[:] = 0
            for c in range(channels):
                x, source = first[c, u], second[c, left:right]
                if squared_differences:
                    for v in range(target.size):
                        difference = x - source[v]
                        target[v] += difference * difference
                else:
                    for v in range(target.size):
                        target[v] += x * source[v]


def gather_diagonals(
    table: NDArray[Any], rows: Size, columns: Size, patch: Size, output: NDArray[Any], spare: NDArray[Any]
) -> NDArray[Any]:
    """Sum over the pixels of patches: entry (i, j) is the sum over o of the table's (i + o, j + o), o in `patch`.

    `rows` and `columns` are the sizes of the two (padded) images. The result lies in `output` or `spare`, whichever
    the last step writes to.
    """
    return _along_each(table, rows, columns, patch, -1, output, spare)


def spread_diagonals(
    table: NDArray[Any], rows: Size, columns: Size, patch: Size, output: NDArray[Any], spare: NDArray[Any]
) -> NDArray[Any]:
    """The adjoint of `gather_diagonals`: entry (u, v) is the sum over o of the table's (u - o, v - o)."""
    return _along_each(table, rows, columns, patch, 1, output, spare)


def _along_each(
    table: NDArray[Any], rows: Size, columns: Size, patch: Size, sign: int, output: NDArray[Any], spare: NDArray[Any]
) -> NDArray[Any]:
    """One dimension after another, the last first: its runs are the shortest, and growing sizes come late."""
    rows, columns = tuple(rows), tuple(columns)
    for dim in reversed(range(len(patch))):
        if patch[dim] == 1:
            continue
        n, m, more = rows[dim], columns[dim], sign * (patch[dim] - 1)
        run = int(np.prod(columns[dim + 1 :]))
        between = int(np.prod(rows[dim + 1 :]) * np.prod(columns[:dim]))
        before = int(np.prod(rows[:dim]))
        shape = (before, n, between, m * run)
        target = output[: before * (n + more) * between * (m + more) * run]
        target = target.reshape(before, n + more, between, (m + more) * run)
        run_ranges(
            _diagonals_range, before * (n + more), 1, table.reshape(shape), patch[dim], run, target,
        )  # fmt: skip
        rows, columns = _longer(rows, dim, more), _longer(columns, dim, more)
        table, output, spare = target, spare, output
    return table.reshape(int(np.prod(rows)), int(np.prod(columns)))


def _longer(size: Size, dim: int, more: int) -> Size:
    return (*size[:dim], size[dim] + more, *size[dim + 1 :])


@kernel(vectorize=True)
def _diagonals_range(low: int, high: int, source: Any, patch: int, run: int, target: Any) -> None:
    n, between, length = target.shape[1], target.shape[2], target.shape[3]
    spreads = n > source.shape[1]
    shared = min(length, source.shape[3])
    for row in range(low, high):
        a, i = row // n, row % n
        for m in range(between):
            target[a, i, m, :] = 0
            for o in range(patch):
                if not spreads:
                    to, by = target[a, i, m, :shared], source[a, i + o, m, o * run : o * run + shared]
                elif 0 <= i - o < source.shape[1]:
                    to, by = target[a, i, m, o * run : o * run + shared], source[a, i - o, m, :shared]
                else:
                    continue
                for x in range(shared):
                    to[x] += by[x]


def add_products(table: NDArray[Any], image: NDArray[Any], output: NDArray[Any], at: NDArray[np.int64]) -> None:
    """Add `table @ image.T` to the pixels `at` of `output`, `(pixels, channels)`."""
    run_ranges(_products_range, len(table), ROWS, table, image, output, at)


@kernel(vectorize=True)
def _products_range(low: int, high: int, table: Any, image: Any, output: Any, at: Any) -> None:
    channels, columns = image.shape
    for left in range(0, columns, COLUMNS):
        right = min(left + COLUMNS, columns)
        for u in range(low, high):
            for c in range(channels):
                row, plane = table[u, left:right], image[c, left:right]
                total = row.dtype.type(0)
                for v in range(row.size):
                    total += row[v] * plane[v]
                output[at[u], c] += total


def add_transposed_products(table: NDArray[Any], image: NDArray[Any], output: NDArray[Any]) -> None:
    """Add `image @ table` to `output`, `(channels, columns of the table)`."""
    run_ranges(_transposed_range, table.shape[1], COLUMNS, table, image, output)


@kernel(vectorize=True)
def _transposed_range(low: int, high: int, table: Any, image: Any, output: Any) -> None:
    channels, rows = image.shape
    for u in range(rows):
        for c in range(channels):
            x, row, target = image[c, u], table[u, low:high], output[c, low:high]
            for v in range(row.size):
                target[v] += x * row[v]
