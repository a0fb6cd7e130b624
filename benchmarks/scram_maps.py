"""Sections `maps` and `blobs`: Figures 2 and 3 of SCRAM. Does the sparse map find the peaks of the full one?

`maps`. Queries and keys come from a photograph, as in the paper: the frame frames512/target.png, gray, 128 x 128, its
mean taken off, I ~ U S V' by the singular value decomposition cut at rank d_k = 4; queries are the 128 rows of
U sqrt(S), an image of 128 x 1 positions, keys those of V sqrt(S). So q_i . k_j is the pixel (i, j) of the
approximation, and the attention map of 128 queries and 128 keys looks like the image. A second row is self-attention:
the keys are the queries. Queries and keys are scaled alike so that the similarities q . k / sqrt(d_k) have standard
deviation 4 in each row: with 1, the softmax is nearly flat. Maps are what the layers give for values that are the unit
vectors, one for each key.

`blobs`. Keys are an image of 32 x 32 positions with d_k = 2: in the first channel three Gaussian blobs of unlike
strength, in the second weak noise. All queries are the same, so that PatchMatch has an image to search for, and all
should find the same; the figure shows the paper's q_(4,5).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from figures import new_figure, show_image, write_figure
from machine import Report
from pairs import read
from torch import Tensor

from patchattn import MatchField, scram_attention
from patchattn.baselines import full_attention

POSITIONS, RANK, DEVIATION = 128, 4, 4.0
MAP_KAPPA = 4
ASKED_SHARE = 0.98
# Algorithm 1 as printed, the same with one list of matches, and the library's choice (exact for so few keys).
METHODS = ("repeated", "patchmatch", "auto")
DRAWN_METHODS = {"repeated": "Algorithm 1", "auto": "auto (here: exact)"}
SEEDS = 20
SELECTIONS = ("max", "mode")

BLOB_SIDE, BLOB_KAPPA, BLOB_SEPARATION = 32, 12, 5
ROW, COLUMN = 4, 5
BLOB_WIDTH = 3.5
# Strength and center (row, column), the strongest first.
BLOBS = ((8.0, (22, 9)), (6.5, (8, 20)), (5.5, (24, 25)))
BLOB_NAMES = ("strongest", "second", "weakest")
BLOB_METHODS = ("exact", "repeated", "patchmatch")
DRAWN_BLOB_METHODS = {"exact": "exact", "repeated": "Algorithm 1 (repeated)"}


@dataclass(frozen=True)
class Pair:
    """Queries and keys (1, d_k, 128, 1), and the map that is to be found."""

    name: str
    query: Tensor
    key: Tensor

    def similarities(self) -> Tensor:
        """q . k / sqrt(d_k) of all queries (rows) and keys."""
        return self.query[0, :, :, 0].T @ self.key[0, :, :, 0] / self.query.shape[1] ** 0.5

    def unit_vectors(self) -> Tensor:
        """Values that make the output of a layer its map."""
        n = self.key.shape[2]
        return torch.eye(n).view(1, n, n, 1)

    def full(self) -> Tensor:
        """The full attention map, a query a row."""
        settings: dict[str, Any] = {"patch_size": 1, "similarity": "scaled_dot"}
        return full_attention(self.query, self.key, self.unit_vectors(), **settings)[0, :, :, 0].T

    def sparse(self, selection: str, method: str, seed: int) -> Tensor:
        """SCRAM's attention map."""
        settings: dict[str, Any] = {"k": MAP_KAPPA, "selection": selection, "method": method, "seed": seed}
        return scram_attention(self.query, self.key, self.unit_vectors(), **settings)[0, :, :, 0].T


def map_pairs(data: Path) -> list[Pair]:
    """The pairs made of the image."""
    image = read(data / "frames512/target.png", POSITIONS)[0].mean(0)
    u, s, v = torch.linalg.svd(image - image.mean())
    query, key = u[:, :RANK] * s[:RANK].sqrt(), v[:RANK].T * s[:RANK].sqrt()
    pairs = []
    for name, k in (("queries and keys of the image", key), ("self-attention, keys = queries", query)):
        factor = (DEVIATION / (query @ k.T / RANK**0.5).std()).sqrt()
        pairs.append(Pair(name, *((factor * x).T.reshape(1, RANK, POSITIONS, 1) for x in (query, k))))
    return pairs


def found_share(pair: Pair, found: Tensor) -> float:
    """The share of queries whose most similar key, or one exactly as similar, is among those of a sparse map."""
    similarities = pair.similarities()
    best = similarities.amax(1, keepdim=True)
    equal = similarities >= best - 1e-5 * best.abs()
    return float(((found > 0) & equal).any(1).double().mean())


