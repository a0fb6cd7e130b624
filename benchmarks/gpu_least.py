"""The least time of the GPU backend's operators: from the formulas of their kernels, at the peaks of a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2

from gpu_counts import MEASURED_SIDE, Rates
from gpu_formulas import FORMULAS, Facts, Needs

__all__ = [
    "APART",
    "CHAIN",
    "GPUS",
    "INVERSE_BYTES",
    "OPERATORS",
    "SHARED",
    "SIDES",
    "SORT_BYTES",
    "TENSOR_SHARE",
    "Gpu",
    "Part",
    "crossover",
    "dense_seconds",
    "limits_of",
    "parts_of",
    "range_of",
    "seconds_of",
]


@dataclass(frozen=True)
class Gpu:
    """Peaks a second. The makers' numbers, but for what is named an assumption."""

    name: str
    memory: float
    second_level: float
    """Assumed: about two thirds of 5120 bytes a clock."""
    first_level: float
    """128 bytes a clock of each multiprocessor."""
    single: float
    tensor: float
    """Half precision, dense."""
    wait: float
    """Assumed: seconds from the request for a number to its arrival from the second-level cache."""


GPUS = (
    Gpu("A100", 2.04e12, 4.5e12, 19.5e12, 19.5e12, 312e12, 2e-7),
    Gpu("H100", 3.35e12, 6e12, 33.5e12, 67e12, 989e12, 2e-7),
)
TENSOR_SHARE = 0.7
"""Assumed: of the tensor cores' peak, what exact attention reaches."""
SORT_BYTES = 400
"""Assumed: traffic of a key for each level of the tree (a stable radix sort of 64-bit numbers, and gathers)."""
INVERSE_BYTES = 120
"""Assumed: traffic of a match when they are sorted by key (a stable radix sort of 32-bit numbers with 64-bit ones)."""
CHAIN = 8
"""Reads that wait for one another in one step of a scan."""
BAND_ROWS = 16
SIDES = (256, 512, 1024, 2048)


SHARED, APART = "shared", "apart"
"""What neighboring queries ask for: the same, all of it in the first-level cache (where it is no use to ask whether a
second one is fast enough); or nothing in common. A real image lies between."""


def limits_of(needs: Needs, gpu: Gpu, neighbors: str) -> dict[str, float]:
    """Seconds that each part of a GPU takes at its peak for one launch; the longest is the least time."""
    limits = {
        "memory": needs.once / gpu.memory,
        "first-level cache": (needs.loads + needs.stores) / gpu.first_level,
        "arithmetic": needs.operations / gpu.single,
    }
    if neighbors == APART:
        limits["second-level cache"] = (needs.far + needs.stores) / gpu.second_level
    return limits


Part = tuple[str, Needs, float]
"""Kernel, what it needs, and seconds that it takes at least whatever the peaks."""


