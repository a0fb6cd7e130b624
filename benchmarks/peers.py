"""What else finds nearest patches: approximate nearest-neighbor libraries on the unfolded patches of two frames.

Queries are all patches of one image, keys all patches of another (reflect padding), as float32 vectors; each peer
builds its index and finds the k keys of least squared distance for every query. Its time is that of unfolding,
building and searching. Costs are means over a sample of the queries whose whole patch lies inside the image, of the
best and the third-best match, over the exact ones.

Settings were tuned at 256x256 and 512x512: of those whose best cost is at most 1.02 (1.03) times the exact one, the
fastest. Compilation (pynndescent) is not counted; it is done by a search on a few patches beforehand.

    python benchmarks/peers.py --data DIR [--sizes 256 512] [--json FILE]

DIR holds frames512/target.png and reference.png.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine, save, seconds, table
from numpy.typing import NDArray
from torch import Tensor

from patchattn.tasks.images import read_image

PATCH, K = 7, 3
SAMPLE = 4000
RUNS, SHORT = 3, 5.0
"""Searches of less than `SHORT` seconds are repeated up to `RUNS` times."""

Vectors = NDArray[np.float32]
Matches = tuple[NDArray[np.int64], Vectors]
"""Indices of the keys and their squared distances, each (queries, k), the nearest first."""
Search = Callable[[Vectors, int], Matches]
Build = Callable[[Vectors], Search]


@dataclass(frozen=True)
class Peer:
    """A library with its settings.

    Attributes:
        name: the package on PyPI and its index.
        version: of the package.
        settings: as its users write them.
        target: the best cost over the exact one that the settings were tuned for.
        build: makes an index of the keys, and returns what searches it.
    """

    name: str
    version: str
    settings: str
    target: float
    build: Build

    def search(self, queries: Vectors, keys: Vectors, k: int) -> Matches:
        """Build and search: indices and squared distances of the `k` nearest keys that were found for each query."""
        return self.build(keys)(queries, k)


@dataclass(frozen=True)
class Problem:
    """Two images as patches, with the exact costs of a sample of the queries."""

    queries: Vectors
    keys: Vectors
    sample: NDArray[np.int64]
    exact: NDArray[np.float64]
    unfold_seconds: float


@dataclass(frozen=True)
class Measured:
    """Medians over `runs` searches; `over_exact` is of the best and of the third-best match."""

    size: int
    peer: str
    version: str
    settings: str
    target: float
    unfold: float
    build: float
    search: float
    total: float
    over_exact: tuple[float, float]
    runs: int


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RuntimeError(f'{error.name} is not installed; install it with: pip install "patchattn[bench]"') from error


def _faiss(factory: str, parameters: str, points: int = 0, rounds: int = 0) -> Build:
    """A FAISS index by its factory string.

    Args:
        factory: what the index is made of.
        parameters: what `ParameterSpace` sets, before anything is added.
        points: inverted lists are trained on so many keys a list.
        rounds: and in so many rounds of k-means.
    """
    faiss = _library("faiss")

    def build(keys: Vectors) -> Search:
        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.index_factory(keys.shape[1], factory)
        faiss.ParameterSpace().set_index_parameters(index, parameters)
        train = keys
        lists = faiss.try_extract_index_ivf(index)
        if lists is not None:
            lists.cp.niter, lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = rounds, 1, points
            chosen = min(len(keys), points * lists.nlist)
            train = keys[np.random.default_rng(0).choice(len(keys), chosen, replace=False)]
        index.train(train)
        index.add(keys)

        def search(queries: Vectors, k: int) -> Matches:
            distances, indices = index.search(queries, k)
            return indices, distances

        return search

    return build


def _hnswlib(M: int, ef_construction: int, ef: int) -> Build:  # noqa: N803 (the names are hnswlib's)
    """Keys are added in random order: in the order of the image, the graph is much worse for the same time."""
    hnswlib = _library("hnswlib")

    def build(keys: Vectors) -> Search:
        index = hnswlib.Index(space="l2", dim=keys.shape[1])
        index.init_index(max_elements=len(keys), M=M, ef_construction=ef_construction, random_seed=0)
        order = np.random.default_rng(0).permutation(len(keys))
        index.add_items(keys[order], order, num_threads=torch.get_num_threads())
        index.set_ef(ef)

        def search(queries: Vectors, k: int) -> Matches:
            indices, distances = index.knn_query(queries, k=k, num_threads=torch.get_num_threads())
            return indices.astype(np.int64), distances

        return search

    return build


def _pynndescent(epsilon: float, **settings: Any) -> Build:
    pynndescent = _library("pynndescent")

    def build(keys: Vectors) -> Search:
        threads = torch.get_num_threads()
        index = pynndescent.NNDescent(keys, metric="sqeuclidean", n_jobs=threads, random_state=0, **settings)
        index.prepare()

        def search(queries: Vectors, k: int) -> Matches:
            indices, distances = index.query(queries, k=k, epsilon=epsilon)
            return indices.astype(np.int64), distances

        return search

    return build


BUILDERS: dict[str, Callable[..., Build]] = {"faiss-cpu": _faiss, "hnswlib": _hnswlib, "pynndescent": _pynndescent}

# Inverted lists are trained on 40 keys a list, in 5 rounds of k-means.
TRAINING = {"points": 40, "rounds": 5}
TUNED: dict[int, list[tuple[str, float, dict[str, Any]]]] = {
    256: [
        ("faiss-cpu IVF", 1.02, {"factory": "IVF512,Flat", "parameters": "nprobe=5", **TRAINING}),
        ("faiss-cpu IVF", 1.03, {"factory": "IVF512,Flat", "parameters": "nprobe=4", **TRAINING}),
        (
            "faiss-cpu IVF",
            1.02,
            {"factory": "PCA24,IVF512,SQfp16,RFlat", "parameters": "nprobe=5,k_factor_rf=3", **TRAINING},
        ),
        (
            "faiss-cpu IVF",
            1.03,
            {"factory": "PCA24,IVF512,SQfp16,RFlat", "parameters": "nprobe=4,k_factor_rf=3", **TRAINING},
        ),
        ("faiss-cpu HNSW", 1.02, {"factory": "HNSW24,Flat", "parameters": "efConstruction=20,efSearch=28"}),
        ("faiss-cpu HNSW", 1.03, {"factory": "HNSW32,Flat", "parameters": "efConstruction=12,efSearch=26"}),
        (
            "faiss-cpu HNSW",
            1.02,
            {"factory": "PCA20,HNSW24,Flat,RFlat", "parameters": "efConstruction=20,efSearch=22,k_factor_rf=4"},
        ),
        (
            "faiss-cpu HNSW",
            1.03,
            {"factory": "PCA20,HNSW24,Flat,RFlat", "parameters": "efConstruction=12,efSearch=26,k_factor_rf=4"},
        ),
        ("hnswlib", 1.02, {"M": 16, "ef_construction": 60, "ef": 48}),
        ("hnswlib", 1.03, {"M": 12, "ef_construction": 40, "ef": 42}),
        ("pynndescent", 1.02, {"n_neighbors": 20, "n_trees": 4, "delta": 0.01, "epsilon": 0.4}),
        ("pynndescent", 1.03, {"n_neighbors": 20, "n_trees": 4, "delta": 0.01, "epsilon": 0.32}),
    ],
    512: [
        ("faiss-cpu IVF", 1.02, {"factory": "IVF1024,Flat", "parameters": "nprobe=6", **TRAINING}),
        ("faiss-cpu IVF", 1.03, {"factory": "IVF1024,Flat", "parameters": "nprobe=5", **TRAINING}),
        (
            "faiss-cpu IVF",
            1.02,
            {"factory": "PCA24,IVF1024,SQfp16,RFlat", "parameters": "nprobe=6,k_factor_rf=4", **TRAINING},
        ),
        (
            "faiss-cpu IVF",
            1.03,
            {"factory": "PCA24,IVF1024,SQfp16,RFlat", "parameters": "nprobe=5,k_factor_rf=3", **TRAINING},
        ),
        ("faiss-cpu HNSW", 1.02, {"factory": "HNSW24,Flat", "parameters": "efConstruction=24,efSearch=48"}),
        ("faiss-cpu HNSW", 1.03, {"factory": "HNSW24,Flat", "parameters": "efConstruction=24,efSearch=28"}),
        (
            "faiss-cpu HNSW",
            1.02,
            {"factory": "PCA24,HNSW24,Flat,RFlat", "parameters": "efConstruction=24,efSearch=40,k_factor_rf=4"},
        ),
        (
            "faiss-cpu HNSW",
            1.03,
            {"factory": "PCA24,HNSW24,Flat,RFlat", "parameters": "efConstruction=24,efSearch=26,k_factor_rf=4"},
        ),
        ("hnswlib", 1.02, {"M": 16, "ef_construction": 60, "ef": 60}),
        ("hnswlib", 1.03, {"M": 16, "ef_construction": 60, "ef": 44}),
        ("pynndescent", 1.02, {"n_neighbors": 20, "n_trees": 4, "delta": 0.01, "epsilon": 0.46}),
        ("pynndescent", 1.03, {"n_neighbors": 20, "n_trees": 4, "delta": 0.01, "epsilon": 0.37}),
    ],
}
"""For each size (package and index, target, settings)."""


def peers_at(size: int) -> list[Peer]:
    """The peers with the settings tuned at the size nearest to `size` x `size` pixels.

    Raises:
        RuntimeError: a library is not installed.
    """
    tuned = min(TUNED, key=lambda known: abs(math.log(known / size)))
    peers = []
    for name, target, settings in TUNED[tuned]:
        package = name.split()[0]
        build = BUILDERS[package](**settings)
        text = ", ".join(f"{key} {value}" for key, value in settings.items())
        peers.append(Peer(name, version(package), text, target, build))
    return peers


def unfold(image: Tensor) -> Vectors:
    """All patches of a (1, channels, height, width) image, each a row."""
    padded = F.pad(image, (PATCH // 2,) * 4, mode="reflect")[0]
    patches = padded.unfold(1, PATCH, 1).unfold(2, PATCH, 1).permute(1, 2, 0, 3, 4)
    unfolded: Vectors = patches.flatten(2).flatten(0, 1).contiguous().numpy()
    return unfolded


def costs(queries: Vectors, keys: Vectors, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared distances of the matches of each query, summed in float64, in ascending order."""
    wide = queries.astype(np.float64)
    found = [((wide - keys[column]) ** 2).sum(1) for column in indices.T]
    return np.sort(np.stack(found, axis=1), axis=1)


