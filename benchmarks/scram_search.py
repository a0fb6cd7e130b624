"""Section `search`: how Algorithm 1 of SCRAM is best run.

Self-attention on 128 x 128 positions of a photograph (the first in bsds500/): its standardized colors (d_k = 3) and
its `tokens` (64), single positions, scaled dot products. Algorithm 1 as printed is `repeated`, kappa runs of T = 8
iterations; `patchmatch` is one run, of the same 8, with a list of kappa matches; `guided` makes two scans.

Quality is measured on 500 random queries, for which the yardstick is exact: top-kappa(mode) takes the best key, then
the best of those that are far enough, and so on. Attention mass is that of the softmax over the kept keys, over that of
the exact ones (see `recall`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import new_figure, plain_logarithmic, write_figure
from machine import Report, seconds, spread
from pairs import read, standardized, tokens
from search_features import recall
from torch import Tensor

from patchattn import MatchField, match

SIDE, SAMPLED = 128, 500
KAPPAS = (1, 4, 16)
# Top-kappa(max), and top-kappa(mode) by its smallest separation.
SELECTIONS = {"max": 0, "mode": 5}
METHODS: dict[str, dict[str, Any]] = {
    "exact": {"method": "exact"},
    "repeated": {"method": "repeated", "iterations": 8},
    "patchmatch": {"method": "patchmatch", "iterations": 8},
    "guided": {"method": "guided", "iterations": 2},
}
NAMES = {
    "exact": "exact",
    "repeated": "Algorithm 1 (repeated)",
    "patchmatch": "one run with a list (patchmatch)",
    "guided": "guided, two scans",
}
TOLERANCE = 1e-5


def _sample(side: int, count: int) -> Tensor:
    chosen = np.random.default_rng(0).choice(side * side, min(count, side * side), replace=False)
    mask = torch.zeros(side * side, dtype=torch.bool)
    mask[torch.from_numpy(chosen)] = True
    return mask.view(1, side, side)


def _at(field: MatchField, mask: Tensor) -> MatchField:
    """The matches of the sampled queries alone."""
    return MatchField(field.index[..., mask[0]], field.similarity[..., mask[0]], field.key_shape)


def best_found(found: MatchField, exact: MatchField) -> float:
    """The share of queries whose best match is as similar as the exact one."""
    one, other = (field.similarity[:, :, 0].double() for field in (found, exact))
    return float((one >= other - TOLERANCE * other.abs()).double().mean())


def _measure(features: Tensor, k: int, separation: int, runs: int, mask: Tensor) -> list[dict[str, Any]]:
    search: dict[str, Any] = {"k": k, "similarity": "scaled_dot", "min_separation": separation}
    yardstick = match(features, features, **search, method="exact", query_mask=mask)
    results = []
    for name, settings in METHODS.items():
        result: dict[str, Any] = {"method": name}
        if name == "exact" and separation:
            # All queries would take minutes.
            time = seconds(lambda: match(features, features, **search, method="exact", query_mask=mask), 1, False)
            result["share_of_queries"] = float(mask.double().mean())
            field = yardstick
        else:
            fields: list[MatchField] = []
            small = features[..., :32, :32]
            match(small, small, **search, **settings)
            time = seconds(lambda: fields.append(match(features, features, **search, **settings)), runs, False)  # noqa: B023
            field = fields[-1]
        sampled = _at(field, mask)
        exact = _at(yardstick, mask)
        result |= {"seconds": time, "mass": recall(sampled, exact), "best": best_found(sampled, exact)}
        result["filled"] = float((sampled.index >= 0).double().mean() / (exact.index >= 0).double().mean())
        results.append(result)
        told = f"{features.shape[1]} channels, κ = {k}, separation {separation}, {name}"
        print(f"  {told}: {time['median']:.3g} s", file=sys.stderr, flush=True)
    return results


def _cells(result: dict[str, Any]) -> list[str]:
    time = spread(result["seconds"], 3)
    if "share_of_queries" in result:
        time = f"{result['seconds']['median']:.3f} for {result['share_of_queries']:.1%} of the queries"
    return [NAMES[result["method"]], time, f"{result['mass']:.4f}", f"{result['best']:.1%}"]


def report_search(data: Path, plots: Path | None, runs: int, side: int = SIDE) -> list[Report]:
    """Each method, selection and kappa."""
    image = read(min(data.glob("bsds500/*.jpg")), side)
    mask = _sample(side, SAMPLED)
    rows, results = [], []
    for features in (standardized(image), tokens(image)):
        for selection, separation in SELECTIONS.items():
            for k in KAPPAS:
                for result in _measure(features, k, separation, runs, mask):
                    width = features.shape[1]
                    results.append({"width": width, "selection": selection, "k": k, **result})
                    rows.append([str(width), selection, str(k), *_cells(result)])
    if plots is not None:
        _plot_search(plots / "scram-search.png", results)
    return [
        Report(
            f"How is Algorithm 1 best run? {side}x{side} positions with themselves, scaled dot products; top-κ(mode) "
            f"with separation {SELECTIONS['mode']}; seconds for all queries, median (range); attention mass over that "
            "of the exact keys, and the share of queries whose best key is the exact one, of "
            f"{min(SAMPLED, side * side)} random queries.",
            ["d_k", "selection", "κ", "method", "seconds", "attention mass", "best key is exact"],
            rows,
            results,
        )
    ]


LOOKS = {"repeated": ("tab:orange", "s"), "patchmatch": ("tab:gray", "D"), "guided": ("tab:blue", "o")}


def _plot_search(path: Path, results: list[dict[str, Any]]) -> None:
    """Time against quality, with kappa in the marker."""
    widths = sorted({result["width"] for result in results})
    figure = new_figure(14, 10)
    panels = figure.subplots(len(widths), len(SELECTIONS), sharex=True, squeeze=False)
    for width, row in zip(widths, panels, strict=True):
        for selection, axes in zip(SELECTIONS, row, strict=True):
            here = [r for r in results if (r["width"], r["selection"]) == (width, selection)]
            for name, (color, marker) in LOOKS.items():
                points = [r for r in here if r["method"] == name]
                x, y = [r["seconds"]["median"] for r in points], [r["mass"] for r in points]
                axes.scatter(x, y, color=color, marker=marker, s=340, alpha=0.85, label=NAMES[name])
                for r, *at in zip(points, x, y, strict=True):
                    axes.text(*at, str(r["k"]), color="white", weight="bold", ha="center", va="center")
            axes.axhline(1, color="black", linewidth=1)
            axes.set_xscale("log")
            plain_logarithmic(axes.xaxis)
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
            axes.margins(x=0.15, y=0.15)
            axes.set_title(f"top-κ({selection}), {width} channels; the number is κ")
            axes.set_xlabel("seconds for all queries (log)")
            axes.set_ylabel("attention mass over that of the exact keys")
            axes.tick_params(labelbottom=True)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, markerscale=0.5
    )
    write_figure(figure, path)
