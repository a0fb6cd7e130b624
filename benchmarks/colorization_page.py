"""Tables 4, 5 and 8 and Figure 5 of PSAL beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from colorization_runs import Setting
from figures import new_figure, write_figure
from machine import table
from page import image_link, machine_line, write_page

Entry = Mapping[str, Any]

NO_RANDOM = "PSAL 3, no random matches"
TABLE_4: dict[str, float | None] = {
    "PSAL 1": 0.00832, "PSAL 3": 0.00228, NO_RANDOM: None, "PSAL 7": 0.00234, "PSAL 15": 0.00237, "PSAL 31": 0.00232,
    "PSAL Aggreg.": 0.001939,
}  # fmt: skip
TABLE_5: dict[str, float | None] = {"Full": 0.0024, "Full, dot": 0.0064}
TABLE_8 = {
    # Error, error with PSAL-1, GFLOPs, GB.
    "PSAL 1": (0.0083, 0.0083, 30, 0.05),
    "PSAL Aggreg.": (0.0019, 0.0023, 37, 0.74),
    "PSAL 3": (0.0023, 0.0023, 36, 0.08),
    "Full": (0.0024, 0.0024, 1173, 9.32),
    "Local": (0.0032, 0.0035, 385, 3.23),
}


def write(results: Sequence[Entry], setting: Setting, folder: Path | None) -> None:
    """Print the tables; with a folder, write the page, the JSON and the plot."""
    entries = {str(entry["network"]): entry for entry in results}
    tables = [_errors(entries, "Table 4: matches", TABLE_4), _errors(entries, "Table 5: similarity", TABLE_5)]
    parts = [
        "# Guided colorization with each attention layer",
        f"Written by `python benchmarks/colorization_tables.py --data DIR --size {setting.size} "
        f"--steps {setting.steps} --results docs/results`. The paper's own setting is `--size 256 --steps 200000`; one "
        "network of it, `patchattn train colorization --data DIR/davis -o RUN --attention psal --k 3`.",
        f"Frames of {setting.size}x{setting.size}, {setting.steps} steps of Adam (the paper: 256x256, 200,000); mean "
        "squared error of RGB in [0, 1] on three sequences that no network has seen, each frame from the one before "
        "it; mean and range of so many seeds. The paper's numbers are of other frames: compare within a column.",
        "All networks begin with random weights and learn from seven sequences (the paper: DAVIS whole), the colors "
        f"of each pair changed at random, at a rate of 1e-3 that falls to 0 over the last {setting.steps // 4} steps. "
        f"In the first {setting.explore} steps they attend to random keys, from then on as they should; linear "
        "attention, and the row that says so, have no such steps.",
        *tables,
        _replaced(entries),
        _claims(entries),
        machine_line(),
    ]
    print("\n\n".join(parts))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        plot = folder / "colorization.png"
        _draw(entries, plot)
        write_page(
            folder, "colorization", [*parts, image_link(plot, "error against memory and operations")], [*results]
        )


def _spread(errors: Sequence[float]) -> str:
    return f"{mean(errors):.5f} ({min(errors):.5f} to {max(errors):.5f}; {len(errors)})"


def _errors(entries: Mapping[str, Entry], title: str, paper: Mapping[str, float | None]) -> str:
    rows = [
        [name, _spread(entries[name]["errors"]), "" if theirs is None else f"{theirs:.5f}"]
        for name, theirs in paper.items()
        if name in entries
    ]
    return f"## {title}\n\n" + table(["attention", "error (range; seeds)", "the paper"], rows)


def _replaced(entries: Mapping[str, Entry]) -> str:
    rows = []
    for name, entry in entries.items():
        theirs = TABLE_8.get(name)
        rows.append(
            [
                name,
                _spread(entry["errors"]),
                _spread(entry["errors_with_psal_1"]),
                f"{entry['gflops']:.1f}",
                f"{entry['gigabytes']:.3f}",
                "" if theirs is None else f"{theirs[0]}, {theirs[1]}; {theirs[2]} GFLOP, {theirs[3]} GB",
            ]
        )
    headings = [
        "trained with",
        "error (range; seeds)",
        "with PSAL-1 in its place",
        "GFLOP at 256x256",
        "GB at 256x256",
        "the paper",
    ]
    return "## Table 8: another layer at test\n\n" + table(headings, rows)


def _claims(entries: Mapping[str, Entry]) -> str:
    """What the paper says, and whether it is seen here."""
    error = {name: mean(entry["errors"]) for name, entry in entries.items()}
    rows = []

    def claim(text: str, value: float, holds: bool) -> None:
        rows.append([text, f"{value:.3g}", "seen" if holds else "not seen"])

    if {"PSAL 1", "PSAL 3"} <= error.keys():
        ratio = error["PSAL 1"] / error["PSAL 3"]
        claim("PSAL-1 cannot learn its projections: at least 1.5 times the error of PSAL-3", ratio, ratio >= 1.5)
    more = [error[name] for name in ("PSAL 7", "PSAL 15", "PSAL 31") if name in error]
    if more and "PSAL 3" in error:
        ratio = min(more) / error["PSAL 3"]
        claim("more than 3 matches are no better: best of 7, 15, 31 over PSAL-3", ratio, ratio >= 0.98)
    if "PSAL Aggreg." in error:
        ratio = error["PSAL Aggreg."] / min(error.values())
        claim("aggregation is best: its error over the best of all", ratio, ratio == 1)
    if {"Full", "Full, dot"} <= error.keys():
        ratio = error["Full, dot"] / error["Full"]
        claim("l2 beats the dot product by far: dot over l2", ratio, ratio >= 1.5)
    if "Full" in error:
        ratio = mean(entries["Full"]["errors_with_psal_1"]) / error["Full"]
        claim("PSAL-1 in the place of full attention costs less than 5 %", ratio, ratio < 1.05)
    if {"Full", "PSAL 1"} <= error.keys():
        work = entries["Full"]["gflops"] / entries["PSAL 1"]["gflops"]
        claim("... with 40 times fewer operations", work, work >= 40)
        memory = entries["Full"]["gigabytes"] / entries["PSAL 1"]["gigabytes"]
        claim("... and 200 times less memory (full attention here goes in tiles)", memory, memory >= 200)
    if {NO_RANDOM, "PSAL 3"} <= error.keys():
        ratio = error[NO_RANDOM] / error["PSAL 3"]
        claim(
            "not in the paper: without random matches at the start, the error of PSAL-3 over its own",
            ratio,
            ratio >= 1.5,
        )
    return "## What the paper says\n\n" + table(["claim", "number", ""], rows)


def _draw(entries: Mapping[str, Entry], path: Path) -> None:
    """Figure 5: error against memory, and against operations."""
    figure = new_figure(11, 4.2, dpi=110)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, cost, label in ((left, "gigabytes", "GB"), (right, "gflops", "GFLOP")):
        for number, (name, entry) in enumerate(entries.items()):
            errors = entry["errors"]
            middle = mean(errors)
            axes.errorbar(
                entry[cost],
                middle,
                [[middle - min(errors)], [max(errors) - middle]],
                fmt="os"[number // 10],
                capsize=3,
                label=name,
            )
        axes.set(xscale="log", xlabel=f"{label} of a forward call at 256x256")
        axes.grid(alpha=0.3)
    left.set_ylabel("mean squared error")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    write_figure(figure, path)
