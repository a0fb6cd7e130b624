"""The layers of PSAL's Table 1, how their cost grows, and the paper's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from layer_cost import Layer

from patchattn import PatchAttention
from patchattn.baselines import (
    FullAttention,
    LinearAttention,
    LocalAttention,
    PerformerAttention,
    ReformerAttention,
    SparseAttention,
)

CHANNELS, PATCH, WINDOW = 16, 7, 50
SIDES = (64, 128, 256, 512, 1024, 2048)
PAPER_SIDES = SIDES[:4]


@dataclass(frozen=True)
class Entry:
    """One row."""

    name: str
    make: Callable[[], Layer]
    time_power: float
    """Of the number of pixels, that the time grows with."""
    memory: str
    """What the memory grows with."""
    color: str
    marker: str
    paper: tuple[float, ...] = ()
    """GB at `PAPER_SIDES`."""


ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("full", partial(FullAttention, patch_size=PATCH), 2, "n", "black", "s", (0.30, 4.98, 15.26, 250.04)),
        Entry(
            "local, window 50", partial(LocalAttention, patch_size=PATCH, window=WINDOW), 1, "n", "tab:brown", "P",
            (0.19, 0.64, 3.23, 13.12),
        ),
        Entry("linear", partial(LinearAttention, patch_size=PATCH), 1, "n", "tab:green", "D", (0.11, 0.46, 1.85, 7.47)),
        Entry("sparse, strided", partial(SparseAttention, patch_size=PATCH), 1.5, "n", "tab:olive", "X"),
        Entry(
            "Performer", partial(PerformerAttention, patch_size=PATCH), 1, "n d log d", "tab:red", "v",
            (0.71, 2.84, 11.55, 17.68),
        ),
        Entry(
            "Reformer", partial(ReformerAttention, patch_size=PATCH), 1, "128 n", "tab:purple", "^",
            (0.47, 1.86, 7.42, 21.47),
        ),
        Entry("PSAL 3", partial(PatchAttention, patch_size=PATCH, k=3), 1.1, "3 n", "tab:blue", "o",
              (0.01, 0.01, 0.04, 0.18)),
        Entry(
            "PSAL Aggreg., k = 1", partial(PatchAttention, patch_size=PATCH, k=1, aggregate=True), 1.1, "n",
            "tab:cyan", "<", (0.05, 0.19, 0.74, 2.95),
        ),
        Entry(
            "PSAL Aggreg., k = 3", partial(PatchAttention, patch_size=PATCH, k=3, aggregate=True), 1.1, "3 n",
            "tab:pink", ">",
        ),
    )
}  # fmt: skip


def matrix_bytes(side: int) -> int:
    """The n x n matrix of weights that a full attention in one piece holds, float32."""
    return 4 * side**4
