"""Section `peak`: how close the inner loops of the guided search come to what the processor can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from machine import Report, seconds
from numpy.typing import NDArray

from patchattn.kernels.cpu.aligned import LINE, aligned_array
from patchattn.kernels.cpu.compiler import SETTINGS
from patchattn.kernels.cpu.leaf_vectors import LANES, leaf_distances, prefetch
from patchattn.kernels.cpu.products import VECTOR, multiply
from patchattn.kernels.parameters import COMPONENTS_PER_GROUP

MATRIX = 1024
PATCH_ELEMENTS, COLUMNS, ROWS = 147, 32, 2048
WIDTH = 24
"""Numbers of a patch: some 24 for 7x7 RGB."""
LEAF_NUMBERS = LANES * WIDTH

LINES = LEAF_NUMBERS * 2 // LINE
TABLES = {"in L1": 4, "in L2": 640, "of 512x512 keys": 512 * 512 // LANES}
"""Leaves among which the next one is drawn at random."""
LEAVES = 1 << 19
AHEAD = 16


def _compiled(function: Callable[..., Any]) -> Any:
    """As the library's kernels are, but not cached."""
    return numba.njit(**SETTINGS)(function)


@_compiled
def _compare_leaves(order: Any, table: Any, query: Any, ahead: int, distances: Any, output: Any) -> None:
    """Compare the query with the leaves in this order; ask for them `ahead` of time, unless that is 0."""
    near = np.int64(0)
    for n in range(order.size - ahead):
        if ahead > 0:
            for line in range(LINES):
                prefetch(table, order[n + ahead] * LEAF_NUMBERS + line * (LINE // 2))
        at = order[n] * LEAF_NUMBERS
        leaf_distances(table, at, query, 0, WIDTH // COMPONENTS_PER_GROUP, distances, 0)
        near += distances[0]
    output[0] = near


@_compiled
def _read_leaves(order: Any, table: Any, ahead: int, output: Any) -> None:
    """Add up a number of each line of the leaves in this order; no address depends on what was read."""
    total = np.int64(0)
    for n in range(order.size - ahead):
        if ahead > 0:
            for line in range(LINES):
                prefetch(table, order[n + ahead] * LEAF_NUMBERS + line * (LINE // 2))
        at = order[n] * LEAF_NUMBERS
        for line in range(LINES):
            total += np.int64(table[at + line * (LINE // 2)])
    output[0] = total


def _random_numbers(count: int) -> NDArray[np.int16]:
    numbers: NDArray[np.int16] = aligned_array(count, np.int16)
    numbers[:] = np.random.default_rng(0).integers(-999, 999, count, np.int16)
    return numbers


def _rate(function: Callable[[], Any], count: float, runs: int) -> float:
    return count / seconds(function, runs)["median"]


def _product_rates(runs: int) -> tuple[float, float]:
    """Multiply-adds a second of one thread: of a large matrix product, and of `multiply`."""
    generator = np.random.default_rng(0)
    square = torch.from_numpy(generator.standard_normal((MATRIX, MATRIX)).astype(np.float32))
    rows = generator.standard_normal((ROWS, PATCH_ELEMENTS)).astype(np.float32)
    columns = generator.standard_normal((PATCH_ELEMENTS, COLUMNS)).astype(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        peak = _rate(lambda: [square @ square for _ in range(10)], 10 * MATRIX**3, runs)
        work = 20 * ROWS * PATCH_ELEMENTS * COLUMNS
        return peak, _rate(lambda: [multiply(rows, columns) for _ in range(20)], work, runs)
    finally:
        torch.set_num_threads(threads)


def _leaf_rate(leaves: int, ahead: int, runs: int) -> float:
    order = np.random.default_rng(1).integers(0, leaves, LEAVES)
    table, query = _random_numbers(leaves * LEAF_NUMBERS), _random_numbers(WIDTH)
    distances, output = np.empty(LANES, np.int64), np.empty(1, np.int64)
    return _rate(lambda: _compare_leaves(order, table, query, ahead, distances, output), LEAVES - ahead, runs)


def _reading_rate(leaves: int, runs: int) -> float:
    """Leaves a second that are read only, prefetched or not, whichever is faster."""
    order = np.random.default_rng(1).integers(0, leaves, LEAVES)
    table, output = _random_numbers(leaves * LEAF_NUMBERS), np.empty(1, np.int64)
    plain = _rate(lambda: _read_leaves(order, table, 0, output), LEAVES, runs)
    return max(plain, _rate(lambda: _read_leaves(order, table, AHEAD, output), LEAVES - AHEAD, runs))


def _product_rows(peak: float, product: float) -> list[list[str]]:
    of_peak = [f"{peak / 1e9:.1f} GFMA/s", f"{product / peak:.0%}"]
    return [
        [f"matrix product, {MATRIX}x{MATRIX}: the practical peak", of_peak[0], "", ""],
        [f"`products.multiply`, {PATCH_ELEMENTS} x {COLUMNS}", f"{product / 1e9:.1f} GFMA/s", *of_peak],
    ]


def report_peak(runs: int) -> Report:
    """Matrix product, and comparison of leaves near and far."""
    peak, product = _product_rates(runs)
    cycles = peak / (2 * VECTOR)
    computed = (WIDTH // COMPONENTS_PER_GROUP) / cycles
    far = list(TABLES)[-1]
    rows = _product_rows(peak, product)
    results: list[dict[str, Any]] = [
        {"loop": "matrix product", "fma_per_second": peak},
        {"loop": "products.multiply", "fma_per_second": product, "share": product / peak},
    ]
    reading = _reading_rate(TABLES[far], runs)
    rows.append([f"leaves {far}, only read", f"{1e9 / reading:.1f} ns, {reading * LINES / 1e6:.0f} M lines/s", "", ""])
    results.append({"loop": "leaves only read", "lines_per_second": reading * LINES})
    for name, ahead in (*((name, 0) for name in TABLES), (far, AHEAD)):
        rate = _leaf_rate(TABLES[name], ahead, runs)
        # What is in a cache has only its multiply-adds to wait for.
        read = 1 / reading if name == far else 0.0
        bound, reason = max((computed, "multiply-adds"), (read, "memory"))
        loop = f"leaves {name}{', prefetched' if ahead else ''}"
        measured = f"{1e9 / rate:.1f} ns a leaf, {rate * LANES / 1e6:.0f} M candidates/s"
        rows.append([loop, measured, f"{bound * 1e9:.1f} ns ({reason})", f"{bound * rate:.0%}"])
        results.append({"loop": loop, "seconds": 1 / rate, "bounds": [computed, read], "share": bound * rate})
    return Report(
        "How close do the inner loops come to the machine? One thread; medians. A leaf is eight keys of "
        f"{WIDTH} numbers ({LINES} lines of {LINE} bytes), compared with one query, in random order; its bound is the "
        "larger of its multiply-adds (one 512-bit vector a cycle; a cycle is two float32 vectors of the practical "
        "peak) and, outside the caches of a core, of a loop that only reads its lines.",
        ["loop", "measured", "bound", "share"],
        rows,
        results,
    )
