"""Sections `noisy` and `long`: the guided search on noisy queries, and on patches of many elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from machine import Report, spread
from pairs import PATCH, K, convolved, frames, sample_of, timed
from torch import Tensor

SIZE = 256
NOISY_SIZE = 512
QUERIES = 1000
SIGMAS = (0.0, 0.05, 0.1, 0.2, 0.4)
LONG = ((3, 3), (3, 7), (3, 11), (3, 15), (3, 21), (3, 27), (16, 7), (48, 7))
"""Channels and patch size; those beyond RGB by a random convolution."""
HEADINGS = ["seconds, median (range)", "microseconds a query", "best over exact", "third over exact"]


def _measure(query: Tensor, key: Tensor, patch: int, runs: int) -> tuple[list[str], dict[str, Any]]:
    sample = sample_of(query, key, patch, QUERIES)
    field, time = timed(query, key, runs, k=K, patch_size=patch, method="guided")
    ratios = sample.over_exact(field)
    each = time["median"] / query[0, 0].numel() * 1e6
    return [spread(time), f"{each:.2f}", f"{ratios[0]:.4f}", f"{ratios[-1]:.4f}"], {
        "seconds": time,
        "microseconds_a_query": each,
        "over_exact": ratios.tolist(),
    }


def report_noisy(data: Path, runs: int, size: int = NOISY_SIZE) -> Report:
    """Gaussian noise on the queries alone."""
    query, key = frames(data, size)
    noise = torch.randn(query.shape, generator=torch.Generator().manual_seed(0))
    rows, results = [], []
    for sigma in SIGMAS:
        row, result = _measure(query + sigma * noise, key, PATCH, runs)
        rows.append([f"{sigma:g}", *row])
        results.append({"sigma": sigma, **result})
    return Report(
        f"What do noisy queries find? Two frames of a video, {size}x{size} RGB, patches 7x7, k = 3; Gaussian noise on "
        f"the queries, its deviation as a share of the range; mean costs of {QUERIES} random queries over their exact "
        "ones.",
        ["sigma", *HEADINGS],
        rows,
        results,
    )


def report_long(data: Path, runs: int, size: int = SIZE) -> Report:
    """Patches of 27 to 2,352 elements."""
    query, key = frames(data, size)
    rows, results = [], []
    for channels, patch in LONG:
        pair = [image if channels == 3 else convolved(image, channels) for image in (query, key)]
        row, result = _measure(pair[0], pair[1], patch, runs)
        elements = channels * patch * patch
        rows.append([f"{patch}x{patch}x{channels}", str(elements), *row])
        results.append({"channels": channels, "patch": patch, "elements": elements, **result})
    return Report(
        f"How do time and cost depend on the elements of a patch? The same frames at {size}x{size}, k = 3; more than "
        f"three channels by a random convolution; mean costs of {QUERIES} random queries over their exact ones.",
        ["patch", "elements", *HEADINGS],
        rows,
        results,
    )
