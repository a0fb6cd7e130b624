"""Sums along the diagonals of tables of products of pixels: products of pixels become products of patches.

Entry (i, j) of a table belongs to pixel i of one image and pixel j of the other. Where both move by one pixel, an entry
lies on the same diagonal, so the products of two patches are sums over a stretch of it, one dimension after the other.
Every sum is made of its own terms, by one thread, in one order: a running one, which adds what comes in and subtracts
what goes out, loses digits.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.vectors import sum_runs

__all__ = ["gather_diagonals", "spread_diagonals", "sum_along", "sum_rows"]

ROWS = 16
"""Rows of sums in one range of work, at least: those beside each other read the same numbers."""
ADDITIONS = 1 << 18
"""In one range of work, at least: some 50 us, beside which the call of a kernel is cheap."""
STRETCH = 1024
"""Numbers of a row that are summed before those of the next, while what both read is at hand."""

Size = tuple[int, ...]
Indices = NDArray[np.int64]


def gather_diagonals(
    table: NDArray[Any], rows: Size, columns: Size, patch: Size, output: NDArray[Any], spare: NDArray[Any]
) -> NDArray[Any]:
    """Sum over the pixels of patches: entry (i, j) is the sum over o of the table's (i + o, j + o), o in `patch`.

    `rows` and `columns` are the sizes of the two (padded) images. Slack follows all arrays in memory (`vectors.py`).
    The result lies in `output` or `spare`, whichever the last step writes to.
    """
    # The last dimension first: its runs are the shortest.
    for dim in reversed(range(len(patch))):
        if patch[dim] == 1:
            continue
        sum_along(table.reshape(-1), rows, columns, dim, patch[dim], output)
        rows, columns = (_longer(size, dim, 1 - patch[dim]) for size in (rows, columns))
        table, output, spare = output[: prod(rows) * prod(columns)], spare, output
    return table.reshape(prod(rows), prod(columns))


def sum_along(
    table: NDArray[Any], rows: Size, columns: Size, dim: int, terms: int, output: NDArray[Any],
    targets: Indices | None = None,
) -> None:  # fmt: skip
    """Sum so many neighbors along the diagonals of one dimension, to rows of `output`: all, or those in `targets`."""
    before, n, after = prod(rows[:dim]), rows[dim], prod(rows[dim + 1 :])
    pieces, m, run = prod(columns[:dim]), columns[dim], prod(columns[dim + 1 :])
    fewer = m - terms + 1
    b, i, r, o = np.ix_(*map(np.arange, (before, n - terms + 1, after, terms)))
    starts = ((b * n + i + o) * after + r) * (pieces * m * run) + o * run
    if targets is None:
        targets = np.arange(starts[..., 0].size)
    sum_rows(table, starts, pieces, (m * run, fewer * run), fewer * run, output, targets)


def sum_rows(
    numbers: NDArray[Any], starts: Indices, pieces: int, steps: tuple[int, int], length: int, output: NDArray[Any],
    rows: Indices,
) -> None:  # fmt: skip
    """Write the sum of the runs that begin at `starts`, `(..., terms)`, to `rows` of the output.

    A row has `pieces` runs of `length`; `steps` from one to the next, where it is read and where it is written.
    """
    terms, starts, targets = starts.shape[-1], starts.reshape(-1), rows.reshape(-1) * (pieces * length)
    chunk = max(ROWS, ADDITIONS // (pieces * length * terms))
    run_ranges(_sum_range, targets.size, chunk, numbers, starts, terms, pieces, *steps, length, output, targets)


@kernel()
def _sum_range(
    low: int, high: int, numbers: Any, starts: Any, terms: int, pieces: int, from_step: int, to_step: int, length: int,
    output: Any, targets: Any,
) -> None:  # fmt: skip
    together = max(1, STRETCH // length)
    for first in range(0, pieces, together):
        last = min(first + together, pieces)
        for begin in range(0, length, STRETCH):
            count = min(STRETCH, length - begin)
            for row in range(low, high):
                for piece in range(first, last):
                    to = targets[row] + piece * to_step + begin
                    sum_runs(output, to, numbers, starts, row * terms, terms, piece * from_step + begin, count)


def spread_diagonals(
    table: NDArray[Any], rows: Size, columns: Size, patch: Size, output: NDArray[Any], spare: NDArray[Any]
) -> NDArray[Any]:
    """The adjoint of `gather_diagonals`: entry (u, v) is the sum over o of the table's (u - o, v - o)."""
    for dim in reversed(range(len(patch))):
        if patch[dim] == 1:
            continue
        before, n, after = prod(rows[:dim]), rows[dim], prod(rows[dim + 1 :])
        m, run = columns[dim], prod(columns[dim + 1 :])
        source = table.reshape(before, n, after * prod(columns[:dim]), m * run)
        rows, columns = (_longer(size, dim, patch[dim] - 1) for size in (rows, columns))
        target = output[: prod(rows) * prod(columns)].reshape(before, rows[dim], source.shape[2], columns[dim] * run)
        run_ranges(_spread_range, before * rows[dim], 1, source, patch[dim], run, target)
        table, output, spare = target, spare, output
    return table.reshape(prod(rows), prod(columns))


def _longer(size: Size, dim: int, more: int) -> Size:
    return (*size[:dim], size[dim] + more, *size[dim + 1 :])


@kernel(vectorize=True)
def _spread_range(low: int, high: int, source: Any, patch: int, run: int, target: Any) -> None:
    n, length = source.shape[1], source.shape[3]
    for row in range(low, high):
        a, i = row // target.shape[1], row % target.shape[1]
        for m in range(target.shape[2]):
            target[a, i, m, :] = 0
            for o in range(max(0, i - n + 1), min(patch, i + 1)):
                to, by = target[a, i, m, o * run : o * run + length], source[a, i - o, m, :]
                for x in range(length):
                    to[x] += by[x]
