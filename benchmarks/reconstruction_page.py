"""The page reconstruction.md: Tables 2 and 3, what approximations lose against exact matches, and the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from machine import Report, table
from page import image_link, machine_line, write_page
from reconstruction_plot import COLUMNS, FIGURE_PAIRS, figure, scatter
from reconstruction_rows import (
    AGGREGATED,
    EXACT,
    EXACT_OF,
    FULL,
    SHARPER,
    SIDE,
    TABLE3,
    TILE,
    TILES,
    WHOLE,
    Pair,
    Store,
    at_temperature,
)

STRIDED = "full, stride 10"
LOCAL = "local, window 50"
OURS = tuple(EXACT_OF)
PAPER2 = {
    STRIDED: 0.0022,
    LOCAL: 0.0119,
    "linear": 0.0576,
    "PSAL 3": 0.0011,
    "PSAL Aggreg., k = 1": 0.0008,
}
PAPER3 = {512: (0.0022, 0.0011), 256: (0.0031, 0.0017), 128: (0.0038, 0.0029), 64: (0.0048, 0.0048)}
CLOSE = 1.05


@dataclass(frozen=True)
class Ratios:
    """Errors of one layer over those of another, on the pairs where both are known."""

    first: dict[str, float]
    second: dict[str, float]

    @property
    def each(self) -> dict[str, float]:
        return {name: self.first[name] / self.second[name] for name in self.first if name in self.second}

    @property
    def together(self) -> float:
        names = self.each
        return fmean(self.first[name] for name in names) / fmean(self.second[name] for name in names)

    @property
    def worst(self) -> str:
        return max(self.each, key=lambda name: self.each[name])

    def count(self, limit: float) -> int:
        return sum(ratio <= limit for ratio in self.each.values())

    def cells(self, limit: float) -> list[str]:
        """Pairs, mean error over mean error, median ratio, worst with its pair, and pairs within the limit."""
        each = self.each
        return [
            str(len(each)),
            f"{self.together:.3f}",
            f"{median(each.values()):.3f}",
            f"{each[self.worst]:.3f} ({self.worst})",
            f"{self.count(limit)} of {len(each)}",
        ]


def whole_errors(pairs: Sequence[Pair], store: Store, row: str, side: int = SIDE) -> dict[str, float]:
    found = store.all(list(pairs), row, side)
    return {name: measured.mse for name, measured in found.items() if measured.mse is not None}


def tile_errors(pairs: Sequence[Pair], store: Store, row: str) -> dict[str, float]:
    """On the tiles; what is exact was measured nowhere else."""
    kept = store.all(list(pairs), row if row in WHOLE else EXACT)
    return {name: measured.tiles[row] for name, measured in kept.items() if measured.tiles is not None}


def _mean(errors: dict[str, float]) -> str:
    return f"{fmean(errors.values()):.5f}" if errors else "not measured"


def report_table2(pairs: Sequence[Pair], store: Store) -> Report:
    """Whole images, and the tiles of which everything is known."""
    exact = tile_errors(pairs, store, FULL)
    rows, results = [], []
    for row in [STRIDED, LOCAL, "linear", *OURS, FULL, *dict.fromkeys(EXACT_OF.values())]:
        whole = whole_errors(pairs, store, row) if row in WHOLE else {}
        tiles = {name: error for name, error in tile_errors(pairs, store, row).items() if name in exact}
        paper = PAPER2.get(row)
        rows.append(
            [row, f"{paper:.4f}" if paper else "", _mean(whole) if row in WHOLE else "", str(len(whole) or ""),
             _mean(tiles), str(len(tiles))]
        )  # fmt: skip
        results.append({"table": 2, "row": row, "paper": paper, "whole": whole, "tiles": tiles})
    headings = ["layer", "the paper", "mean squared error", "pairs", f"on {TILES} tiles of each pair", "pairs"]
    return Report("Table 2: errors at 512x512.", headings, rows, results)


def report_exact(pairs: Sequence[Pair], store: Store) -> Report:
    """Errors of approximate matches over those of exact ones with the same k."""
    rows, results = [], []
    for row, exact in EXACT_OF.items():
        ratios = Ratios(tile_errors(pairs, store, row), tile_errors(pairs, store, exact))
        if ratios.each:
            rows.append([row, f"{exact}, tiles", *ratios.cells(CLOSE)])
        whole = Ratios(whole_errors(pairs, store, row), whole_errors(pairs, store, exact))
        if whole.each:
            rows.append([row, f"{exact}, whole image", *whole.cells(CLOSE)])
        full = Ratios(tile_errors(pairs, store, row), tile_errors(pairs, store, FULL))
        if full.each:
            rows.append([row, f"{FULL}, tiles", *full.cells(CLOSE)])
        results.append({"over": exact, "row": row, "tiles": ratios.each, "whole": whole.each, "full": full.each})
    headings = ["layer", "over", "pairs", "of the mean errors", "median", "worst pair", "at most 1.05"]
    return Report("Errors over those of exact attention (ratios of one pair's errors).", headings, rows, results)


def report_strided(pairs: Sequence[Pair], store: Store) -> Report:
    """Errors over those of full attention with strided keys, on whole images."""
    strided = whole_errors(pairs, store, STRIDED)
    rows, results = [], []
    for row in OURS:
        ratios = Ratios(whole_errors(pairs, store, row), strided)
        if ratios.each:
            rows.append([row, *ratios.cells(1.0)])
        results.append({"over": STRIDED, "row": row, "whole": ratios.each})
    headings = ["layer", "pairs", "of the mean errors", "median", "worst pair", "below"]
    return Report(f"Errors over those of {STRIDED}, whole images.", headings, rows, results)


def report_table3(pairs: Sequence[Pair], store: Store) -> Report:
    """Sizes and strides."""
    rows, results = [], []
    for side, layers in {SIDE: {STRIDED: None}, **TABLE3}.items():
        strided = next(iter(layers))
        full, ours, exact, unstrided = (
            whole_errors(pairs, store, row, side) for row in (strided, "PSAL 3", EXACT_OF["PSAL 3"], FULL)
        )
        common = [name for name in full if name in ours]
        if not common:
            continue
        cells = [_mean({name: of[name] for name in common if name in of}) for of in (full, ours)]
        known = side in (64, 128) and all(name in exact for name in common)
        below = sum(ours[name] < full[name] for name in common)
        paper = PAPER3[side]
        rows.append(
            [f"{side}x{side}", strided.removeprefix("full, stride "), f"{paper[0]:.4f}", cells[0], f"{paper[1]:.4f}",
             cells[1], _mean(exact) if known else "", _mean(unstrided) if known else "", f"{below} of {len(common)}"]
        )  # fmt: skip
        results.append({"table": 3, "side": side, "full": full, "PSAL 3": ours, "exact": exact, "stride 1": unstrided})
    headings = [
        "size", "stride", "full: the paper", "full: ours", "PSAL 3: the paper", "PSAL 3: ours", "exact, k = 3",
        FULL, "pairs where PSAL 3 is below full",
    ]  # fmt: skip
    return Report("Table 3: full attention with a stride, and PSAL 3.", headings, rows, results)


def report_temperature(pairs: Sequence[Pair], store: Store) -> Report:
    """Whether full attention and PSAL differ at other temperatures."""
    rows, results = [], []
    for side, full in ((64, FULL), (SIDE, STRIDED)):
        for temperature in (1, *SHARPER):
            names = [at_temperature(row, temperature) for row in (full, "PSAL 3", AGGREGATED)]
            errors = [whole_errors(pairs, store, name, side) for name in names]
            common = [name for name in errors[0] if all(name in of for of in errors)]
            if common:
                means = [fmean(of[name] for name in common) for of in errors]
                below = [str(sum(of[name] < errors[0][name] for name in common)) for of in errors[1:]]
                cells = [f"{mean:.5f}" for mean in means]
                rows.append([f"{side}x{side}, {full}", f"{temperature:g}", str(len(common)), *cells, *below])
            results.append({"side": side, "temperature": temperature, **dict(zip(names, errors, strict=True))})
    headings = ["size", "temperature", "pairs", "full", "PSAL 3", AGGREGATED, "PSAL 3 below full", "Aggreg. below full"]
    return Report("Other temperatures.", headings, rows, results)


def write(pairs: Sequence[Pair], store: Store, folder: Path | None) -> None:
    """Print the tables, and write the page if a folder is given."""
    reports = [
        report(pairs, store)
        for report in (report_table2, report_exact, report_strided, report_table3, report_temperature)
    ]
    for report in reports:
        report.show()
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    errors = {row: whole_errors(pairs, store, row) for row in (STRIDED, *OURS)}
    images = []
    drawn = [pair for pair in pairs if pair.name in FIGURE_PAIRS and _drawable(pair, store)]
    if drawn:
        figure(drawn, store, folder / "reconstruction.jpg")
        images += [
            "## Figure 2",
            FIGURE_TEXT,
            image_link(folder / "reconstruction.jpg", "Frames rebuilt by each layer"),
        ]
    scatter(errors, STRIDED, folder / "reconstruction-pairs.png")
    table2, exact, strided, table3, temperature = (table(report.headings, report.rows) for report in reports)
    parts = [
        "# Reconstruction (PSAL, section 4.2)",
        f"Written by `python benchmarks/reconstruction.py --data DIR --results docs/results`. {machine_line()}",
        SETTING,
        "## Table 2",
        table2,
        "## Beside exact matches",
        EXACT_TEXT,
        exact,
        "## Beside full attention with a stride",
        strided,
        image_link(folder / "reconstruction-pairs.png", "Errors of each pair"),
        "## Table 3",
        table3,
        "## Temperature",
        TEMPERATURE_TEXT,
        temperature,
        *images,
    ]
    results: list[dict[str, Any]] = [result for report in reports for result in report.results]
    write_page(folder, "reconstruction", parts, [*results, {"pairs": [_named(pair) for pair in pairs]}])


def _drawable(pair: Pair, store: Store) -> bool:
    return all(store.image_of(pair, row).exists() for row in COLUMNS)


def _named(pair: Pair) -> dict[str, Any]:
    return {**asdict(pair), "target": pair.target.name, "reference": pair.reference.name, "name": pair.name}


SETTING = (
    "A frame is rebuilt from the frame ten before it, both resized to 512x512: queries are the 7x7 RGB patches of the "
    "one, keys those of the other, values its pixels; l2 (summed squared differences of colors in [0, 1]), "
    "temperature 1. Error: mean squared error over pixels and channels. The pairs are all consecutive files, ten "
    "frames apart, of ten DAVIS sequences; the paper does not name its 30 pairs, so that its numbers compare as ratios "
    "between layers, not one by one. What takes minutes a pair at 512x512, exact matches and full attention at stride "
    f"1, is measured on {TILES} random tiles of {TILE}x{TILE} pixels of each pair; other layers' errors on the same "
    'pixels stand beside it. The numbers of pairs say of how many each number is the mean. The paper\'s "PSAL Aggreg." '
    "has k = 1 (its Table 4)."
)
EXACT_TEXT = (
    '"exact, k" takes the k truly best keys where PSAL takes those that its guided search finds; all else is the same. '
    "Full attention at stride 1 averages over all keys. Each pair's ratio is of errors on the same pixels."
)
TEMPERATURE_TEXT = (
    "The paper does not give its temperature. At 1, squared distances of colors in [0, 1] are small, and full "
    "attention averages over many keys; the lower the temperature, the more all copy the best match."
)
FIGURE_TEXT = (
    "The square is where the target has most detail that the reference differs from; below, enlarged. Frames of the "
    "DAVIS 2016 data set (Perazzi et al.), CC BY 4.0, resized."
)
