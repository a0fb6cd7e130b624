"""The page of the report from a GPU: parity, times, memory, from which size on ours pays, and the roofline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_counts import Rates
from gpu_formulas import Facts
from gpu_least import GPUS, Gpu, parts_of, range_of
from gpu_report_plan import NOT_TIMED
from gpu_report_rows import DIFFERS, DONE, FAILED, LEFT_OUT
from gpu_report_timing import OPERATIONS, K
from machine import spread, table
from page import image_link

__all__ = ["overtakes", "page"]

OUTCOMES = (DONE, DIFFERS, FAILED, LEFT_OUT)
AGAINST = (("attention", "SDPA"), ("attention, backward", "SDPA, backward"), ("attention", "FlexAttention"))
SETTINGS = ("p", "channels", "dtype")
QUANTITIES = {"time": "ms, median (range)", "memory": "MB beyond the inputs"}
Result = dict[str, Any]


def page(facts: Result, rows: list[Result], rates: Rates, unreached: Sequence[str], plots: Sequence[Path]) -> str:
    """The whole page. `unreached`: kernels and tests that no row is about."""
    stages = {name: [row for row in rows if row["stage"] == name] for name in ("parity", "compile", "timing")}
    timed = [row for row in stages["timing"] if row["outcome"] == DONE]
    parts = [
        "# Report from a GPU",
        "Written by `python benchmarks/gpu_report.py`.",
        _device(facts),
        table(["rows", *OUTCOMES], [[name, *_counts(own)] for name, own in stages.items()]),
        "## Parity",
        "Each row is a case of the tests of parity, or an operator at the sizes of layers, on this device against the "
        "reference on the CPU: bit for bit where features are whole numbers, by the tests' tolerances elsewhere.",
        _parity(stages["parity"]),
        *_kernels(stages["parity"], unreached),
        "## Compilation",
        _compilation(stages),
    ]
    for quantity, unit in QUANTITIES.items():
        parts += [f"## {quantity.capitalize()}", f"In {unit}; k = {K}, one item, one head.", *_grids(timed, quantity)]
    parts += [
        NOT_TIMED,
        *(image_link(path, path.stem) for path in plots),
        "## From which size on ours is better",
        "The smallest size from which on, at all sizes that both were measured at, attention to the best matches takes "
        "less than exact attention by PyTorch's fused kernels.",
        _overtaking(timed),
        "## Bandwidth and roofline",
        _roofline(facts, timed, rates),
        *_faults(rows),
        *_left_out(rows),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _device(facts: Result) -> str:
    device = facts["device"]
    name = device["device"]
    if "driver" in device:
        name += (
            f"; driver {device['driver']}, capability {device['capability']}, {device['multiprocessors']} "
            f"multiprocessors, {device['memory'] / 1e9:.0f} GB"
        )
    dry = " A dry run: kernels in Triton's interpreter on the CPU; its times mean nothing." if facts["dry_run"] else ""
    return (
        f"{name}. PyTorch {device['torch']}, Triton {device['triton']}, Python {device['python']}. A copy on the "
        f"device moves {device['copy_bytes'] / 1e12:.3g} TB/s, a product of bfloat16 does "
        f"{device['product_operations'] / 1e12:.3g} TFLOP/s.{dry}"
    )


def _counts(rows: list[Result]) -> list[str]:
    counted = Counter(row["outcome"] for row in rows)
    return [str(counted[outcome]) for outcome in OUTCOMES]


def _parity(rows: list[Result]) -> str:
    tests = list(dict.fromkeys(row["test"] for row in rows))
    return table(
        ["test or operator", *OUTCOMES],
        [[name, *_counts([row for row in rows if row["test"] == name])] for name in tests],
    )


def _kernels(rows: list[Result], unreached: Sequence[str]) -> list[str]:
    """How many cases launched each kernel, what no case reached, and what PyTorch warned of."""
    launched = Counter(name for row in rows for name in row.get("kernels", ()))
    agreed = Counter(name for row in rows if row["outcome"] == DONE for name in row["kernels"])
    counts = [[name, str(launched[name]), str(agreed[name])] for name in sorted(launched)]
    missing = [name for name in unreached if name not in launched]
    warned = sorted({text for row in rows for text in row.get("warnings", ())})
    return [
        table(["kernel", "cases that launched it", "of these agree"], counts),
        f"No case reached: {', '.join(missing)}." if missing else "",
        "\n".join(["PyTorch warned:", "", *(f"- {text}" for text in warned)]) if warned else "",
    ]


def _compilation(stages: dict[str, list[Result]]) -> str:
    lines = []
    for name in ("compile", "timing"):
        done = [row for row in stages[name] if row["outcome"] == DONE]
        kernels, seconds = (sum(row[key] for row in done) for key in ("compiled", "compile_seconds"))
        lines.append(f"{name}: {kernels} kernels in {seconds:.0f} s of Triton's compiler")
    return (
        f"{'; '.join(lines)} (of all processes together). Kernels are compiled once, before anything is timed; a timed "
        "row that still had to has it in its first call, which is not among the timed ones."
    )


def _value(row: Result, quantity: str) -> float:
    return float(row["seconds"]["median"] if quantity == "time" else row["peak"])


def _cell(row: Result | None, quantity: str) -> str:
    if row is None:
        return ""
    if quantity == "memory":
        return f"{row['peak'] / 1e6:,.1f}"
    marks = ("" if row["same_bits"] else " (bits change)") + ("" if row["finite"] else " (not finite)")
    times = {name: value * 1e3 for name, value in row["seconds"].items()}
    return (f"{times['median']:.3f} (once)" if row["runs"] == 1 else spread(times, 3)) + marks


def _grids(timed: list[Result], quantity: str) -> list[str]:
    """One table for each size of patch and number of channels."""
    found = []
    for p, channels in dict.fromkeys((row["p"], row["channels"]) for row in timed):
        own = [row for row in timed if (row["p"], row["channels"]) == (p, channels)]
        sides = sorted({row["side"] for row in own})
        lines = []
        for name in OPERATIONS:
            for dtype in sorted({row["dtype"] for row in own}, reverse=True):
                cells = {row["side"]: row for row in own if (row["operation"], row["dtype"]) == (name, dtype)}
                if cells:
                    lines.append([name, dtype, *(_cell(cells.get(side), quantity) for side in sides)])
        found.append(table([f"p = {p}, C = {channels}", "precision", *(f"{side}²" for side in sides)], lines))
    return found


def overtakes(ours: dict[int, float], theirs: dict[int, float]) -> str:
    """From which side on `ours` is less, of values by side."""
    both = sorted(set(ours) & set(theirs))
    if not both:
        return "not measured at one size"
    first = next((n for n in range(len(both)) if all(ours[side] < theirs[side] for side in both[n:])), None)
    if first is None:
        return f"not up to {both[-1]}²"
    return f"from {both[first]}²" + (", the smallest measured" if first == 0 else "")


def _overtaking(timed: list[Result]) -> str:
    lines = []
    settings = dict.fromkeys(tuple(row[name] for name in SETTINGS) for row in timed)
    for ours, theirs in AGAINST:
        for p, channels, dtype in settings:
            own = [row for row in timed if tuple(row[name] for name in SETTINGS) == (p, channels, dtype)]
            cells = []
            for quantity in QUANTITIES:
                values = [
                    {row["side"]: _value(row, quantity) for row in own if row["operation"] == name}
                    for name in (ours, theirs)
                ]
                cells.append(overtakes(*values))
            if any(row["operation"] == theirs for row in own):
                lines.append([f"{ours} against {theirs}", str(p), str(channels), dtype, *cells])
    return table(["what", "p", "C", "precision", *QUANTITIES], lines)


def _gpu_of(device: Result) -> Gpu | None:
    """The peaks of the device: memory and tensor cores as measured, the others from its clock."""
    if "clock" not in device:
        return None
    clock, units = device["clock"], device["multiprocessors"]
    return Gpu(
        device["device"], device["copy_bytes"], 2 / 3 * 5120 * clock, 128 * units * clock, 2 * 128 * units * clock,
        device["product_operations"], GPUS[-1].wait,
    )  # fmt: skip


def _roofline(facts: Result, timed: list[Result], rates: Rates) -> str:
    """What passes the memory bus at least, in the measured time; and the least time over it."""
    gpu = _gpu_of(facts["device"])
    lines = []
    names = list(OPERATIONS)
    order = sorted(timed, key=lambda row: (names.index(row["operation"]), *(row[x] for x in (*SETTINGS, "side"))))
    for row in order:
        operators = OPERATIONS[row["operation"]].operators
        if not operators:
            continue
        seconds = row["seconds"]["median"]
        element = getattr(torch, row["dtype"]).itemsize
        base = Facts((row["side"],) * 2, row["p"], row["channels"], K, element)
        needs = [need for name in operators for _, need, _ in parts_of(name, base, rates, gpu or GPUS[-1])]
        once = sum(need.once for need in needs)
        cells = [f"{once / 1e6:,.1f}", f"{once / seconds / 1e9:,.1f}"]
        cells.append(f"{once / seconds / facts['device']['copy_bytes']:.1%}")
        if gpu is not None:
            least = [sum(part) for part in zip(*(range_of(name, base, rates, gpu) for name in operators), strict=True)]
            cells += [" to ".join(f"{x * 1e3:.3g}" for x in least), " to ".join(f"{x / seconds:.0%}" for x in least)]
        else:
            cells += ["", ""]
        lines.append([row["operation"], f"{row['side']}²", str(row["p"]), str(row["channels"]), row["dtype"], *cells])
    headings = [
        "operation", "size", "p", "C", "precision", "MB at least", "GB/s", "of the copy's", "least ms",
        "of the measured time",
    ]  # fmt: skip
    text = (
        "Bytes at least: everything that the launches read or write, each launch once (benchmarks/gpu_formulas.py). "
        "The least time is that of gpu_roofline.md, if neighbors ask for the same and if they have nothing in common, "
        "at the copy's rate and the peaks that the device's clock gives; how much a search looks at is taken from the "
        "photograph counted there, not from the features timed here."
    )
    return f"{text}\n\n{table(headings, lines)}"


def _faults(rows: list[Result]) -> list[str]:
    """Each row that differs or failed, with what is known of it."""
    faults = [row for row in rows if row["outcome"] in (DIFFERS, FAILED)]
    if not faults:
        return []
    return [
        "## What differs or failed",
        *(f"{row['stage']}, {row['name']}: {row['outcome']}\n\n```text\n{row['reason']}\n```" for row in faults),
    ]


def _left_out(rows: list[Result]) -> list[str]:
    """Every row that was not run, and why."""
    left = [row for row in rows if row["outcome"] == LEFT_OUT]
    if not left:
        return []
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in left:
        grouped.setdefault((row["stage"], row["reason"]), []).append(row["name"])
    return [
        "## What was left out",
        "Run by the same command with `--resume`, if there is time for it.",
        "\n".join(f"- {stage}, {reason}: {'; '.join(names)}." for (stage, reason), names in grouped.items()),
    ]
