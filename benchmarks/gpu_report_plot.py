"""Plots of the report from a GPU: time and memory against the side of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from figures import new_figure, write_figure

__all__ = ["draw"]

PANELS = ((7, 16, "float32"), (7, 16, "bfloat16"), (1, 64, "float32"), (1, 64, "bfloat16"))
STYLES = {
    "search, guided": ("tab:gray", "-"), "search, PatchMatch": ("tab:olive", "-"), "attention": ("tab:blue", "-"),
    "attention, backward": ("tab:blue", "--"), "SDPA": ("black", "-"), "SDPA, backward": ("black", "--"),
    "FlexAttention": ("tab:red", "-"),
}  # fmt: skip
QUANTITIES = {"time": "milliseconds", "memory": "megabytes beyond the inputs"}


def draw(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """Write a figure of each quantity; without matplotlib, say so."""
    if not rows:
        return []
    try:
        return [_figure(folder / f"gpu_report_{quantity}.png", rows, quantity) for quantity in QUANTITIES]
    except ModuleNotFoundError:
        print('No plots: matplotlib is not installed; install it with: pip install "patchattn[bench]"')
        return []


def _figure(path: Path, rows: list[dict[str, Any]], quantity: str) -> Path:
    settings = ("p", "channels", "dtype")
    measured = list(dict.fromkeys(tuple(row[name] for name in settings) for row in rows))
    shown = [panel for panel in PANELS if panel in measured] or measured[: len(PANELS)]
    figure = new_figure(4 + 3 * len(shown), 5)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, panel in zip(panels, shown, strict=True):
        p, channels, dtype = panel
        for operation, (color, style) in STYLES.items():
            own = [r for r in rows if r["operation"] == operation and tuple(r[name] for name in settings) == panel]
            own.sort(key=lambda row: row["side"])
            sizes = [row["side"] for row in own]
            values = [row["seconds"]["median"] * 1e3 if quantity == "time" else row["peak"] / 1e6 for row in own]
            if own:
                axes.plot(sizes, values, style, color=color, marker="o", markersize=3, label=operation)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        axes.set_title(f"p = {p}, {channels} channels, {dtype}", fontsize=11)
        axes.set_xlabel("side of the image")
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    panels[0].set_ylabel(QUANTITIES[quantity])
    panels[-1].legend(frameon=False, fontsize=8)
    write_figure(figure, path)
    return path
