"""The cells of benchmarks/table1.py: each in a process of its own, kept in a file, or predicted where it would cost too
much.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from layer_cost import peak_of, processor_seconds
from process import in_fresh_process
from table1_layers import CHANNELS, ENTRIES, PAPER_SIDES

from patchattn.tasks.files import atomic_writer

ENVIRONMENT = {
    # Blocks of a megabyte and more go back to the system when they are freed: what is measured is what is held.
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    # One thread, so that processor time is the time of a machine that has nothing else to do.
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
WARM_UP = 48
"""More keys than are searched exactly: what guided search compiles is compiled."""


@dataclass(frozen=True)
class Cell:
    """One layer at one size. Bytes are beyond inputs and outputs."""

    layer: str
    side: int
    backward: bool
    memory: float
    seconds: float
    """Of the processor."""
    measured: bool = True
    """Or extrapolated."""


@dataclass(frozen=True)
class Limits:
    """What a cell may take."""

    seconds: float
    bytes: float


def measure_here(name: str, side: int, backward: bool) -> dict[str, float]:
    """A cell in this process, which has done nothing else."""
    torch.manual_seed(0)
    layer = ENTRIES[name].make()
    peak, outputs = peak_of(layer, side, CHANNELS, backward, WARM_UP)
    return {"memory": peak - outputs, "seconds": processor_seconds(layer, side, CHANNELS, backward)}


def predicted(before: Cell, side: int) -> Cell:
    """From the size before: memory grows with the pixels, time as the layer's does."""
    grown = (side / before.side) ** 2
    entry = ENTRIES[before.layer]
    return Cell(
        before.layer, side, before.backward, before.memory * grown, before.seconds * grown**entry.time_power,
        measured=False,
    )  # fmt: skip


def _measured(name: str, side: int, backward: bool, limits: Limits) -> Cell | None:
    command = [
        sys.executable,
        str(Path(__file__).with_name("table1.py")),
        "--here",
        name,
        str(side),
        str(int(backward)),
    ]
    try:
        found = in_fresh_process(command, ENVIRONMENT, timeout=120 + 10 * limits.seconds)
    except subprocess.TimeoutExpired:
        return None
    return Cell(name, side, backward, found["memory"], found["seconds"])


def cells_of(name: str, backward: bool, sides: list[int], limits: Limits, folder: Path,
             show: Callable[[str], Any]) -> list[Cell]:  # fmt: skip
    """A row: measured as far as the limits allow, then predicted."""
    cells: list[Cell] = []
    for side in sides:
        path = folder / f"{name}-{'backward' if backward else 'forward'}-{side}.json".replace(", ", "-").replace(
            " ", ""
        )
        if path.exists():
            cells.append(Cell(**json.loads(path.read_text())))
            continue
        guess = predicted(cells[-1], side) if cells else None
        cell = None
        if guess is None or (guess.seconds <= limits.seconds and guess.memory <= limits.bytes):
            cell = _measured(name, side, backward, limits)
        if cell is None:
            if guess is None:
                raise RuntimeError(f"{name} does not end at {side}x{side}; allow more with --budget")
            # Not kept: with other limits it may be measured.
            cells.append(guess)
            continue
        with atomic_writer(path) as file:
            file.write((json.dumps(asdict(cell), indent=1) + "\n").encode())
        cells.append(cell)
        show(
            f"{name}, {side}, {'backward' if backward else 'forward'}: {cell.memory / 1e9:.3f} GB, {cell.seconds:.2f} s"
        )
    return cells


def all_cells(sides: list[int], limits: Limits, folder: Path, show: Callable[[str], Any]) -> list[Cell]:
    """All rows, those of small sizes first."""
    folder.mkdir(parents=True, exist_ok=True)
    # The sizes of the paper first.
    small = [side for side in sides if side in PAPER_SIDES]
    for backward, chosen in ((False, small), (True, small), (False, sides), (True, sides)):
        for name in ENTRIES:
            cells_of(name, backward, chosen, limits, folder, show)
    return [
        cell
        for backward in (False, True)
        for name in ENTRIES
        for cell in cells_of(name, backward, sides, limits, folder, show)
    ]
