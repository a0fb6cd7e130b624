"""The section `peers` as an image: time against cost."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from figures import new_figure, write_figure

OURS = {"guided": ("tab:blue", "o"), "patchmatch": ("tab:gray", "s")}
TICKS = [1, 1.005, 1.01, 1.02, 1.03, 1.05, 1.1, 1.2, 1.5, 2, 3, 5]


def _kind(result: dict[str, Any]) -> str:
    library = result["search"].rsplit(" ", 1)[0]
    return f"{library} on PCA" if "PCA" in result["settings"] else library


def _draw_ours(axes: Any, results: list[dict[str, Any]]) -> None:
    """Lines with their iterations at the points."""
    for method, (color, marker) in OURS.items():
        points = [result for result in results if result["search"] == method]
        x, y = [p["seconds"]["median"] for p in points], [p["over_exact"][0] for p in points]
        axes.plot(x, y, color=color, marker=marker, label=f"{method} (iterations at the points)", zorder=3)
        for n, (point, *at) in enumerate(zip(points, x, y, strict=True)):
            # Below and above the falling line in turn: late iterations lie near each other.
            side, where, height = (-1, "right", "top") if n % 2 == 0 else (1, "left", "bottom")
            label = str(point["iterations"])
            axes.annotate(label, at, (4 * side, 3 * side), textcoords="offset points", color=color, ha=where, va=height)


def _draw_peers(axes: Any, results: list[dict[str, Any]]) -> None:
    peers = [result for result in results if result["search"] not in OURS]
    looks = cycle(zip(["tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink"], "^v<>DP"))  # noqa: B905
    for kind, (color, marker) in zip(dict.fromkeys(map(_kind, peers)), looks):  # noqa: B905
        points = [(p["seconds"]["median"], p["over_exact"][0]) for p in peers if _kind(p) == kind]
        axes.scatter(*zip(*points, strict=True), color=color, marker=marker, s=70, label=kind, alpha=0.85, zorder=4)


def plot(path: Path, results: list[dict[str, Any]]) -> None:
    """Draw a panel for each size; costs are spread out towards 1, where it is hard to get any lower."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    sizes = sorted({result["size"] for result in results})
    figure = new_figure(16, 8)
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=True):
        here = [result for result in results if result["size"] == size]
        _draw_ours(axes, here)
        _draw_peers(axes, here)
        axes.axhline(1, color="black", linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        excess = lambda cost: np.sign(cost - 1) * np.abs(cost - 1) ** 0.5  # noqa: E731
        axes.set_yscale("function", functions=(excess, lambda root: 1 + np.sign(root) * root**2))
        highest = max(result["over_exact"][0] for result in here)
        axes.set_ylim(1 - 1e-4, 1 + 1.15 * (highest - 1) + 1e-3)
        axes.yaxis.set_major_locator(FixedLocator([tick for tick in TICKS if tick <= 1 + 1.15 * (highest - 1)]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.12)
        axes.set_title(f"{size}x{size} RGB, patches 7x7, k = 3")
        axes.set_xlabel("seconds (log)")
        axes.set_ylabel("mean cost of the best match over the exact one")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figure(figure, path)
