"""Sections `large` and `crossover`: how time and memory grow, and from what size on the guided search pays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import Report, seconds, spread
from pairs import PATCH, K, convolved, frames, large_pair, timed, tokens
from process import MIB, in_fresh_process, peak_beyond
from torch import Tensor

from patchattn import match
from patchattn.tasks.peak_memory import peak_memory

LARGE = (512, 1024, 2048, 4096)
SMALL = (16, 24, 32, 40, 48, 64, 96, 128)


def measure_large(data: Path, size: int, runs: int) -> dict[str, Any]:
    """Search in this process, which has done nothing else: time, and peak memory in MiB (Linux only)."""
    search: dict[str, Any] = {"k": K, "patch_size": PATCH, "method": "guided"}
    query, key = large_pair(data, size)
    match(query[..., :32, :32], key[..., :32, :32], **search)
    beyond, _ = peak_beyond(lambda: match(query, key, **search))
    peak = peak_memory() or 0
    time = seconds(lambda: match(query, key, **search), runs, warm_up=False)
    return {"size": size, "seconds": time, "beyond_start_mib": beyond / MIB, "peak_mib": peak / MIB}


def report_large(data: Path, runs: int, largest: int, command: list[str], sizes: tuple[int, ...] = LARGE) -> Report:
    """Sizes up to `largest`; `command` is followed by a size, and prints the JSON of `measure_large`."""
    rows, results = [], []
    for size in [size for size in sizes if size <= largest]:
        result = in_fresh_process([*command, str(size)])
        n, t = size * size, result["seconds"]["median"]
        results.append(result)
        n_first, t_first = results[0]["size"] ** 2, results[0]["seconds"]["median"]
        result["over_n_log_n"] = (t / t_first) / (n * math.log(n) / (n_first * math.log(n_first)))
        rows.append(
            [
                f"{size}x{size}",
                spread(result["seconds"]),
                f"{t / n * 1e6:.2f}",
                f"{result['over_n_log_n']:.2f}",
                f"{result['beyond_start_mib']:.0f}",
                f"{result['peak_mib']:.0f}",
            ]
        )
    return Report(
        "How do time and memory grow? Guided search, default iterations, RGB, patches 7x7, k = 3, between two crops of "
        "one photograph, each size in a process of its own; memory is that of its first search, beyond what was "
        "resident before it, and of the whole process.",
        [
            "size",
            "seconds, median (range)",
            "microseconds a query",
            f"over n log n from {sizes[0]}",
            "MiB",
            "whole MiB",
        ],
        rows,
        results,
    )


@dataclass(frozen=True)
class Kind:
    """What is searched: features made of an image, and how."""

    name: str
    features: Callable[[Tensor], Tensor]
    search: dict[str, Any]


def _as_it_is(image: Tensor) -> Tensor:
    return image


KINDS = (
    Kind("RGB, 7x7", _as_it_is, {"k": K, "patch_size": 7}),
    Kind("16 channels, 7x7", convolved, {"k": K, "patch_size": 7}),
    Kind("16 channels, 1x1", convolved, {"k": K, "patch_size": 1}),
    Kind("RGB, 3x3", _as_it_is, {"k": K, "patch_size": 3}),
    Kind("64 channels, 1x1, k = 16", tokens, {"k": 16, "patch_size": 1, "similarity": "scaled_dot"}),
)


def report_crossover(data: Path, runs: int, sizes: tuple[int, ...] = SMALL) -> Report:
    """The exact and the guided search on small images."""
    rows, results = [], []
    for size in sizes:
        row = [f"{size}x{size}"]
        for kind in KINDS:
            query, key = (kind.features(image) for image in frames(data, size))
            times = {method: timed(query, key, runs, **kind.search, method=method)[1] for method in ("exact", "guided")}
            results.append({"size": size, "features": kind.name, **times})
            row.append(" / ".join(f"{times[method]['median'] * 1e3:.1f}" for method in ("exact", "guided")))
        rows.append(row)
    return Report(
        "From what size on is the guided search faster than the exact one? Milliseconds, exact / guided (default "
        "iterations), medians; k = 3 where not said otherwise.",
        ["size", *(kind.name for kind in KINDS)],
        rows,
        results,
    )