def parts_of(operator: str, base: Facts, rates: Rates, gpu: Gpu) -> list[Part]:
    """All launches of an operator on square images; how much a search looks at is that of `rates` in any case."""
    side, n = max(base.size), base.n
    whole = replace(base, votes=n * base.k, near=n * base.k)

    def part(kernel: str, facts: Facts, wait: float = 0.0) -> Part:
        return kernel, FORMULAS[kernel](facts), wait

    def measured(each: float) -> Facts:
        return replace(base, candidates=round(each * n))

    voting = replace(whole, window=base.p, votes=base.offsets * n * base.k, near=base.offsets * n * base.k)
    if operator == "search_patchmatch":
        parts = [part("patchmatch.initialize", measured(rates.start))]
        for spread, random in zip(rates.spread, rates.random, strict=True):
            step = measured(spread / 4)
            parts += [part("patchmatch.propagate", replace(step, distance=distance)) for distance in (8, 4, 2, 1)]
            # One window more each time that the image doubles.
            scales = side.bit_length() / MEASURED_SIDE.bit_length()
            parts.append(part("patchmatch.random_search", measured(random * scales)))
        return parts
    if operator == "search_guided":
        levels = ceil(log2(n / 8))
        # A short patch has fewer numbers than are kept of a long one; two make a word.
        numbers = min(rates.numbers, 2 * ceil(base.offsets * base.channels / 2))
        told = replace(base, numbers=numbers, length=rates.length, levels=levels)
        parts = [part("projection.project", replace(base, programs=n // 64))] * 2
        for level in range(levels):
            # A random 64 keys of a range are looked at, all if it has no more.
            looked_at = min(n, 64 * 2**level)
            parts.append(part("tree.widest", replace(base, level=level, samples_of_ranges=looked_at)))
        parts.append(("tree (sorts)", Needs(0, 0, 0, levels * SORT_BYTES * n, 0), 0.0))
        parts.append(part("guided_seed.seed", replace(told, leaves=round(rates.begin * n))))
        waves = side + BAND_ROWS - 1
        for leaves, lookups in zip(rates.leaves, rates.lookups, strict=True):
            facts = replace(told, leaves=round(leaves * n), lookups=round(lookups * n))
            parts.append(part("guided_scan.scan", facts, waves * CHAIN * gpu.wait))
        return [*parts, part("guided_finish.finish", replace(measured(rates.finish), length=rates.length))]
    if operator == "search_exact":
        return [part("exact.exact", replace(base, programs=n // 16))]
    inverse = "inverse (sort)", Needs(0, 0, 0, n * base.k * INVERSE_BYTES, 0), 0.0
    return {
        "similarity_at": [part("similarity.similarity", measured(base.k))],
        "similarity_at_backward": [
            part("similarity_backward.query", base),
            inverse,
            part("similarity_backward.key", base),
        ],
        "attend": [part("attend.attend", whole)],
        "attend, votes": [part("attend.attend", voting)],
        "attend_backward": [part("vote_gradients.score", whole), inverse, part("vote_gradients.value", whole)],
        "attend_backward, votes": [
            part("vote_gradients.score", voting),
            inverse,
            part("vote_gradients.value", voting),
        ],
        "expand": [part("expand.expand", replace(base, window=base.p))],
        "weighted_sum": [part("weighted_sum.sum", base)],
    }[operator]


OPERATORS = (
    "search_patchmatch", "search_guided", "search_exact", "similarity_at", "similarity_at_backward", "attend",
    "attend, votes", "attend_backward", "attend_backward, votes", "expand", "weighted_sum",
)  # fmt: skip


def seconds_of(operator: str, base: Facts, rates: Rates, gpu: Gpu, neighbors: str) -> float:
    """The least time of an operator: of each launch what takes longest."""
    parts = parts_of(operator, base, rates, gpu)
    return sum(max(*limits_of(needs, gpu, neighbors).values(), wait) for _, needs, wait in parts)


def range_of(operator: str, base: Facts, rates: Rates, gpu: Gpu) -> tuple[float, float]:
    """The least time if neighbors ask for the same, and if they have nothing in common."""
    shared, apart = (seconds_of(operator, base, rates, gpu, neighbors) for neighbors in (SHARED, APART))
    return shared, apart


def dense_seconds(side: int, gpu: Gpu, patch: int = 784, values: int = 16) -> float:
    """Exact attention over all pairs: q.k over whole patches, and the product with the values."""
    return 2 * side**4 * (patch + values) / (gpu.tensor * TENSOR_SHARE)


def crossover(operators_: tuple[str, ...], rates: Rates, gpu: Gpu) -> int:
    """The smallest side at which these operators together are faster than exact attention."""
    sides = range(16, 2049)
    return next(
        (
            side
            for side in sides
            if sum(seconds_of(name, Facts((side, side)), rates, gpu, APART) for name in operators_)
            < dense_seconds(side, gpu)
        ),
        0,
    )
