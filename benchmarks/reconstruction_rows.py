"""What benchmarks/reconstruction.py measures: pairs of frames, and the rows of Tables 2 and 3, one file for each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import read
from torch import Tensor

from patchattn import MatchField, PatchAttention, match, patch_attention
from patchattn.baselines import FullAttention, LinearAttention, LocalAttention
from patchattn.tasks.files import atomic_writer

PATCH, SIDE = 7, 512
TILE, TILES = 32, 2
"""Side of a tile, and how many there are of each pair."""
HALO = 2 * (PATCH // 2)
"""Pixels about a tile whose patches vote for it (half of them), and what those patches reach."""


@dataclass(frozen=True)
class Pair:
    """Two frames of a sequence, ten frames apart; the later one is rebuilt from the earlier."""

    number: int
    target: Path
    reference: Path

    @property
    def name(self) -> str:
        return f"{self.target.parent.name}-{self.target.stem}-{self.reference.stem}"

    def read(self, side: int) -> tuple[Tensor, Tensor]:
        return read(self.target, side), read(self.reference, side)

    def tiles(self) -> list[tuple[int, int]]:
        """Top left corners of the tiles: random, the same in every run, and with their halo inside the image."""
        chosen = np.random.default_rng([7, self.number]).integers(HALO, SIDE - TILE - HALO + 1, (TILES, 2))
        return [(int(y), int(x)) for y, x in chosen]


def pairs_of(data: Path) -> list[Pair]:
    """All consecutive files of all sequences."""
    folders = sorted(path for path in data.glob("davis/*") if path.is_dir())
    couples = [couple for folder in folders for couple in pairwise(sorted(folder.glob("*.jpg")))]
    return [Pair(number, later, earlier) for number, (earlier, later) in enumerate(couples)]


@dataclass(frozen=True)
class Measured:
    """One row of one pair. `tiles`: mean squared error over the tiles (all of them together), by its name."""

    pair: str
    row: str
    side: int
    seconds: float
    mse: float | None = None
    """Over the whole image; None where tiles alone were measured."""
    tiles: dict[str, float] | None = None


Layer = Callable[[Tensor, Tensor, Tensor], Tensor]

# Table 2: what runs on whole images. The first is the paper's approximation of full attention.
WHOLE: dict[str, Layer] = {
    "PSAL 1": PatchAttention(k=1, patch_size=PATCH),
    "PSAL 3": PatchAttention(k=3, patch_size=PATCH),
    "PSAL Aggreg., k = 1": PatchAttention(k=1, patch_size=PATCH, aggregate=True),
    "PSAL Aggreg., k = 3": PatchAttention(k=3, patch_size=PATCH, aggregate=True),
    "PSAL 3, 8 iterations": PatchAttention(k=3, patch_size=PATCH, iterations=8),
    "PSAL Aggreg., k = 1, 8 iterations": PatchAttention(k=1, patch_size=PATCH, aggregate=True, iterations=8),
    "linear": LinearAttention(patch_size=PATCH),
    "full, stride 10": FullAttention(patch_size=PATCH, key_stride=10),
    "local, window 50": LocalAttention(patch_size=PATCH, window=50),
}
SHARPER = (0.1, 0.01)
"""Temperatures beside 1."""


def at_temperature(row: str, temperature: float) -> str:
    """The name of the same row at another temperature."""
    return row if temperature == 1 else f"{row}, temperature {temperature:g}"


def _sharper(row: str, make: Callable[..., Layer], temperatures: tuple[float, ...]) -> dict[str, Layer]:
    return {at_temperature(row, t): make(patch_size=PATCH, temperature=t) for t in temperatures}


AGGREGATED = "PSAL Aggreg., k = 1"
WHOLE |= {
    **_sharper("full, stride 10", partial(FullAttention, key_stride=10), SHARPER[:1]),
    **_sharper("PSAL 3", partial(PatchAttention, k=3), SHARPER[:1]),
    **_sharper(AGGREGATED, partial(PatchAttention, k=1, aggregate=True), SHARPER[:1]),
}
EXACT = "exact"
"""The row of tiles, with full attention at stride 1 and exact matches."""
WHOLE_EXACT = "exact, whole"
"""The same over whole images, which takes long."""
EXACT_OF = {
    "PSAL 1": "exact, k = 1",
    "PSAL 3": "exact, k = 3",
    "PSAL Aggreg., k = 1": "exact, k = 1, aggregated",
    "PSAL Aggreg., k = 3": "exact, k = 3, aggregated",
    "PSAL 3, 8 iterations": "exact, k = 3",
    "PSAL Aggreg., k = 1, 8 iterations": "exact, k = 1, aggregated",
}
"""What each approximates."""
FULL = "full, stride 1"

# Table 3: size, stride and, where it takes seconds, everything exactly.
TABLE3: dict[int, dict[str, Layer]] = {
    side: {
        f"full, stride {stride}": FullAttention(patch_size=PATCH, key_stride=stride),
        "PSAL 3": PatchAttention(k=3, patch_size=PATCH),
        **({EXACT_OF["PSAL 3"]: PatchAttention(k=3, patch_size=PATCH, method="exact")} if side <= 128 else {}),
        **({FULL: FullAttention(patch_size=PATCH)} if side == 128 else {}),
    }
    for side, stride in ((256, 5), (128, 2), (64, 1))
}
TABLE3[64] |= {
    **_sharper(FULL, FullAttention, SHARPER),
    **_sharper("PSAL 3", partial(PatchAttention, k=3), SHARPER),
    **_sharper(AGGREGATED, partial(PatchAttention, k=1, aggregate=True), (1, *SHARPER)),
}


class Store:
    """Measured rows and rebuilt images in a folder, a file for each: what is there is not measured again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, pair: Pair, row: str, side: int, ending: str) -> Path:
        plain = row.replace(", ", "-").replace(" = ", "").replace(" ", "").replace(".", "")
        return self.folder / f"{pair.name}.{side}.{plain}.{ending}"

    def get(self, pair: Pair, row: str, side: int = SIDE) -> Measured | None:
        path = self._path(pair, row, side, "json")
        return Measured(**json.loads(path.read_text())) if path.exists() else None

    def put(self, pair: Pair, measured: Measured) -> None:
        with atomic_writer(self._path(pair, measured.row, measured.side, "json")) as file:
            file.write((json.dumps(asdict(measured), indent=1) + "\n").encode())

    def image_of(self, pair: Pair, row: str) -> Path:
        return self._path(pair, row, SIDE, "png")

    def keep(self, pair: Pair, row: str, color: Tensor) -> None:
        """Save a rebuilt image, to look at."""
        from PIL import Image

        pixels = (color[0].clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
        with atomic_writer(self.image_of(pair, row)) as file:
            Image.fromarray(pixels).save(file, "PNG")

    def all(self, pairs: list[Pair], row: str, side: int = SIDE) -> dict[str, Measured]:
        """Of a row, what has been measured, by the pair's name."""
        found = {pair.name: self.get(pair, row, side) for pair in pairs}
        return {name: measured for name, measured in found.items() if measured is not None}


def mse(output: Tensor, target: Tensor) -> float:
    return float((output.double() - target.double()).square().mean())


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.perf_counter()
    with torch.no_grad():
        output = call()
    return output, time.perf_counter() - start


def measure_whole(pair: Pair, row: str, store: Store) -> Measured:
    """A layer on whole images: its error there and on the tiles."""
    target, reference = pair.read(SIDE)
    output, seconds = timed(lambda: WHOLE[row](target, reference, reference))
    store.keep(pair, row, output)
    parts = [(..., slice(y, y + TILE), slice(x, x + TILE)) for y, x in pair.tiles()]
    of_tiles = sum(mse(output[part], target[part]) for part in parts) / TILES
    return Measured(pair.name, row, SIDE, seconds, mse(output, target), {row: of_tiles})


def measure_small(pair: Pair, row: str, side: int) -> Measured:
    """A row of Table 3."""
    target, reference = pair.read(side)
    output, seconds = timed(lambda: TABLE3[side][row](target, reference, reference))
    return Measured(pair.name, row, side, seconds, mse(output, target))


def exact_outputs(query: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """What exact matches give, found once for all k, best first."""
    field = match(query, reference, k=3, patch_size=PATCH, method="exact")
    best = MatchField(field.index[:, :, :1], field.similarity[:, :, :1], field.key_shape)
    outputs = {}
    for k, of_k in ((1, best), (3, field)):
        for aggregate in (False, True):
            name = f"exact, k = {k}" + (", aggregated" if aggregate else "")
            outputs[name] = patch_attention(
                query, reference, reference, k=k, patch_size=PATCH, aggregate=aggregate, field=of_k
            )
    return outputs


def measure_tiles(pair: Pair) -> Measured:
    """Exact matches and full attention at stride 1 of the tiles, with the whole reference."""
    target, reference = pair.read(SIDE)
    # One above the other, as one image: what lies beyond a tile's halo reaches only what is thrown away.
    tall = torch.cat(
        [target[..., y - HALO : y + TILE + HALO, x - HALO : x + TILE + HALO] for y, x in pair.tiles()], dim=2
    )
    start = time.perf_counter()
    with torch.no_grad():
        outputs = exact_outputs(tall, reference)
        outputs[FULL] = FullAttention(patch_size=PATCH)(tall, reference, reference)
    seconds = time.perf_counter() - start
    inside = [
        (..., slice(at + HALO, at + HALO + TILE), slice(HALO, -HALO)) for at in range(0, tall.shape[2], TILE + 2 * HALO)
    ]
    errors = {name: sum(mse(output[part], tall[part]) for part in inside) / TILES for name, output in outputs.items()}
    return Measured(pair.name, EXACT, SIDE, seconds, None, errors)


def measure_exact(pair: Pair, store: Store) -> list[Measured]:
    """Exact matches of all queries of a pair."""
    target, reference = pair.read(SIDE)
    start = time.perf_counter()
    with torch.no_grad():
        outputs = exact_outputs(target, reference)
    seconds = time.perf_counter() - start
    for name, output in outputs.items():
        store.keep(pair, name, output)
    everything = [Measured(pair.name, name, SIDE, seconds, mse(output, target)) for name, output in outputs.items()]
    return [*everything, replace(everything[0], row=WHOLE_EXACT, mse=None)]


@dataclass(frozen=True)
class Task:
    """One file to be: a row of a pair."""

    pair: Pair
    row: str
    side: int = SIDE

    def run(self, store: Store) -> list[Measured]:
        if self.side != SIDE:
            return [measure_small(self.pair, self.row, self.side)]
        if self.row == EXACT:
            return [measure_tiles(self.pair)]
        if self.row == WHOLE_EXACT:
            return measure_exact(self.pair, store)
        return [measure_whole(self.pair, self.row, store)]


def tasks_of(pairs: list[Pair], count: int, whole: int) -> list[Task]:
    """Everything about so many of the pairs, what matters most first: an interrupted run leaves whole rows."""
    # In a random order (the same in every run), so that any beginning is of all kinds.
    pairs = [pairs[n] for n in np.random.default_rng(0).permutation(len(pairs))[:count]]
    slow = ("full, stride 10", "local, window 50")
    fast = [row for row in WHOLE if row not in slow and "temperature" not in row]
    tasks = [Task(pair, row) for pair in pairs for row in fast]
    for pair in pairs:
        tasks += [Task(pair, row) for row in ("full, stride 10", EXACT)]
        tasks += [Task(pair, row, side) for side, rows in TABLE3.items() for row in rows]
    tasks += [Task(pair, row) for pair in pairs for row in WHOLE if "temperature" in row]
    tasks += [Task(pair, WHOLE_EXACT) for pair in pairs[:whole]]
    return tasks + [Task(pair, "local, window 50") for pair in pairs]


def run(tasks: list[Task], store: Store, show: Callable[[str], Any]) -> None:
    """Measure what the store does not hold; several processes may share one."""
    for n, task in enumerate(tasks):
        if store.get(task.pair, task.row, task.side) is not None:
            continue
        found = task.run(store)
        for measured in found:
            store.put(task.pair, measured)
        show(f"{n + 1}/{len(tasks)} {task.pair.name} {task.row} {task.side}: {found[0].seconds:.1f} s")
