"""The page table1.md and its plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from figures import new_figure, write_figure
from machine import Report, table
from page import image_link, machine_line, write_page
from table1_cells import Cell, Limits
from table1_layers import CHANNELS, ENTRIES, PAPER_SIDES, PATCH, matrix_bytes

GB = 1e9
PASSES = {False: "forward", True: "forward + backward"}


def _paper(name: str, side: int) -> float | None:
    paper = dict(zip(PAPER_SIDES, ENTRIES[name].paper, strict=False))
    return paper.get(side)


def _row(cells: Sequence[Cell], name: str, backward: bool) -> list[Cell]:
    return [cell for cell in cells if cell.layer == name and cell.backward == backward]


def _gigabytes(cell: Cell, paper: float | None) -> str:
    mark = "" if cell.measured else "~"
    return f"{mark}{cell.memory / GB:.3g}" + ("" if paper is None else f" ({paper:.2f})")


def memory_report(cells: Sequence[Cell], backward: bool) -> Report:
    """GB, and beside a forward pass the paper's."""
    sides = sorted({cell.side for cell in cells})
    rows = []
    for name, entry in ENTRIES.items():
        found = [
            _gigabytes(cell, None if backward else _paper(name, cell.side)) for cell in _row(cells, name, backward)
        ]
        rows.append([name, entry.memory, *found])
    if not backward:
        rows.append(
            ["n x n matrix of full attention (formula, 4 n² bytes)", "n²"]
            + [f"{matrix_bytes(side) / GB:.3g}" for side in sides]
        )
    headings = ["layer", "memory, of n pixels", *(f"{side}x{side}" for side in sides)]
    title = "Memory in GB, " + PASSES[backward] + ("" if backward else "; in parentheses the paper's")
    return Report(title + ".", headings, rows, [])


def time_report(cells: Sequence[Cell], backward: bool) -> Report:
    sides = sorted({cell.side for cell in cells})
    rows = [
        [name, *(("" if cell.measured else "~") + f"{cell.seconds:.3g}" for cell in _row(cells, name, backward))]
        for name in ENTRIES
    ]
    return Report(f"Processor seconds, {PASSES[backward]}.", ["layer", *(f"{side}x{side}" for side in sides)], rows, [])


def plot(cells: Sequence[Cell], path: Path) -> None:
    """Memory of a forward pass against pixels; the paper's as hollow markers."""
    drawn = new_figure(11, 7)
    axes = drawn.subplots()
    for name, entry in ENTRIES.items():
        row = _row(cells, name, False)
        measured = [cell for cell in row if cell.measured]
        # What is extrapolated begins at the last measurement.
        beyond = [cell for cell in row if not cell.measured or cell is measured[-1]]
        look: dict[str, Any] = {"color": entry.color, "marker": entry.marker}
        axes.plot([cell.side**2 for cell in measured], [cell.memory / GB for cell in measured], label=name, **look)
        axes.plot([c.side**2 for c in beyond], [c.memory / GB for c in beyond], linestyle=":", color=entry.color)
        axes.plot(
            [side**2 for side, _ in zip(PAPER_SIDES, entry.paper, strict=False)], list(entry.paper), linestyle="none",
            markerfacecolor="none", markersize=10, **look,
        )  # fmt: skip
    sides = sorted({cell.side for cell in cells})
    axes.plot([s**2 for s in sides], [matrix_bytes(s) / GB for s in sides], "--", color="0.6", label="4 n² bytes")
    axes.plot([], [], "o", color="0.4", markerfacecolor="none", markersize=10, label="hollow: the paper, GPU")
    axes.plot([], [], ":", color="0.4", label="dotted: extrapolated")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([s**2 for s in sides], [f"{s}²" for s in sides])
    axes.set_ylim(1e-4, 1e3)
    axes.set_xlabel("pixels")
    axes.set_ylabel("GB beyond inputs and outputs, forward")
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    write_figure(drawn, path)


def write(cells: Sequence[Cell], limits: Limits, folder: Path | None) -> None:
    """Print the tables, and write the page if a folder is given."""
    passes = sorted({cell.backward for cell in cells})
    reports = [report(cells, backward) for report in (memory_report, time_report) for backward in passes]
    for report in reports:
        report.show()
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    plot(cells, folder / "table1.png")
    tables = [part for report in reports for part in (report.question, table(report.headings, report.rows))]
    parts = [
        "# Memory and time of attention layers (PSAL, Table 1)",
        f"Written by `python benchmarks/table1.py --results docs/results`. {machine_line()}",
        setting(limits),
        *tables,
        image_link(folder / "table1.png", "Memory against pixels"),
    ]
    write_page(folder, "table1", parts, [asdict(cell) for cell in cells])


def setting(limits: Limits) -> str:
    return (
        f"One call on {CHANNELS} channels with patches {PATCH}x{PATCH}, batch 1, float32; query, key and value of one "
        "size. Memory is the peak of resident memory beyond inputs and outputs (forward + backward: and gradients), "
        "1 GB = 10^9 bytes; time is processor time of one thread. Each number is measured in a process of its own, "
        "after the layer has run on a small image. The processes run with MALLOC_MMAP_THRESHOLD_=1000000: otherwise "
        "glibc's allocator keeps part of what layers that go by tiles have freed, and that would be measured too. "
        f"What was expected to take more than {limits.seconds:g} seconds or {limits.bytes / GB:g} GB was not run: "
        "~ marks values extrapolated from the size before, memory with the pixels (for layers that go by tiles "
        "an upper bound), time with the layer's complexity. "
        "Our full, local, linear and sparse attention go through the image in tiles and compute the weights again for "
        "the gradient, so that their memory is linear in the pixels; the paper's numbers are of layers on a GPU that "
        "hold the matrix or unfolded patches. Performer and Reformer are those of the packages performer-pytorch and "
        "reformer-pytorch, on unfolded patches. The search of patch attention takes some 26 MB whatever the size."
    )
