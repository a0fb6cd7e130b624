"""Sections `frames`, `channels` and `davis`: time and cost of the search on pairs of video frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import Report, spread
from pairs import ORACLE, PATCH, K, convolved, davis_pairs, frames, interior_cost, sample_of, timed
from torch import Tensor

from patchattn import match

CHECKED = 2000
SIZE = 512
SEARCH: dict[str, Any] = {"k": K, "patch_size": PATCH}
HEADINGS = ["method, iterations", "seconds, median (range)", "best cost (over exact)", "third (over exact)"]


def oracle_errors(target: Tensor, reference: Tensor, oracle: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest relative errors of the exact search's costs on a random sample of queries.

    `stored`: against the costs that the oracle holds, whose float32 products round by some 1e-5, which is more than
    1e-3 of the smallest costs; `summed`: against the costs of the oracle's matches summed in float64.
    """
    cost, index = oracle["cost"], oracle["index"]
    rows, columns, k = cost.shape
    chosen = np.random.default_rng(0).choice(rows * columns, CHECKED, replace=False)
    y, x = np.unravel_index(chosen, (rows, columns))
    mask = torch.zeros(1, *target.shape[2:], dtype=torch.bool)
    mask[0, y + PATCH // 2, x + PATCH // 2] = True
    field = match(target, reference, k=K, patch_size=PATCH, method="exact", padding_mode="valid", query_mask=mask)
    found = -field.similarity[0, 0, :, y + PATCH // 2, x + PATCH // 2].double().numpy().T
    queries, keys = (image[0].double().unfold(1, PATCH, 1).unfold(2, PATCH, 1).numpy() for image in (target, reference))
    key_y, key_x = np.unravel_index(index[y, x], (rows, columns))
    summed = np.stack(
        [((queries[:, y, x] - keys[:, key_y[:, m], key_x[:, m]]) ** 2).sum((0, 2, 3)) for m in range(k)], axis=1
    )
    stored = cost[y, x].astype(np.float64)
    return {
        "stored": float((np.abs(found - stored) / stored).max()),
        "stored_beyond_1e-3": float((np.abs(found - stored) / stored > 1e-3).any(1).mean()),
        "summed": float((np.abs(found - summed) / summed).max()),
    }


def report_frames(data: Path, runs: int) -> Report:
    """Both methods with several numbers of iterations, and the exact search against the oracle."""
    target, reference = frames(data)
    oracle = dict(np.load(data / ORACLE))
    exact = oracle["cost"].mean((0, 1), dtype=np.float64)
    settings = [*(("guided", n) for n in (0, 1, 2, 3, 4)), *(("patchmatch", n) for n in (1, 2, 5, 10))]
    rows, results = [], []
    for method, iterations in settings:
        search = {**SEARCH, "method": method, "iterations": iterations}
        field, time = timed(target, reference, runs, **search)
        cost = interior_cost(field, PATCH)
        ratios = cost / exact
        results.append({**search, "cost": cost.tolist(), "over_exact": ratios.tolist(), "seconds": time})
        shown = [f"{cost[m]:.4f} ({ratios[m]:.4f})" for m in (0, K - 1)]
        rows.append([f"{method}, {iterations}", spread(time), *shown])
    errors = oracle_errors(target, reference, oracle)
    note = (
        f"Exact search against the oracle, {CHECKED} queries: largest relative error of a cost {errors['summed']:.1e} "
        f"(its matches summed in float64); {errors['stored']:.1e} (its stored float32 costs; beyond 1e-3 for "
        f"{errors['stored_beyond_1e-3']:.1%} of the queries)."
    )
    return Report(
        "How near do matches come to the best there are, and in what time? Two frames of a video, 512x512 RGB, patches "
        "7x7, k = 3; mean costs over all queries whose patch lies inside the image.",
        HEADINGS,
        rows,
        [*results, {"method": "exact", "relative_error": errors}],
        [note],
    )


def report_channels(data: Path, runs: int, size: int = SIZE) -> Report:
    """The same pair through a random convolution to 16 channels."""
    query, key = (convolved(image) for image in frames(data, size))
    sample = sample_of(query, key)
    rows, results = [], []
    for method, iterations in (("guided", 1), ("guided", 2), ("guided", 3), ("patchmatch", 10)):
        search = {**SEARCH, "method": method, "iterations": iterations}
        field, time = timed(query, key, runs, **search)
        ratios = sample.over_exact(field)
        results.append({**search, "over_exact": ratios.tolist(), "seconds": time})
        rows.append([f"{method}, {iterations}", spread(time), f"{ratios[0]:.4f}", f"{ratios[-1]:.4f}"])
    return Report(
        f"The same with more channels: both frames through a fixed random 3x3 convolution to 16 channels; mean costs "
        f"of {int(sample.mask.sum())} random queries over their exact ones.",
        ["method, iterations", "seconds, median (range)", "best over exact", "third over exact"],
        rows,
        results,
    )


def report_davis(data: Path, runs: int, size: int = SIZE) -> Report:
    """Other videos: the guided search as it is by default."""
    rows, results = [], []
    for name, query, key in davis_pairs(data, size):
        sample = sample_of(query, key)
        field, time = timed(query, key, runs, **SEARCH, method="guided")
        ratios = sample.over_exact(field)
        results.append({"pair": name, "over_exact": ratios.tolist(), "seconds": time})
        rows.append([name, spread(time), f"{ratios[0]:.4f}", f"{ratios[-1]:.4f}"])
    slowest = max(result["seconds"]["median"] for result in results)
    worst = np.max([result["over_exact"] for result in results], axis=0)
    rows.append(["the largest", f"{slowest:.2f}", f"{worst[0]:.4f}", f"{worst[-1]:.4f}"])
    return Report(
        f"Does it hold on other videos? Guided search, default iterations, {size}x{size} RGB, patches 7x7, k = 3, "
        "frames ten apart; mean costs of a random sample of queries over their exact ones.",
        ["query frame, key frame", "seconds, median (range)", "best over exact", "third over exact"],
        rows,
        results,
    )
