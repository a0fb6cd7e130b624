"""Section `scaling`: Figure 4 of SCRAM. How time and memory of an attention layer grow with the image.

One image, self-attention, batch and heads 1, float32, value = key, each of the three a tensor of its own (so that
backward makes three gradients): the standardized colors of a photograph (d_k = 3, as in the paper) and its `tokens`
(64). The image is the photograph in highres/ with most detail (the largest file), cut square and resized.

Every number is measured in a process of its own, which warms up on a small image, notes the memory of its first call
and then times the next ones.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import new_figure, plain_logarithmic, write_figure
from layer_cost import attend
from machine import Report, seconds, spread
from pairs import read, resized, standardized, tokens
from process import MIB, in_fresh_process, peak_beyond
from sparse_transformer import factorized_attention, summary_width
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

SIDES = (16, 32, 64, 128, 256, 512, 1024)
SLOPE_FROM = 128
KAPPAS = (1, 4, 16)
WIDTHS = (3, 64)
# The search is exact for the first, and guided for the second.
WARM_UP_SIDES = (16, 40)
PASSES = ("forward", "forward + backward")
PAIRED_SIDE, PAIRED_WIDTH, PAIRED_KAPPA, PAIRS = 256, 64, 16, 5

Layer = Callable[[Tensor, Tensor, Tensor], Tensor]


def _scram(kappa: int) -> Layer:
    from patchattn import scram_attention

    return partial(scram_attention, k=kappa, expand=0)


# By name: what makes the layer, the power of n its time grows with at most, and whether it takes images.
LAYERS: dict[str, tuple[Callable[[], Layer], float, bool]] = {
    "SDPA": (lambda: scaled_dot_product_attention, 2, False),
    "strided": (lambda: partial(factorized_attention, pattern="strided"), 1.5, False),
    "fixed": (lambda: partial(factorized_attention, pattern="fixed"), 1.5, False),
    **{f"SCRAM {kappa}": (partial(_scram, kappa), 1.15, True) for kappa in KAPPAS},
}
LOOKS = {
    "SDPA": ("black", "s"),
    "strided": ("tab:orange", "v"),
    "fixed": ("tab:red", "^"),
    "SCRAM 1": ("#9ecae1", "o"),
    "SCRAM 4": ("#4292c6", "o"),
    "SCRAM 16": ("#08306b", "o"),
}
NAMES = {
    "SDPA": "full attention (PyTorch SDPA)",
    "strided": "Sparse Transformer, strided",
    "fixed": "Sparse Transformer, fixed",
    **{f"SCRAM {kappa}": f"SCRAM, κ = {kappa}" for kappa in KAPPAS},
}


def features_of(data: Path, side: int, width: int) -> Tensor:
    """What the layers attend to, (1, width, side, side)."""
    image = read(max(data.glob("highres/*.jpg"), key=lambda path: path.stat().st_size))
    height, across = image.shape[2:]
    length = min(height, across)
    top, left = (height - length) // 2, (across - length) // 2
    image = resized(image[:, :, top : top + length, left : left + length], side, "bicubic")
    return standardized(image) if width == 3 else tokens(image)


def _inputs(features: Tensor, as_image: bool, backward: bool) -> list[Tensor]:
    if not as_image:
        features = features.flatten(2).transpose(1, 2).unsqueeze(1)
    # clone() alone would keep the order of a transposed tensor.
    return [features.clone(memory_format=torch.contiguous_format).requires_grad_(backward) for _ in range(3)]


def measure_layer(data: Path, side: int, width: int, name: str, backward: bool, runs: int) -> dict[str, Any]:
    """Time and memory of a layer in this process, which has done nothing else."""
    make, _, as_image = LAYERS[name]
    layer = make()
    for small in WARM_UP_SIDES:
        attend(layer, _inputs(features_of(data, small, width), as_image, backward))
    inputs = _inputs(features_of(data, side, width), as_image, backward)

    def run() -> int:
        for tensor in inputs:
            tensor.grad = None
        return attend(layer, inputs)

    peak, outputs = peak_beyond(run)
    return {
        "seconds": seconds(run, runs, warm_up=False),
        "runs": runs,
        "peak_mib": peak / MIB,
        "outputs_mib": outputs / MIB,
    }


def measure_pairs(data: Path, side: int, width: int, kappa: int, pairs: int) -> dict[str, Any]:
    """SDPA and SCRAM in turn, forward, in this process."""
    names = ("SDPA", f"SCRAM {kappa}")
    features = features_of(data, side, width)
    calls = []
    for name in names:
        make, _, as_image = LAYERS[name]
        calls.append(partial(attend, make(), _inputs(features, as_image, False)))
    # Compiles what is to be compiled; SDPA, which takes seconds, needs nothing of the kind.
    calls[1]()
    times: list[list[float]] = []
    for _ in range(pairs):
        times.append([])
        for call in calls:
            start = time.perf_counter()
            call()
            times[-1].append(time.perf_counter() - start)
    ratios = [sdpa / scram for sdpa, scram in times]
    return {"seconds": times, "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}}


def measure_here(data: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What a process of its own is asked for."""
    kind = request.pop("measure")
    return {"layer": measure_layer, "pairs": measure_pairs}[kind](data, **request)


