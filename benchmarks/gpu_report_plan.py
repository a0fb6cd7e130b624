"""What the report from a GPU times, the most informative first, and how long a row will take."""

from __future__ import annotations

from itertools import product
from typing import Any

from gpu_report_rows import DONE, FAILED, Book, Row
from gpu_report_timing import LEAST_RUNS, LONG, MOST_RUNS, OPERATIONS, SECONDS, Cell, measure, prepare

__all__ = [
    "NOT_TIMED",
    "compile_rows",
    "compiled_cells",
    "dry_cells",
    "forecast",
    "planned_cells",
    "timing_rows",
]

SIDES, QUADRATIC = (512, 1024, 256, 2048, 128, 4096, 64), (64, 128, 256, 512, 1024, 2048, 4096)
"""In the order of what they tell. What grows with the square of the pixels begins with the smallest: from these it is
known which of the larger ones there is time for.
"""
SIZES = ((7, 16), (1, 64), (3, 16), (7, 3), (7, 64), (1, 16), (3, 64), (3, 3), (1, 3))
"""Sides of patches and channels, the usual ones first."""
RANKS = {
    "search, guided": 0.0, "attention": 0.0, "attention, backward": 1.0, "SDPA": 1.0, "SDPA, backward": 2.0,
    "search, PatchMatch": 2.0, "search, exact": 3.0, "attention with votes": 3.0, "FlexAttention": 3.0,
    "attention with votes, backward": 4.0,
}  # fmt: skip
DTYPES = {"float32": 0.0, "bfloat16": 1.5}
MASKED_SIDES, MASKED_CHANNELS = (64, 128, 256, 512, 1024), (16, 64)
COMPILED_SIDE = 256
"""Its kernels are those of the larger sizes: their numbers are divisible by 16 alike."""
COMPILED = ("attention, backward", "attention with votes, backward", "search, PatchMatch", "search, exact")
"""They launch all kernels of the others."""
TIMEOUT, COMPILE_TIMEOUT, MOST_SECONDS, UNKNOWN = 45.0, 120.0, 25.0, 4.0
"""Seconds: after which a row is given up, is not begun by its forecast, and that are assumed without one."""
MEMORY_SHARE = 0.9

NOT_TIMED = (
    "SDPA's time has the unfolding of its patches in it, FlexAttention's neither the search nor the making of its "
    "mask. FlexAttention is timed forward, for patches of one pixel (its kernel keeps whole vectors at hand, and "
    "those of 7x7 patches with 16 channels have 784 elements), with 16 and 64 channels (it takes no fewer than 16), up "
    "to 1024²: beyond, the list of its mask's blocks alone would take gigabytes. Votes of neighbors are timed where "
    "there are any, for patches of more than one pixel. What takes too long or does not fit is named below, with the "
    "size from which that was known."
)


def planned_cells() -> list[Cell]:
    """All cells, by the sum of their ranks."""
    ranked = []
    for name, (p, channels), dtype, side in product(OPERATIONS, SIZES, DTYPES, QUADRATIC):
        operation = OPERATIONS[name]
        masked = side in MASKED_SIDES and channels in MASKED_CHANNELS and p == 1
        if (name == "FlexAttention" and not masked) or ("votes" in name and p == 1):
            continue
        order = QUADRATIC if operation.power == 2 else SIDES
        rank = RANKS[name] + DTYPES[dtype] + (SIZES.index((p, channels)) + order.index(side)) / 2
        ranked.append((rank, Cell(name, side, p, channels, dtype)))
    return [cell for _, cell in sorted(ranked, key=lambda pair: pair[0])]


def dry_cells() -> list[Cell]:
    """So little that Triton's interpreter does it in seconds."""
    names = ("search, exact", "attention", "SDPA", "SDPA, backward")
    return [*(Cell(name, 8, 3, 3, "float32") for name in names), Cell("search, exact", 8, 1, 4, "bfloat16")]


def timing_rows(cells: list[Cell], device: str) -> list[Row]:
    return [Row("timing", cell.label, measure, (cell, device), TIMEOUT, _about(cell)) for cell in cells]


def compiled_cells() -> list[Cell]:
    """One cell of whatever compiles something."""
    return [
        Cell(name, COMPILED_SIDE, p, channels, dtype)
        for dtype, (p, channels), name in product(DTYPES, SIZES, COMPILED)
        if "votes" not in name or p > 1
    ]


def compile_rows(cells: list[Cell], device: str) -> list[Row]:
    return [Row("compile", cell.label, prepare, (cell, device), COMPILE_TIMEOUT, _about(cell)) for cell in cells]


def _about(cell: Cell) -> dict[str, Any]:
    return {
        "operation": cell.operation, "side": cell.side, "p": cell.p, "channels": cell.channels, "dtype": cell.dtype,
    }  # fmt: skip


def forecast(row: Row, book: Book, memory: float) -> float | str:
    """Seconds that a row will take, by the nearest size that was timed; or a sentence why it is not begun."""
    family = ("operation", "p", "channels", "dtype")
    others = [other for other in book.of_stage("timing") if all(other.get(name) == row.about[name] for name in family)]
    side, operation = row.about["side"], OPERATIONS[row.about["operation"]]
    power = operation.power
    # Of ours every failure is worth a line; of what PyTorch refuses, one is enough.
    failed = [other["side"] for other in others if other["outcome"] == FAILED and other["side"] < side]
    if failed and power == 2:
        return f"failed at {max(failed)}²"
    timed = [other for other in others if other["outcome"] == DONE]
    if not timed:
        return UNKNOWN
    nearest = min(timed, key=lambda other: max(other["side"] / side, side / other["side"]))
    grown = (side / nearest["side"]) ** 2
    seconds, peak = nearest["seconds"]["median"] * grown**power, nearest["peak"] * grown
    if peak > MEMORY_SHARE * memory:
        return f"would take some {peak / 1e9:.0f} GB of the device's {memory / 1e9:.0f}, by {nearest['side']}²"
    runs = 1 if seconds > LONG else min(MOST_RUNS, max(LEAST_RUNS, int(SECONDS / max(seconds, 1e-6))))
    # A first call, one for memory, one for how many are timed.
    whole = 1 + seconds * (3 + (runs if seconds <= LONG else 0))
    if operation.recompiled:
        whole += nearest["first"]
    if whole > MOST_SECONDS:
        return f"a call would take some {seconds:.0f} s, by {nearest['side']}²"
    return whole
