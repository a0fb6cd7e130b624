"""The least time that the GPU backend's operators can take, from what their kernels read, write and compute.

Three things, each a table: what the formulas say that a kernel asks for, beside what it really loads and stores
(counted in Triton's interpreter, on the CPU); how much a search looks at (counted on a photograph); and, from both, the
least time on two GPUs at several sizes, beside exact attention over all pairs of patches on tensor cores. Nothing here
is measured on a GPU.

    python benchmarks/gpu_roofline.py [--results docs/results]
"""

from __future__ import annotations

import os

from figures import new_figure, write_figure

os.environ["TRITON_INTERPRET"] = "1"

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from gpu_counts import CHECKED, MEASURED_SIDE, PATCHMATCH_ITERATIONS, Checked, Rates, check, check_table, measure_rates
from gpu_formulas import Facts, Needs
from gpu_interpreter import speed_up_if_interpreted
from gpu_least import (
    APART,
    CHAIN,
    GPUS,
    INVERSE_BYTES,
    OPERATORS,
    SIDES,
    SORT_BYTES,
    TENSOR_SHARE,
    Gpu,
    crossover,
    dense_seconds,
    limits_of,
    parts_of,
    range_of,
)
from gpu_problems import operators
from machine import table


def shown(least: float, most: float) -> str:
    """One time or a range, in the unit that fits."""
    unit, factor = next(((u, f) for u, f in (("s", 1.0), ("ms", 1e3)) if most * f >= 1), ("µs", 1e6))
    texts = [f"{value * factor:.2g}" if value * factor < 100 else f"{value * factor:.0f}" for value in (least, most)]
    return f"{' to '.join(dict.fromkeys(texts))} {unit}"


def time_table(gpu: Gpu, rates: Rates) -> str:
    rows = []
    for operator in OPERATORS:
        total: dict[str, float] = {}
        for _, needs, wait in parts_of(operator, Facts((1024, 1024)), rates, gpu):
            found = limits_of(needs, gpu, APART) | {"waiting": wait}
            longest = max(found, key=lambda name: found[name])
            total[longest] = total.get(longest, 0) + found[longest]
        times = [
            [seconds_of(operator, Facts((side, side)), rates, gpu, how) for how in (SHARED, APART)] for side in SIDES
        ]
        rows.append([operator, *(shown(*both) for both in times), max(total, key=lambda name: total[name])])
    dense = [dense_seconds(side, gpu) for side in SIDES]
    rows.append(["exact attention on tensor cores", *(shown(x, x) for x in dense), "arithmetic"])
    return table([gpu.name, *(f"{side}²" for side in SIDES), "what limits most at 1024²"], rows)


def query_table(rates: Rates) -> str:
    """Bytes and operations of a query in each kernel, at 1024²."""
    rows = []
    for operator in OPERATORS:
        counted: dict[str, list[Needs]] = {}
        for kernel, needs, _ in parts_of(operator, Facts((1024, 1024)), rates, GPUS[0]):
            counted.setdefault(kernel, []).append(needs)
        for kernel, all_needs in counted.items():
            cells = [
                f"{sum(getattr(needs, name) for needs in all_needs) / 1024**2:,.0f}"
                for name in ("loads", "far", "stores", "once", "operations")
            ]
            rows.append([operator, kernel, str(len(all_needs)), *cells])
    headings = [
        "operator",
        "kernel",
        "launches",
        "loads",
        "of these from the second level",
        "stores",
        "memory",
        "operations",
    ]
    return table(headings, rows)


def rates_text(rates: Rates) -> str:
    return "\n".join(
        [
            f"- PatchMatch: {rates.start:.1f} patches to fill the lists; in iterations 1 to {PATCHMATCH_ITERATIONS} "
            f"the four steps of propagation measure {', '.join(f'{x:.1f}' for x in rates.spread)} (all neighbors' "
            f"matches would be 48), the random search {', '.join(f'{x:.1f}' for x in rates.random)} (of "
            f"{MEASURED_SIDE.bit_length()} windows).",
            f"- Guided: scans compare {', '.join(f'{x:.1f}' for x in rates.leaves)} leaves of eight keys, after "
            f"{', '.join(f'{x:.1f}' for x in rates.lookups)} look-ups; {rates.numbers} numbers a patch, lists of "
            f"{rates.length}; {rates.begin:.1f} leaves to begin with; {rates.finish:.1f} patches measured at the end.",
        ]
    )


