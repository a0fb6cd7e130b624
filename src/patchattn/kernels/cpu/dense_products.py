"""Products of all pixels of two images, and what tables of them are multiplied with.

Images are channel-first here, `(channels, pixels)`, so that the loops inside run over neighboring pixels. Every sum is
computed by one thread, in one order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.pool import run_ranges

__all__ = ["add_products", "add_transposed_products", "pair_products"]

ROWS = 16
"""Rows in one range of work."""
COLUMNS = 512
"""Columns that are computed together: with 16 channels of an image they fill a first-level cache."""


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
