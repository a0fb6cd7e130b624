"""What gpu_compile.py found, as a table and an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton
from figures import new_figure, write_figure
from machine import table

__all__ = ["JUDGED", "LEAST", "WANTED", "write"]

LEAST, WANTED = 0.25, 0.5
"""Occupancy on JUDGED: less than the first is an error (in a search), less than the second is named."""
JUDGED = "sm_90"


def markdown(found: list[dict[str, Any]], targets: list[str]) -> str:
    """The file gpu_kernels.md: the worst of each kernel, then all."""
    summary = []
    for name in dict.fromkeys(row["kernel"] for row in found):
        own = [row for row in found if row["kernel"] == name]
        cells = []
        for target in targets:
            here = [row[target] for row in own if target in row]
            registers = max((x["registers"] for x in here), default=0)
            least = min((x["occupancy"] for x in here), default=0)
            spilled = sum(x["spilled"] for x in here)
            cells.append(f"{registers}, {spilled}, {least:.0%}" if here else "")
        summary.append([name, *cells])
    every = []
    for row in found:
        sizes = [", ".join(map(str, row[key])) for key in ("p", "channels", "k")]
        cells = []
        for target in targets:
            x = row.get(target)
            missing = "fails" if target in row.get("fails", ()) else ""
            cells.append(f"{x['registers']}, {x['spilled']}, {x['shared']}, {x['occupancy']:.0%}" if x else missing)
        warps = max((row[target]["warps"] for target in targets if target in row), default="")
        every.append([row["kernel"], *sizes, row["extra"], str(warps), *cells])
    return "\n\n".join(
        [
            "# Kernels, compiled ahead of time",
            "Written by `make gpu-compile` on a machine without a GPU, with Triton "
            f"{triton.__version__}: every kernel at the block shapes that the operators choose for 1024x1024 "
            "positions. Occupancy is theoretical: the share of a multiprocessor's warps (on gfx942: of a compute "
            "unit's waves) that are resident if only registers, shared memory and the number of blocks limit them. It "
            "is not a measurement of speed.",
            "Of each kernel the most registers a thread, the instructions that touch spilled ones in all its builds "
            "(there should be none), and the least occupancy:",
            table(["kernel", *targets], summary),
            "By size of a patch (p x p), channels C and matches k; where a kernel does not depend on one of them, all "
            "its values stand in one row. Each cell: registers a thread, instructions that touch spilled ones, bytes "
            "of shared memory a block, occupancy; the worst where the same kernel is built more than once (for other "
            "distances, or numbers that divide by 16). Special cases are built for two of the targets.",
            table(["kernel", "p", "C", "k", "special", "warps", *targets], every),
        ]
    )


def plot(path: Path, found: list[dict[str, Any]]) -> None:
    """Occupancy on JUDGED, a point for each row of a kernel."""
    names = sorted({row["kernel"] for row in found}, reverse=True)
    figure = new_figure(9, 1.6 + 0.32 * len(names))
    axes = figure.subplots()
    for special, color, label in (
        (True, "tab:gray", "special cases"),
        (False, "tab:blue", "p 1, 3, 7; C 16, 64; k 1, 3, 16"),
    ):
        points = [
            (row[JUDGED]["occupancy"], names.index(row["kernel"]) + (0.16 if special else -0.16))
            for row in found
            if JUDGED in row and bool(row["extra"]) == special
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), s=26, alpha=0.5, color=color, label=label, linewidths=0)
    axes.axvline(LEAST, color="tab:red", linewidth=1)
    axes.axvline(WANTED, color="tab:orange", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.03)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"theoretical occupancy on {JUDGED}; red: least for a search, orange: wanted")
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    write_figure(figure, path)


def write(directory: Path, found: list[dict[str, Any]], targets: list[str]) -> None:
    """Write gpu_kernels.md, .json and, if matplotlib is there, .png."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "gpu_kernels.md").write_text(markdown(found, targets) + "\n")
    lines = ",\n".join(json.dumps(row) for row in found)
    (directory / "gpu_kernels.json").write_text(f'{{"triton": "{triton.__version__}", "kernels": [\n{lines}\n]}}\n')
    try:
        plot(directory / "gpu_kernels.png", found)
    except ModuleNotFoundError:
        print('No plot: matplotlib is not installed; install it with: pip install "patchattn[bench]"')
    print(f"wrote gpu_kernels.* to {directory}")
