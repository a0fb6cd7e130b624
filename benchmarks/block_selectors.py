"""Which blocks of keys to attend to: the softmax mass that selectors recall at equal density.

    python benchmarks/block_selectors.py [--side 64] [--results DIR]

Tokens are the 7x7 patches of photographs (scikit-image's and scikit-learn's) at 64x64 positions. Attention is the
softmax over all keys, at temperatures at which a query has 16, 64 or 256 keys (the exponential of its entropy, in the
geometric mean). Queries go in blocks of 128 tokens, keys in blocks of 64; a selector takes as many blocks of keys for
every block of queries, and recalls the mass that lies in them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import skimage.data
import torch
from machine import Report, table
from page import machine_line, write_page
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn.functional import interpolate, normalize, pad, unfold

from patchattn import MatchField, hilbert_order, match

ROWS, COLUMNS = 128, 64
DENSITIES = (0.05, 0.1, 0.2, 0.4)
BREADTHS = (16, 64, 256)
PATCH, MATCHES = 7, (4, 16, 64)


def photographs(side: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Images that attend to themselves, and one of a stereo pair to the other: `(1, 3, side, side)` each."""
    single = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    single |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    left, right, _ = skimage.data.stereo_motorcycle()
    pairs = {name: (array, array) for name, array in single.items()} | {"motorcycle, two views": (left, right)}
    return {name: (_small(one, side), _small(other, side)) for name, (one, other) in pairs.items()}


def _small(array: Any, side: int) -> Tensor:
    image = torch.tensor(array).permute(2, 0, 1)[None].float() / 255
    return interpolate(image, size=(side, side), mode="area")


