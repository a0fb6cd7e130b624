"""Seconds until a new process has its first result, with the wheel's machine code and without it.

Installs the wheel in a folder of its own, beside the packages that this Python has. Each row is the median of some
processes, which begin without a cache of kernels or (second process) with what a process before them left there. A
process imports PyTorch and the library, and computes `patch_attention` of an RGB image with itself; counted is from its
start, wall time and the processor's.

    python benchmarks/first_use.py out/dist/patchattn-*.whl [--runs 5] [--size 256]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine, table

PROCESS = """
import json, sys, time
import torch
imported = time.perf_counter()
size = int(sys.argv[1])
axis = torch.linspace(0, 1, size)
waves = 9 * axis[:, None] * axis + torch.arange(3).view(-1, 1, 1)
image = (0.5 + 0.25 * torch.sin(waves) + 0.2 * torch.cos(23 * axis + 7 * waves))[None]
if sys.argv[2] == "compute":
    from patchattn import patch_attention
    patch_attention(image, image, image)
first = time.time(), time.process_time()
if sys.argv[2] == "compute":
    begun = time.perf_counter()
    patch_attention(image, image, image)
    print(json.dumps([*first, time.perf_counter() - begun]))
else:
    print(json.dumps([*first, 0.0]))
"""


def run(installed: Path, cache: Path, size: int, what: str = "compute") -> tuple[float, float, float]:
    """Seconds to the first result, of the processor too, and of a second call in the same process."""
    environment = os.environ | {"PYTHONPATH": str(installed), "NUMBA_CACHE_DIR": str(cache)}
    begun = time.time()
    command = [sys.executable, "-c", PROCESS, str(size), what]
    done = subprocess.run(command, env=environment, cwd=cache.parent, capture_output=True, text=True, check=True)
    at, processor, again = json.loads(done.stdout)
    return at - begun, processor, again


def measure(installed: Path, size: int, runs: int) -> dict[str, list[tuple[float, float, float]]]:
    """Run all processes; the rows take turns, so that what else the machine does falls on all alike."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    shipped = installed / "patchattn" / "kernels" / "cpu" / "objects"
    hidden = shipped.with_name("hidden")
    for _ in range(runs):
        for kind in ("machine code", "compiled here"):
            with tempfile.TemporaryDirectory() as folder:
                cache = Path(folder) / "cache"
                if kind == "compiled here":
                    shipped.rename(hidden)
                for process in ("first", "second"):
                    found.setdefault(f"{kind}, {process} process", []).append(run(installed, cache, size))
                if kind == "compiled here":
                    hidden.rename(shipped)
                found.setdefault("`import torch` alone", []).append(run(installed, cache, size, "import"))
    return found


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        installed = Path(folder) / "installed"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-index",
            "--no-deps",
        ]
        subprocess.run([*pip, "--target", installed, options.wheel], check=True)
        found = measure(installed, options.size, options.runs)
    rows = []
    for name, values in found.items():
        wall, processor, again = (list(part) for part in zip(*values, strict=True))
        rows.append([name, shown(wall), shown(processor), shown(again) if any(again) else ""])
    print(f"{options.size}x{options.size}, {options.runs} runs; {machine()}\n")
    print(table(["", "seconds to the first result", "of the processor", "a second call"], rows))


if __name__ == "__main__":
    main()