def _grown(
    sides: Sequence[int], width: int, name: str, backward: bool, runs: int, budget: float, ask: Any
) -> list[Any]:
    """A layer at growing sides, until a call would take longer than the budget."""
    power, results, expected = LAYERS[name][1], [], 0.0
    for n, side in enumerate(sides):
        result = {"layer": name, "width": width, "side": side, "pass": PASSES[backward]}
        if n:
            expected = results[-1]["seconds"]["median"] * (side / sides[n - 1]) ** (2 * power)
        if expected > budget:
            results.append({**result, "predicted": expected})
            break
        # Long calls are repeated less: all together take at most some three budgets.
        affordable = runs if expected == 0 else max(1, min(runs, int(2 * budget / expected)))
        asked = {"measure": "layer", "side": side, "width": width, "name": name, "backward": backward}
        results.append({**result, **ask({**asked, "runs": affordable})})
        told = f"{name}, {width} channels, {PASSES[backward]}, side {side}"
        print(f"  {told}: {results[-1]['seconds']['median']:.3g} s", file=sys.stderr, flush=True)
    return results


def line_of(results: list[dict[str, Any]], name: str, width: int, which: str, value: str) -> dict[int, float]:
    """Side to measured value of one layer."""
    chosen = [r for r in results if (r["layer"], r["width"], r["pass"]) == (name, width, which) and "seconds" in r]
    return {r["side"]: r["seconds"]["median"] if value == "seconds" else r[value] for r in chosen}


def slope(line: dict[int, float]) -> float | None:
    """The power of n that a line grows with from SLOPE_FROM on, by least squares; None with one point only."""
    points = [(2 * math.log(side), math.log(value)) for side, value in line.items() if side >= SLOPE_FROM]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0]) if len(points) > 1 else None


def crossover(line: dict[int, float], other: dict[int, float]) -> float | str:
    """The side from which on a line lies below another, interpolated on both axes' logarithms."""
    sides = sorted(set(line) & set(other))
    above = [math.log(line[side] / other[side]) for side in sides]
    if above[-1] >= 0:
        return f"not up to {sides[-1]}"
    for n in range(len(sides) - 1, 0, -1):
        if above[n - 1] >= 0:
            share = above[n - 1] / (above[n - 1] - above[n])
            return float(sides[n - 1] * (sides[n] / sides[n - 1]) ** share)
    return f"below {sides[0]}"


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    if "predicted" in result:
        return f"not measured ({result['predicted']:.0f} s predicted)"
    time = {name: value * 1e3 for name, value in result["seconds"].items()}
    return spread(time, 1 if time["median"] < 1000 else 0) + (f", {result['runs']} runs" if "few" in result else "")


def _rows(results: list[dict[str, Any]], sides: Sequence[int], cell: Callable[[Any], str]) -> list[list[str]]:
    by = {(r["width"], r["pass"], r["side"], r["layer"]): r for r in results}
    return [
        [str(width), which, f"{side}x{side}", *(cell(by.get((width, which, side, name))) for name in LAYERS)]
        for width in WIDTHS
        for which in PASSES
        for side in sides
    ]


def _summary(results: list[dict[str, Any]]) -> tuple[list[list[str]], list[dict[str, Any]]]:
    rows, found = [], []
    for width in WIDTHS:
        for which in PASSES:
            full = line_of(results, "SDPA", width, which, "seconds")
            for name in LAYERS:
                line = line_of(results, name, width, which, "seconds")
                grows, crosses = slope(line), "" if name == "SDPA" else crossover(line, full)
                memory = slope(line_of(results, name, width, which, "peak_mib"))
                found.append(
                    {"width": width, "pass": which, "layer": name, "slope": grows, "memory_slope": memory}
                    | {"crossover": crosses}
                )
                rows.append(
                    [
                        *(str(width), which, NAMES[name], *("" if x is None else f"{x:.2f}" for x in (grows, memory))),
                        f"{crosses:.0f}" if isinstance(crosses, float) else crosses,
                    ]
                )
    return rows, found