def _compare_maps(pair: Pair, full: Tensor, selection: str, method: str) -> dict[str, Any]:
    """Means over the seeds, and the lowest share."""
    maps = [pair.sparse(selection, method, seed) for seed in range(SEEDS)]
    shares = [found_share(pair, sparse) for sparse in maps]
    return {
        "pair": pair.name,
        "selection": selection,
        "method": method,
        "shares": shares,
        "share": statistics.mean(shares),
        "mass": statistics.mean(float((full * (sparse > 0)).sum(1).mean()) for sparse in maps),
        "total_variation": statistics.mean(float((full - sparse).abs().sum(1).mean() / 2) for sparse in maps),
    }


def report_maps(data: Path, plots: Path | None) -> list[Report]:
    """Full maps and sparse ones."""
    pairs = map_pairs(data)
    results, drawn = [], []
    for pair in pairs:
        full = pair.full()
        results += [_compare_maps(pair, full, selection, method) for method in METHODS for selection in SELECTIONS]
        maps = [("full attention", full)]
        for method, words in DRAWN_METHODS.items():
            for selection in SELECTIONS:
                sparse = pair.sparse(selection, method, 0)
                share = found_share(pair, sparse)
                maps.append((f"top-κ({selection}), {words}\nbest key kept by {share:.1%}", sparse))
        drawn.append((pair, maps))
    if plots is not None:
        _plot_maps(plots / "scram-maps.png", drawn)
    rows = [
        [
            *(r["pair"], r["selection"], r["method"], f"{r['share']:.1%} ({min(r['shares']):.1%})"),
            *("met" if r["share"] >= ASKED_SHARE else "MISSED", f"{r['mass']:.3f}", f"{r['total_variation']:.3f}"),
        ]
        for r in results
    ]
    return [
        Report(
            f"Do the kept keys include the best one? κ = {MAP_KAPPA} of {POSITIONS} keys, mode with its default "
            f"separation, 5, means of {SEEDS} seeds: the share of queries (and the lowest of the seeds), asked at "
            f"least {ASKED_SHARE:.0%}; full attention's mass on the kept keys; and how much of the map lies elsewhere "
            "than in the full map (total variation distance).",
            ["map", "selection", "method", "best key kept", "asked", "mass of the kept keys", "distance of the maps"],
            rows,
            results,
        )
    ]


def _plot_maps(path: Path, drawn: list[tuple[Pair, list[tuple[str, Tensor]]]]) -> None:
    from matplotlib.colors import PowerNorm

    figure = new_figure(19, 7.4)
    panels = figure.subplots(len(drawn), 2 + len(DRAWN_METHODS) * len(SELECTIONS))
    # Small weights of the full map would not show beside 1 on a linear scale.
    norm = PowerNorm(0.4, 0, 1)
    shown = None
    for (pair, maps), row in zip(drawn, panels, strict=True):
        show_image(row[0], pair.similarities(), "similarities q · k / √d_k", cmap="gray")
        for axes, (title, image) in zip(row[1:], maps, strict=True):
            shown = show_image(axes, image, title, cmap="magma", norm=norm)
        for axes in row:
            axes.set_xlabel("key, 0 to 127")
        row[0].set_ylabel(f"{pair.name}\nquery, 0 (top) to 127", fontsize=11)
    ticks = [0, 0.01, 0.05, 0.2, 0.5, 1]
    bar = figure.colorbar(shown, ax=panels, label="attention weight", shrink=0.8, ticks=ticks)
    bar.ax.set_yticklabels([f"{tick:g}" for tick in ticks])
    write_figure(figure, path)


def _blob_images() -> tuple[Tensor, Tensor]:
    """The query and the key image (1, 2, 32, 32)."""
    row, column = torch.meshgrid(*[torch.arange(BLOB_SIDE)] * 2, indexing="ij")
    height = sum(
        strength * torch.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * BLOB_WIDTH**2)) for strength, (y, x) in BLOBS
    )
    noise = torch.randn(BLOB_SIDE, BLOB_SIDE, generator=torch.Generator().manual_seed(0))
    key = torch.stack([torch.as_tensor(height), 0.1 * noise])[None]
    # With sqrt(d_k) = sqrt(2) taken off, the similarity is the sum of the channels.
    return torch.full_like(key, 2**0.5), key


