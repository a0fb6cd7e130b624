"""What a measurement was made on, and how it is repeated; shared by all benchmarks."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy
import torch

import patchattn


def machine() -> dict[str, Any]:
    """Versions, processor and threads."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return {
        "patchattn": patchattn.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": _version("numba"),
        "numpy": numpy.__version__,
        "processor": name,
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    """What is installed; not imported, since a machine that measures a GPU need not have it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class Report:
    """One table of a benchmark: what is asked and measured, the table, and the same as JSON."""

    question: str
    headings: list[str]
    rows: list[list[str]]
    results: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def show(self) -> None:
        """Print it as Markdown."""
        print("\n\n".join([self.question, table(self.headings, self.rows), *self.notes]), end="\n\n", flush=True)


def seconds(function: Callable[[], Any], runs: int = 5, warm_up: bool = True) -> dict[str, float]:
    """Median and spread of `runs` calls, after one that is not counted."""
    if warm_up:
        function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def spread(time: dict[str, float], digits: int = 2) -> str:
    """What `seconds` measured: the median and, in parentheses, the range."""
    return f"{time['median']:.{digits}f} ({time['min']:.{digits}f} to {time['max']:.{digits}f})"


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def save(path: Path | None, results: list[dict[str, Any]]) -> None:
    """Write results with the machine as JSON."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
        print(f"wrote {path}")
