"""The super-resolution network on large images: PSAL as images grow, and what full attention would take.

    python benchmarks/superresolution_large.py --data DIR [--sides N ...] [--results FOLDER]

DIR holds highres: photographs of which squares are cut and enlarged twice, without gradients. Each side runs in a
process of its own; seconds are of processor time, all threads together, memory what the call took beyond what was
there. Full cross-scale attention is measured up to 256 pixels a side and extrapolated with the number of pairs beyond;
"scores" is the matrix that the published layer holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from machine import table
from page import machine_line, write_page
from process import in_fresh_process, peak_beyond

from patchattn.networks.weights import load_superresolution_network
from patchattn.tasks.images import read_image

FULL = 256
"""The largest side that full attention is measured on."""


def measure(photograph: Path, side: int, cross_scale: str) -> dict[str, Any]:
    color = read_image(photograph).color[..., :side, :side].contiguous()
    if color.shape[2:] != (side, side):
        raise ValueError(f"--sides: {photograph} has no square of {side} pixels.")
    network = load_superresolution_network(scale=2, cross_scale=cross_scale)
    network.enlarge(color[..., :32, :32])
    began = time.process_time()
    memory, enlarged = peak_beyond(lambda: network.enlarge(color))
    told = {"side": side, "cross_scale": cross_scale, "seconds": time.process_time() - began, "memory": memory}
    return {**told, "size": list(enlarged.shape[2:]), "finite": bool(enlarged.isfinite().all())}


def page(results: list[dict[str, Any]]) -> list[str]:
    full = [entry for entry in results if entry["cross_scale"] == "full"]
    rows = []
    for entry in (entry for entry in results if entry["cross_scale"] == "psal"):
        side = entry["side"]
        own = next((other for other in full if other["side"] == side), None)
        if own is not None:
            told = f"{own['seconds']:.1f}"
        else:
            largest = max(full, key=lambda other: other["side"])
            told = f"about {largest['seconds'] * (side / largest['side']) ** 4 / 3600:.1f} hours, extrapolated"
        scores = side**2 * (side // 2) ** 2 * 4
        rows.append(
            [f"{side} x {side}", f"{entry['seconds']:.1f}", f"{entry['memory'] / 2**20:.0f}", told,
             f"{scores / 1e9:,.1f} GB"]
        )  # fmt: skip
    headings = [
        "pixels, enlarged twice",
        "PSAL: processor seconds",
        "MiB",
        "full attention: processor seconds",
        "its scores, published",
    ]
    return [
        "# The super-resolution network on large images",
        "The compact network that comes with the package, both turns, PSAL with k = 8 in its cross-scale branch and a "
        "window of 16 in scale. Full attention streams here, and needs time instead of memory; the published one holds "
        "all scores of one application. Written by "
        "`python benchmarks/superresolution_large.py --data DIR --results docs/results`.",
        table(headings, rows),
        machine_line(),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--results", type=Path, help="where superresolution_large.md and .json go")
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "CROSS_SCALE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    photographs = sorted((arguments.data / "highres").glob("*.jpg"))
    if not photographs:
        sys.exit(f"--data: {arguments.data} lacks highres/*.jpg; put them there or give another folder")
    largest = max(photographs, key=lambda path: min(read_image(path).size))
    if arguments.one is not None:
        with torch.no_grad():
            print(json.dumps(measure(largest, int(arguments.one[0]), arguments.one[1])))
        return
    results = []
    for side in arguments.sides:
        for cross_scale in ("psal", "full") if side <= FULL else ("psal",):
            command = [sys.executable, __file__, "--data", str(arguments.data), "--one", str(side), cross_scale]
            results.append(in_fresh_process(command))
            print(results[-1], flush=True)
    parts = page(results)
    print("\n\n".join(parts))
    if arguments.results is not None:
        write_page(arguments.results, "superresolution_large", parts, results)


if __name__ == "__main__":
    main()
