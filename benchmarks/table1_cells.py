"""The cells of benchmarks/table1.py: each in a process of its own, kept in a file, or predicted where it would cost too
much.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from layer_cost import cost_of
from process import Forks
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
    cost = cost_of(layer, side, CHANNELS, backward, WARM_UP)
    return {"memory": cost.memory, "seconds": cost.seconds}


def predicted(before: Cell, side: int) -> Cell:
    """From the size before: memory grows with the pixels, time as the layer's does."""
    grown = (side / before.side) ** 2
    entry = ENTRIES[before.layer]
    return Cell(
        before.layer, side, before.backward, before.memory * grown, before.seconds * grown**entry.time_power,
        measured=False,
    )  # fmt: skip


class Cells:
    """Measures cells within limits, and keeps each in a file of a folder: what is there is not measured again."""

    def __init__(self, limits: Limits, folder: Path, show: Callable[[str], Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.limits, self.folder, self.show = limits, folder, show
        self.forks = Forks(["table1_cells"], ENVIRONMENT)

    def row(self, name: str, backward: bool, sides: list[int]) -> list[Cell]:
        """One layer: measured as far as the limits allow, then predicted."""
        cells: list[Cell] = []
        for side in sides:
            plain = name.replace(", ", "-").replace(" ", "")
            path = self.folder / f"{plain}-{'backward' if backward else 'forward'}-{side}.json"
            if path.exists():
                cells.append(Cell(**json.loads(path.read_text())))
                continue
            guess = predicted(cells[-1], side) if cells else None
            cell = self._measured(name, side, backward, guess)
            cells.append(cell)
            # What is predicted may be measured with other limits.
            if cell.measured:
                with atomic_writer(path) as file:
                    file.write((json.dumps(asdict(cell), indent=1) + "\n").encode())
        return cells

    def _measured(self, name: str, side: int, backward: bool, guess: Cell | None) -> Cell:
        """A cell, or the guess where it costs too much."""
        if guess is not None and (guess.seconds > self.limits.seconds or guess.memory > self.limits.bytes):
            return guess
        try:
            found = self.forks.call(measure_here, name, side, backward, timeout=120 + 10 * self.limits.seconds)
        except TimeoutError:
            if guess is None:
                raise
            return guess
        cell = Cell(name, side, backward, found["memory"], found["seconds"])
        pass_ = "backward" if backward else "forward"
        self.show(f"{name}, {side}, {pass_}: {cell.memory / 1e9:.3f} GB, {cell.seconds:.2f} s")
        return cell

    def all(self, sides: list[int], passes: Sequence[bool]) -> list[Cell]:
        """All rows, without and with backward; the sizes of the paper are measured first."""
        small = [side for side in sides if side in PAPER_SIDES]
        for chosen in (small, sides):
            for backward in passes:
                for name in ENTRIES:
                    self.row(name, backward, chosen)
        return [cell for backward in passes for name in ENTRIES for cell in self.row(name, backward, sides)]