def plot(path: Path, rates: Rates) -> None:
    """Least times against the side of the image."""
    figure = new_figure(11, 5)
    panels = figure.subplots(1, len(GPUS), sharey=True)
    sides = [round(2 ** (n / 4)) for n in range(4 * 6, 4 * 11 + 1)]
    looks = {"search_patchmatch": "tab:gray", "search_guided": "tab:blue", "attend, votes": "tab:green"}
    for axes, gpu in zip(panels, GPUS, strict=True):
        axes.plot(sides, [dense_seconds(s, gpu) for s in sides], color="black", label="exact attention, tensor cores")
        for name, color in looks.items():
            both = zip(*(range_of(name, Facts((s, s)), rates, gpu) for s in sides), strict=True)
            axes.fill_between(sides, *both, color=color, alpha=0.5, linewidth=1, label=name)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        axes.set_title(f"{gpu.name}: least times, not measurements")
        axes.set_xlabel("side of the image")
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("seconds")
    panels[0].legend(frameon=False)
    write_figure(figure, path)


def report(checks: list[Checked], rates: Rates) -> str:
    """The file gpu_roofline.md."""
    crossings = "; ".join(
        f"{gpu.name}: PatchMatch from {crossover(('search_patchmatch', 'attend'), rates, gpu)}², guided from "
        f"{crossover(('search_guided', 'attend'), rates, gpu)}²"
        for gpu in GPUS
    )
    return "\n\n".join(
        [
            "# Roofline of the GPU backend",
            "Written by `python benchmarks/gpu_roofline.py` on a CPU. No time here was measured: these are lower "
            "bounds.",
            "## Predicted and counted",
            "Bytes of active lanes, 32x32 positions, C = 16, k = 3, random features; counted in Triton's interpreter. "
            "Of `patchmatch`, `guided` and `chains` the number of patches and leaves is the counted one.",
            check_table(checks),
            "## How much a search looks at",
            f"For each query, two views of a scene at {MEASURED_SIDE}x{MEASURED_SIDE}, counted in the interpreter:",
            rates_text(rates),
            "## A query's bytes and operations",
            "At 1024², p = 7, C = 16, k = 3, float32; all launches of a call together.",
            query_table(rates),
            "## Least times",
            "Of each launch the longest of: everything once through the memory bus; all loads from the first-level "
            "cache; arithmetic; and, for the second number, every candidate's patch from the second-level cache, as if "
            "no neighbor had asked for the same. Launches one after the other; the time to launch (some microseconds "
            "each) is not in it. From 1024² on the tables (67 MB each) are larger than the second-level cache: the "
            "second number then holds if neighbors' candidates are mostly neighbors, as in natural images.",
            "Assumed: "
            + "; ".join(
                f"{gpu.name}: {gpu.memory / 1e12:g} TB/s memory, {gpu.second_level / 1e12:g} TB/s second-level cache "
                f"(an assumption: some two thirds of 5120 bytes a clock), {gpu.first_level / 1e12:g} TB/s first-level "
                f"cache (128 bytes a clock of each multiprocessor), {gpu.single / 1e12:g} TFLOP/s float32, "
                f"{gpu.tensor / 1e12:g} TFLOP/s float16 on tensor cores, of which exact attention is granted "
                f"{TENSOR_SHARE:.0%} for 2 n² (784 + 16) operations"
                for gpu in GPUS
            )
            + f". A scan of guided search waits for {CHAIN} reads of {GPUS[0].wait * 1e9:.0f} ns at each of its steps; "
            f"a level of the tree moves {SORT_BYTES} bytes a key, the sort of the matches before a gradient "
            f"{INVERSE_BYTES} bytes a match.",
            *(time_table(gpu, rates) for gpu in GPUS),
            f"By the larger numbers, search and weighted mean together are faster than exact attention: {crossings}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="where gpu_roofline.md, .json and .png go")
    parser.add_argument("--rates", type=Path, help="an earlier gpu_roofline.json: the searches are not counted anew")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    speed_up_if_interpreted()
    checks = []
    for p in (3, 7):
        for name in operators():
            if name in CHECKED:
                print(f"counting {name}, p = {p}", file=sys.stderr, flush=True)
                checks += check(name, p)
    if arguments.rates is not None:
        rates = Rates(**json.loads(arguments.rates.read_text())["rates"])
    else:
        print("counting the searches on a photograph", file=sys.stderr, flush=True)
        rates = measure_rates()
    text = report(checks, rates)
    print(text)
    if arguments.results is None:
        return
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "gpu_roofline.md").write_text(text + "\n")
    results = {
        "checks": [asdict(one) for one in checks],
        "rates": asdict(rates),
        "least_seconds": {
            gpu.name: {
                **{
                    name: {side: range_of(name, Facts((side, side)), rates, gpu) for side in SIDES}
                    for name in OPERATORS
                },
                "exact attention": {side: [dense_seconds(side, gpu)] * 2 for side in SIDES},
            }
            for gpu in GPUS
        },
    }
    (arguments.results / "gpu_roofline.json").write_text(json.dumps(results, indent=1) + "\n")
    try:
        plot(arguments.results / "gpu_roofline.png", rates)
    except ModuleNotFoundError:
        print('No plot: matplotlib is not installed; install it with: pip install "patchattn[bench]"')


if __name__ == "__main__":
    main()