def patches(image: Tensor) -> Tensor:
    """`(tokens, 3 * 49)`, row by row."""
    return unfold(pad(image, (PATCH // 2,) * 4, mode="reflect"), PATCH)[0].T


@dataclass(frozen=True)
class Scores:
    """Queries and keys in some order, and the similarity by which they attend."""

    query: Tensor
    key: Tensor
    kind: str
    """"distance" or "product"."""
    temperature: float = 1.0

    def of(self, query: Tensor, key: Tensor) -> Tensor:
        found = query @ key.T
        if self.kind == "distance":
            found = 2 * found - query.square().sum(1, keepdim=True) - key.square().sum(1)
        return found / self.temperature

    @cached_property
    def attention(self) -> Tensor:
        return self.of(self.query, self.key).softmax(1)

    def ordered(self, order: Tensor) -> Scores:
        return Scores(self.query[order], self.key[order], self.kind, self.temperature)

    def with_breadth(self, keys: float) -> Scores:
        """The same at the temperature at which the mean entropy is that of so many equal keys."""
        sample = self.query[:: max(1, len(self.query) // 512)]
        score = Scores(self.query, self.key, self.kind).of(sample, self.key)
        low, high = 1e-6, 1e6
        for _ in range(40):
            middle = math.sqrt(low * high)
            weight = (score / middle).softmax(1)
            entropy = -(weight * weight.clamp(min=1e-30).log()).sum(1).mean()
            low, high = (middle, high) if entropy < math.log(keys) else (low, middle)
        return Scores(self.query, self.key, self.kind, math.sqrt(low * high))


def blocks_of(mass: Tensor) -> Tensor:
    """Sums over blocks of `(queries, keys)`."""
    return mass.unflatten(1, (-1, COLUMNS)).sum(2).unflatten(0, (-1, ROWS)).sum(1)


def by_matches(scores: Scores, field: MatchField, order: Tensor) -> Tensor:
    """The mass of each query's matches (their softmax) in a block; blocks without any come after, by their means."""
    place = order.argsort()
    index = place[field.index[0, 0].flatten(1)[:, order].long()]
    weight = (field.similarity[0, 0].flatten(1)[:, order] / scores.temperature).softmax(0)
    mass = torch.zeros(len(scores.query), len(scores.key)).scatter_add_(1, index.T, weight.T)
    return blocks_of(mass) + 1e-6 * by_means(scores).softmax(1)


def by_means(scores: Scores) -> Tensor:
    """The similarity of the mean query to the mean key."""
    return scores.of(_means(scores.query, ROWS), _means(scores.key, COLUMNS))


def by_mean_keys(scores: Scores) -> Tensor:
    """The softmax of each query over the mean keys, summed over the block: MoBA's gate, for blocks of queries."""
    return torch.unflatten(scores.of(scores.query, _means(scores.key, COLUMNS)).softmax(1), 0, (-1, ROWS)).sum(1)


def _means(tokens: Tensor, size: int) -> Tensor:
    return torch.unflatten(tokens, 0, (-1, size)).mean(1)


def by_distance_in_order(scores: Scores) -> Tensor:
    """Minus the distance of the blocks' centers along the order: a local window."""
    queries, keys = (
        (torch.arange(len(tokens) // size) + 0.5) * size
        for tokens, size in ((scores.query, ROWS), (scores.key, COLUMNS))
    )
    return -(queries[:, None] - keys).abs()


def recalled(scores: Scores, ranking: Tensor, density: float) -> float:
    """The mean mass of a query in the blocks that rank best, as many in every row as have this density."""
    wanted = max(1, round(density * ranking.shape[1]))
    taken = torch.zeros_like(ranking, dtype=torch.bool).scatter_(1, ranking.topk(wanted, 1).indices, True)
    return float(blocks_of(scores.attention)[taken].sum() / len(scores.query))


def recalled_by_clusters(scores: Scores, density: float, clusters: tuple[KMeans, KMeans]) -> float:
    """The same for clusters of queries and of keys, of any size: best first by the similarity of their centers; of
    the last one that part which makes the density that of the others."""
    own, other = (torch.from_numpy(one.labels_).long() for one in clusters)
    centers = [torch.from_numpy(one.cluster_centers_).float() for one in clusters]
    ranking = scores.of(*centers)
    budget = max(1, round(density * len(scores.key) / COLUMNS)) * COLUMNS
    total = 0.0
    for cluster, best in enumerate(ranking.argsort(1, descending=True)):
        chosen = best.argsort()[other].argsort(stable=True)[:budget]  # keys by the rank of their cluster
        total += float(scores.attention[own == cluster][:, chosen].sum())
    return total / len(scores.query)


def tokens_of(images: tuple[Tensor, Tensor], kind: str) -> tuple[Scores, Callable[[int], MatchField]]:
    """Queries and keys row by row, and the search for their best matches."""
    side = images[0].shape[2:]
    query, key = map(patches, images)
    if kind == "patches":
        return Scores(query, key, "distance"), lambda k: match(*images, k=k, patch_size=PATCH)
    # As a layer that was never trained would: nothing makes a query look like its key.
    mean = key.mean(0)
    projections = [torch.randn(query.shape[1], 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    query, key = (normalize((x - mean) @ p, dim=1) for x, p in zip((query, key), projections, strict=True))
    maps = [torch.unflatten(x.T[None], 2, tuple(side)).contiguous() for x in (query, key)]
    return Scores(query, key, "product"), lambda k: match(*maps, k=k, similarity="dot")


def measure(name: str, images: tuple[Tensor, Tensor], kind: str) -> list[dict[str, Any]]:
    """One row for each breadth, order, selector and density."""
    plain, search = tokens_of(images, kind)
    count, size = len(plain.query), tuple(images[0].shape[2:])
    fields = {k: search(k) for k in MATCHES}
    clusters = tuple(
        KMeans(n, n_init=1, max_iter=20, random_state=0).fit(tokens.numpy())
        for tokens, n in ((plain.query, count // ROWS), (plain.key, count // COLUMNS))
    )
    results = []
    for breadth in BREADTHS:
        row_major = plain.with_breadth(breadth)
        for order_name, order in (("row by row", torch.arange(count)), ("Hilbert", hilbert_order(size))):
            scores = row_major.ordered(order)
            rankings = {f"best {k} matches": by_matches(scores, field, order) for k, field in fields.items()} | {
                "mean queries, mean keys": by_means(scores),
                "queries, mean keys": by_mean_keys(scores),
                "local window": by_distance_in_order(scores),
                "the mass itself": blocks_of(scores.attention),
            }
            facts = {"image": name, "tokens": kind, "breadth": breadth, "order": order_name}
            for density in DENSITIES:
                for selector, ranking in rankings.items():
                    mass = recalled(scores, ranking, density)
                    results.append(facts | {"selector": selector, "density": density, "mass": mass})
                mass = recalled_by_clusters(row_major, density, clusters)  # type: ignore[arg-type]
                results.append(facts | {"selector": "k-means clusters", "density": density, "mass": mass})
    return results


SELECTORS = (
    *(f"best {k} matches" for k in MATCHES), "mean queries, mean keys", "queries, mean keys", "k-means clusters",
    "local window", "the mass itself",
)  # fmt: skip


def report(results: list[dict[str, Any]], kind: str, breadth: int) -> Report:
    rows = []
    for order in ("row by row", "Hilbert"):
        for selector in SELECTORS:
            wanted = {"tokens": kind, "breadth": breadth, "order": order, "selector": selector}
            own = [r for r in results if all(r[name] == value for name, value in wanted.items())]
            means = [torch.tensor([r["mass"] for r in own if r["density"] == d]).mean() for d in DENSITIES]
            rows.append([order, selector, *(f"{float(mean):.3f}" for mean in means)])
    headings = ["order", "blocks chosen by", *(f"{100 * density:.0f} %" for density in DENSITIES)]
    return Report(f"{kind.capitalize()}, {breadth} keys for a query: mass recalled", headings, rows, [])


KINDS = ("patches", "projections")
NOTES = """\
Means over {images} images. Each selector takes the same number of 64-key blocks for every 128 queries: 3, 6, 13
and 26 of 64, the share of all blocks that heads the column.

- *best k matches*: the blocks with most of the softmax over the k matches that `match` finds with its defaults; where
  more blocks are asked for than hold a match, the rest by their means.
- *mean queries, mean keys*: the similarity of the blocks' means, one number for each pair of blocks. *queries, mean
  keys*: each query's softmax over the means of the blocks of keys, summed over the block, as MoBA's gate does for
  single queries.
- *k-means clusters*: queries and keys are sorted into as many clusters as there are blocks, and chosen by the
  similarity of their centers, as many keys as for the others (a part of the last cluster). Sizes differ, which a kernel
  must take; the order of tokens makes no difference.
- *local window*: the blocks nearest along the order. *the mass itself*: by full attention, the most that blocks can
  recall in this order.

*Patches*: attention by the distance of 7x7 RGB patches. *Projections*: by the products of patches taken through two
random matrices and normalized, so that no query resembles the keys it attends to, which is hardest for a search that
goes by neighbors. Time is not compared: the search of 4,096 tokens takes tens of milliseconds, the means hardly any."""


def summary(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, least and largest over the images."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    names = ("tokens", "breadth", "order", "selector", "density")
    for row in results:
        groups.setdefault(tuple(row[name] for name in names), []).append(row["mass"])
    return [
        dict(zip(names, group, strict=True))
        | {"mean": round(sum(masses) / len(masses), 4), "least": round(min(masses), 4), "most": round(max(masses), 4)}
        for group, masses in groups.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64, help="positions of an image in each dimension (a power of 2)")
    parser.add_argument("--results", type=Path, help="folder to write block_selectors.md and block_selectors.json to")
    arguments = parser.parse_args()
    images = photographs(arguments.side)
    results = [row for kind in KINDS for name, pair in images.items() for row in measure(name, pair, kind)]
    reports = [report(results, kind, breadth) for kind in KINDS for breadth in BREADTHS]
    for one in reports:
        one.show()
    if arguments.results is not None:
        written = "Written by `python benchmarks/block_selectors.py --results docs/results`. " + machine_line()
        parts = ["# Which blocks to attend to", written, NOTES.format(images=len(images))]
        for one in reports:
            parts += [f"## {one.question}", table(one.headings, one.rows)]
        write_page(arguments.results, "block_selectors", parts, summary(results))


if __name__ == "__main__":
    main()
