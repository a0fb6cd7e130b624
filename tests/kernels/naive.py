"""Loops over single positions in plain Python and NumPy, from the definitions, to test the reference against."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from patchattn.problem import Constraints, PatchGeometry
from patchattn.similarity import resolve_similarity

NUMPY_MODE = {"reflect": "reflect", "replicate": "edge", "zeros": "constant"}


def geometry_of(patch: tuple[int, ...], mode: str = "reflect", heads: int = 1, similarity: Any = "l2") -> PatchGeometry:
    return PatchGeometry(patch, mode, heads, resolve_similarity(similarity))


def integers(*shape: int, seed: int = 0, high: int = 3) -> torch.Tensor:
    return torch.randint(-high, high + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_index(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Positions below `count`, and -1."""
    return torch.randint(-1, count, shape, generator=torch.Generator().manual_seed(seed)).int()


@functools.cache
def place_of(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major."""
    return next(itertools.islice(itertools.product(*map(range, shape)), int(position), None))


def position_of(place: Sequence[int], shape: tuple[int, ...]) -> int:
    return int(np.ravel_multi_index(tuple(place), shape))


def naive_patches(image: np.ndarray, geometry: PatchGeometry) -> np.ndarray:
    """(C, *spatial) -> (positions, C, patch elements)."""
    border = [(0, 0)] + [(size // 2, size // 2) for size in geometry.patch_size]
    padded = np.pad(image, border, mode=NUMPY_MODE[geometry.padding_mode])  # type: ignore[call-overload]
    patches = []
    for position in np.ndindex(*image.shape[1:]):
        cut = tuple(slice(p, p + size) for p, size in zip(position, geometry.patch_size, strict=True))
        patches.append(padded[(slice(None), *cut)].reshape(len(image), -1))
    return np.stack(patches)


def naive_row(a: np.ndarray, b: np.ndarray, geometry: PatchGeometry) -> Any:
    """One query patch (C, patch elements) against all key patches (keys, C, patch elements)."""
    name, one, elements = geometry.similarity.name, a.dtype.type(1), (-2, -1)
    if geometry.similarity.function is not None:
        return geometry.similarity.function(a, b).sum(elements)
    if name == "l2":
        return -((a - b) ** 2).sum(elements)
    if name == "l1":
        return -np.abs(a - b).sum(elements)
    dot = (a * b).sum(elements)
    if name == "scaled_dot":
        return dot * a.dtype.type(a.size**-0.5)
    if name == "cosine":
        for squares in ((a**2).sum(elements), (b**2).sum(elements)):
            dot = dot * np.where(squares == 0, 0, one / np.sqrt(np.where(squares == 0, 1, squares)))
    return dot


def naive_dense(query: torch.Tensor, key: torch.Tensor, geometry: PatchGeometry) -> np.ndarray:
    """All similarities, (B, heads, queries, keys)."""
    batch, heads = len(query), geometry.num_heads
    rows = []
    for b, h in itertools.product(range(batch), range(heads)):
        images = [x[b if len(x) > 1 else 0].numpy().reshape(heads, -1, *x.shape[2:])[h] for x in (query, key)]
        a, c = (naive_patches(image, geometry) for image in images)
        rows.append([naive_row(x, c, geometry) for x in a])
    dense = np.array(rows).reshape(batch, heads, len(rows[0]), -1)
    return np.where(np.isnan(dense), -np.inf, dense)


def naive_windows(i: int, query_shape: Any, key_shape: Any, constraints: Constraints) -> list[tuple[int, int]]:
    windows = []
    for d, q in enumerate(place_of(i, query_shape)):
        home = ((2 * q + 1) * key_shape[d]) // (2 * query_shape[d])
        limit = constraints.max_offset[d] if constraints.max_offset is not None else key_shape[d]
        windows.append((max(0, home - limit), min(key_shape[d] - 1, home + limit)))
    return windows


def naive_admissible(b: int, i: int, j: int, query_shape: Any, key_shape: Any, constraints: Constraints) -> bool:
    if not 0 <= j < math.prod(key_shape) or (constraints.is_causal and j > i - constraints.strict):
        return False
    for mask, position in ((constraints.query_mask, i), (constraints.key_mask, j)):
        if mask is not None and not mask[b if len(mask) > 1 else 0].flatten()[position]:
            return False
    windows = naive_windows(i, query_shape, key_shape, constraints)
    return all(lo <= c <= hi for c, (lo, hi) in zip(place_of(j, key_shape), windows, strict=True))


def naive_conflict(c: int, e: int, key_shape: Any, constraints: Constraints) -> bool:
    least = constraints.min_separation if constraints.min_separation else (0,) * len(key_shape)
    pairs = zip(place_of(c, key_shape), place_of(e, key_shape), least, strict=True)
    return all(abs(x - y) < max(1, size) for x, y, size in pairs)


def mask_of(*shape: int, seed: int = 7, share: float = 0.6) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def naive_mix(x: int) -> int:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = (x ^ (x >> shift)) * factor % 2**32
    return x


def naive_word(seed: int, iteration: int, head: int, i: int, n: int) -> int:
    """The n-th random word of query i."""
    h = naive_mix((seed & 0xFFFFFFFF) ^ 0x9E3779B9)
    for word in ((seed >> 32) & 0xFFFFFFFF, iteration, head):
        h = naive_mix(h ^ word)
    return naive_mix((naive_mix(h ^ i) + n * 0x9E3779B9) % 2**32)


def naive_uniform(word: int, low: int, high: int) -> int:
    return low + ((word * (high - low + 1)) >> 32)


def naive_candidates(b: int, i: int, query_shape: Any, key_shape: Any, constraints: Constraints) -> list[int]:
    """The keys that query i may start from."""
    if constraints.max_offset is not None:
        windows = naive_windows(i, query_shape, key_shape, constraints)
        return [
            position_of(place, key_shape) for place in itertools.product(*(range(lo, hi + 1) for lo, hi in windows))
        ]
    keys = list(range(math.prod(key_shape)))
    if constraints.key_mask is not None:
        mask = constraints.key_mask[b if len(constraints.key_mask) > 1 else 0].flatten()
        keys = [j for j in keys if mask[j]]
    return [j for j in keys if j <= i - constraints.strict] if constraints.is_causal else keys


def naive_reach(i: int, query_shape: Any, key_shape: Any, constraints: Constraints) -> list[tuple[int, int]]:
    """Where keys near a match of query i are drawn."""
    windows = naive_windows(i, query_shape, key_shape, constraints)
    if constraints.is_causal:
        windows[0] = (windows[0][0], min(windows[0][1], place_of(i, query_shape)[0]))
    return windows


class NaivePatchMatch:
    """One image and one head, a query at a time."""

    def __init__(self, dense: np.ndarray, b: int, head: int, k: int, shapes: Any, constraints: Constraints, seed: int):
        self.dense, self.b, self.head, self.k, self.seed = dense[b, head], b, head, k, seed
        self.query_shape, self.key_shape = shapes
        self.constraints = constraints
        self.starts = k
        """4 times this many random keys to start from."""
        self.separated = any(size > 1 for size in constraints.min_separation)
        self.lists: list[list[tuple[float, int]]] = [[] for _ in self.dense]

    def uniform(self, i: int, iteration: int, n: int, low: int, high: int) -> int:
        return naive_uniform(naive_word(self.seed, iteration, self.head, i, n), low, high)

    def offer(self, i: int, c: int) -> None:
        entries = self.lists[i]
        if not naive_admissible(self.b, i, c, self.query_shape, self.key_shape, self.constraints):
            return
        s = float(self.dense[i, c])
        if s == -math.inf:
            return
        if self.separated:
            conflicts = [e for e in entries if naive_conflict(c, e[1], self.key_shape, self.constraints)]
            if any(e[0] >= s for e in conflicts):
                return
            for e in conflicts:
                entries.remove(e)
        elif any(e[1] == c for e in entries):
            return
        if len(entries) == self.k and s <= entries[-1][0]:
            return
        entries.insert(sum(e[0] >= s for e in entries), (s, c))
        del entries[self.k :]

    def start(self, i: int) -> None:
        most = max(4 * self.starts, 64)
        keys = naive_candidates(self.b, i, self.query_shape, self.key_shape, self.constraints)
        for a in range(len(keys) if len(keys) <= most else 4 * self.starts):
            if len(self.lists[i]) == self.k:
                break
            self.offer(i, keys[a] if len(keys) <= most else keys[self.uniform(i, 0, a, 0, len(keys) - 1)])

    def propagate(self, distance: int) -> None:
        before = [list(entries) for entries in self.lists]
        signs = (-1,) if self.constraints.is_causal else (-1, 1)
        for i, d, sign in itertools.product(range(len(before)), range(len(self.key_shape)), signs):
            neighbor = list(place_of(i, self.query_shape))
            neighbor[d] += sign * distance
            if not 0 <= neighbor[d] < self.query_shape[d]:
                continue
            for _, j in before[position_of(neighbor, self.query_shape)]:
                c = list(place_of(j, self.key_shape))
                c[d] -= sign * distance
                if 0 <= c[d] < self.key_shape[d]:
                    self.offer(i, position_of(c, self.key_shape))

    def search(self, i: int, iteration: int) -> None:
        if not self.lists[i]:
            return
        center = place_of(self.lists[i][0][1], self.key_shape)
        windows = naive_reach(i, self.query_shape, self.key_shape, self.constraints)
        radius, n = max(self.key_shape), 0
        while radius >= 1:
            place = []
            for d, (lo, hi) in enumerate(windows):
                low, high = max(lo, center[d] - radius), min(hi, center[d] + radius)
                place.append(self.uniform(i, iteration, n, low, high))
                n += 1
            self.offer(i, position_of(place, self.key_shape))
            radius //= 2

    def run(self, iterations: int, init: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        for i in range(len(self.lists)):
            for c in () if init is None else init[:, i]:
                self.offer(i, int(c))
            self.start(i)
        for t in range(1, iterations + 1):
            for distance in (8, 4, 2, 1):
                self.propagate(distance)
            for i in range(len(self.lists)):
                self.search(i, t)
        padded = [entries + [(-math.inf, -1)] * (self.k - len(entries)) for entries in self.lists]
        similarity, index = np.array(padded).transpose(2, 1, 0)
        return index.astype(int), similarity