def exact_costs(queries: Vectors, keys: Vectors, k: int) -> NDArray[np.float64]:
    """Costs of the `k` nearest keys: by matrix products in float32, whose roundings a few spare candidates absorb."""
    candidates = []
    others = torch.from_numpy(keys)
    norms = others.square().sum(1)
    for first in range(0, len(queries), 500):
        distances = torch.addmm(norms, torch.from_numpy(queries[first : first + 500]), others.T, alpha=-2)
        candidates.append(distances.topk(k + 5, largest=False).indices)
    return costs(queries, keys, torch.cat(candidates).numpy())[:, :k]


def problem(target: Tensor, reference: Tensor) -> Problem:
    """Unfold two images (timed), and find the exact matches of a sample of the queries (not timed)."""
    time_taken = seconds(lambda: (unfold(target), unfold(reference)), RUNS)["median"]
    queries, keys = unfold(target), unfold(reference)
    height, width = target.shape[2:]
    inside = np.arange(height * width).reshape(height, width)[PATCH // 2 : -(PATCH // 2), PATCH // 2 : -(PATCH // 2)]
    sample = np.random.default_rng(0).choice(inside.ravel(), SAMPLE, replace=False)
    return Problem(queries, keys, sample, exact_costs(queries[sample], keys, K).mean(0), time_taken)


def measure(peer: Peer, given: Problem, size: int) -> Measured:
    """Time and costs of one peer; the costs are those of the last run."""
    few = np.random.default_rng(0).choice(len(given.keys), min(len(given.keys), SAMPLE), replace=False)
    peer.search(given.queries[few], given.keys[few], K)
    times: list[tuple[float, float]] = []
    while True:
        start = time.perf_counter()
        search = peer.build(given.keys)
        built = time.perf_counter()
        indices, _ = search(given.queries, K)
        times.append((built - start, time.perf_counter() - built))
        if len(times) == RUNS or sum(times[0]) >= SHORT:
            break
    over_exact = costs(given.queries[given.sample], given.keys, indices[given.sample]).mean(0) / given.exact
    return Measured(
        size,
        peer.name,
        peer.version,
        peer.settings,
        peer.target,
        given.unfold_seconds,
        statistics.median(build for build, _ in times),
        statistics.median(search for _, search in times),
        given.unfold_seconds + statistics.median(map(sum, times)),
        (float(over_exact[0]), float(over_exact[-1])),
        len(times),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    files = [arguments.data / "frames512" / f"{name}.png" for name in ("target", "reference")]
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        sys.exit(f"--data: missing {', '.join(missing)}")
    images = [read_image(file).color for file in files]
    results: list[Measured] = []
    for size in arguments.sizes:
        try:
            peers = peers_at(size)
        except RuntimeError as error:
            sys.exit(str(error))
        # At the images' own size, this returns them as they are.
        sized = [F.interpolate(image, size=(size, size), mode="bilinear", antialias=True) for image in images]
        given = problem(*sized)
        results += [measure(peer, given, size) for peer in peers]
    headings = ["size", "peer", "settings", "unfold", "build", "search", "total, s", "best over exact", "third"]
    rows = [
        [
            f"{result.size}x{result.size}",
            f"{result.peer} {result.version}",
            result.settings,
            *(f"{part:.2f}" for part in (result.unfold, result.build, result.search, result.total)),
            *(f"{ratio:.3f}" for ratio in result.over_exact),
        ]
        for result in results
    ]
    print(machine())
    print(table(headings, rows))
    save(arguments.json, [asdict(result) for result in results])


if __name__ == "__main__":
    main()