def _blob_of(field: MatchField) -> Tensor:
    """For every match (k, *query): the blob it is in (within two of its widths), or len(BLOBS) outside."""
    y, x = field.coordinates()[0, 0].unbind(1)
    centers = torch.tensor([center for _, center in BLOBS])
    view = (-1, *[1] * y.dim())
    distance = ((y - centers[:, 0].view(view)) ** 2 + (x - centers[:, 1].view(view)) ** 2).double().sqrt()
    nearest, which = distance.min(0)
    return torch.where(nearest <= 2 * BLOB_WIDTH, which, len(BLOBS))


def report_blobs(plots: Path | None) -> list[Report]:
    """One query, three blobs."""
    query, key = _blob_images()
    rows, results, panels = [], [], []
    for selection in SELECTIONS:
        for method in BLOB_METHODS:
            settings: dict[str, Any] = {"k": BLOB_KAPPA, "selection": selection, "method": method}
            if selection == "mode":
                settings["separation"] = BLOB_SEPARATION
            field = scram_attention(query, key, key, **settings, return_field=True)[1]
            blob = _blob_of(field)
            counts = [int((blob[:, ROW, COLUMN] == n).sum()) for n in range(len(BLOBS) + 1)]
            seen = torch.stack([(blob == n).any(0) for n in range(len(BLOBS))]).sum(0)
            expected = len(BLOBS) if selection == "mode" else 1
            share = float((seen == expected).double().mean())
            right = sum(count > 0 for count in counts[:-1]) == expected and (selection == "mode" or counts[0] > 0)
            rows.append(
                [
                    *(selection, method, *map(str, counts), "all three" if expected > 1 else "the strongest only"),
                    *("met" if right else "MISSED", f"{share:.1%}"),
                ]
            )
            results.append({"selection": selection, "method": method, "counts": counts, "share": share, "met": right})
            if method in DRAWN_BLOB_METHODS:
                panels.append(
                    (
                        f"top-κ({selection}), {DRAWN_BLOB_METHODS[method]}",
                        field.coordinates()[0, 0, :, :, ROW, COLUMN].T,
                        counts,
                    )
                )
    if plots is not None:
        _plot_blobs(plots / "scram-blobs.png", query, key, panels)
    return [
        Report(
            f"Where are the {BLOB_KAPPA} keys of one query when the keys have three blobs? Keys of query ({ROW}, "
            f"{COLUMN}) in each blob (within {2 * BLOB_WIDTH:g} pixels of its center); mode with separation "
            f"{BLOB_SEPARATION}; the last column: of how many of the 1,024 queries, all the same, this holds.",
            ["selection", "method", *BLOB_NAMES, "outside", "asked: keys in", "seen", "share of queries"],
            rows,
            results,
        )
    ]


def _plot_blobs(path: Path, query: Tensor, key: Tensor, panels: list[tuple[str, Tensor, list[int]]]) -> None:
    from matplotlib.colors import PowerNorm

    figure = new_figure(14.5, 10)
    axes_of = figure.subplots(2, 3)
    similarity = (query * key).sum(1)[0] / 2**0.5
    full = similarity.flatten().softmax(0).view(similarity.shape)
    shown = show_image(
        axes_of[0, 0], similarity, f"similarity of query ({ROW}, {COLUMN}) and every key", cmap="viridis"
    )
    figure.colorbar(shown, ax=axes_of[0, 0], shrink=0.8, label="q · k / √d_k")
    shown = show_image(axes_of[1, 0], full, "full attention", cmap="magma", norm=PowerNorm(0.5))
    figure.colorbar(shown, ax=axes_of[1, 0], shrink=0.8, label="attention weight (root scale)")
    # A column for each selection, a row for each method.
    for n, (title, (y, x), counts) in enumerate(panels):
        axes = axes_of[n % len(DRAWN_BLOB_METHODS), 1 + n // len(DRAWN_BLOB_METHODS)]
        words = ", ".join(f"{count} {name}" for count, name in zip(counts, (*BLOB_NAMES, "outside"), strict=True))
        show_image(axes, similarity, f"{title}, κ = {BLOB_KAPPA}\nkeys: {words}", cmap="viridis")
        axes.scatter(x, y, s=70, facecolor="tab:red", edgecolor="white", linewidth=1.2, label="kept key")
        for strength, (row, column) in BLOBS:
            axes.text(column, row - 2.1 * BLOB_WIDTH, f"peak {strength:g}", color="white", ha="center", va="center")
    axes_of[0, 1].legend(loc="upper left")
    write_figure(figure, path)