def report_scaling(
    data: Path, runs: int, command: list[str], budget: float, sides: Sequence[int] = SIDES, pairs: int = PAIRS
) -> list[Report]:
    """All layers; `command` is followed by JSON for `measure_here`, and prints its answer."""

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        return in_fresh_process([*command, json.dumps(request)])

    results = [
        result
        for width in WIDTHS
        for backward in (False, True)
        for name in LAYERS
        for result in _grown(sides, width, name, backward, runs, budget, ask)
    ]
    for result in results:
        if "seconds" in result and result["runs"] < runs:
            result["few"] = True
    rows, found = _summary(results)
    headings = ["d_k", "pass", "side"]
    reports = [
        Report(
            "How does the time of a layer grow with the image? Milliseconds, median (range) of "
            f"{runs} runs (fewer, with their number, where a call is long); not measured: a call would take more than "
            f"{budget:g} s. Fixed pattern: c = {', '.join(f'{summary_width(s)} at {s}' for s in sides)}.",
            [*headings, *NAMES.values()],
            _rows(results, sides, _cell),
            results,
        ),
        Report(
            "And its memory? MiB at the peak beyond the inputs, results and gradients included.",
            [*headings, *NAMES.values()],
            _rows(results, sides, lambda r: "" if r is None or "predicted" in r else f"{r['peak_mib']:.1f}"),
            [],
        ),
        Report(
            f"Power of n = side² that time and memory grow with from side {SLOPE_FROM} on (least squares in "
            "logarithms), and the side from which on a layer is faster than full attention.",
            ["d_k", "pass", "layer", "time grows as n to the", "memory", "faster than full attention from side"],
            rows,
            found,
        ),
    ]
    if pairs:
        asked = {"side": PAIRED_SIDE, "width": PAIRED_WIDTH, "kappa": PAIRED_KAPPA, "pairs": pairs}
        answer = ask({"measure": "pairs", **asked})
        sdpa, scram = (statistics.median(column) for column in zip(*answer["seconds"], strict=True))
        reports.append(
            Report(
                f"How much faster than full attention at {PAIRED_SIDE}x{PAIRED_SIDE}, d_k = {PAIRED_WIDTH}, forward? "
                f"{pairs} pairs in turn, in one process.",
                ["full attention, s", f"SCRAM, κ = {PAIRED_KAPPA}, s", "ratio, median (range)"],
                [[f"{sdpa:.2f}", f"{scram:.3f}", spread(answer["ratio"], 1)]],
                [{**asked, **answer}],
            )
        )
    return reports


def plot_scaling(path: Path, results: list[dict[str, Any]]) -> None:
    """Time forward, time with backward, and memory, for both numbers of channels."""
    sides = sorted({result["side"] for result in results})
    panels = [
        ("forward", "seconds", "time, forward", "seconds"),
        ("forward + backward", "seconds", "time, forward and backward", "seconds"),
        ("forward + backward", "peak_mib", "memory, forward and backward", "MiB beyond the inputs"),
    ]
    figure = new_figure(17, 10)
    axes_of = figure.subplots(len(WIDTHS), len(panels), sharey="col")
    for width, row in zip(WIDTHS, axes_of, strict=True):
        for axes, (which, value, title, unit) in zip(row, panels, strict=True):
            for name, (color, marker) in LOOKS.items():
                line = line_of(results, name, width, which, value)
                # Of smaller images the allocator's memory is measured, not the layer's.
                x = [side for side in line if value == "seconds" or side >= 64]
                axes.plot(x, [line[side] for side in x], color=color, marker=marker, label=NAMES[name], linewidth=1.8)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            plain_logarithmic(axes.xaxis, sides)
            plain_logarithmic(axes.yaxis)
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
            axes.set_title(f"{title}, {width} channels")
            axes.set_xlabel("side of the image, pixels")
            axes.set_ylabel(unit)
            axes.tick_params(labelleft=True)
    figure.legend(*axes_of[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    write_figure(figure, path)
