"""Every layer as its formula says, over all pairs, in plain NumPy and float64: nothing of the package is used here."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Size = tuple[int, ...]


@dataclass(frozen=True)
class Compared:
    """What the layers on patches are told alike."""

    patch: Size
    heads: int = 1
    padding: str = "reflect"
    similarity: str = "l2"
    temperature: float = 1.0
    causal: bool | str = False
    query_mask: Array | None = None
    key_mask: Array | None = None
    max_offset: Size | None = None


def patches(image: Array, patch: Size, padding: str, heads: int) -> Array:
    """`(B, heads, positions, channels * elements)`, cut out one by one."""
    mode = {"replicate": "edge", "zeros": "constant", "valid": "reflect"}.get(padding, padding)
    padded = np.pad(image, [(0, 0), (0, 0), *((p // 2, p // 2) for p in patch)], mode=mode)  # type: ignore[call-overload]
    cut = [
        padded[(..., *(slice(a, a + p) for a, p in zip(at, patch, strict=True)))].reshape(len(image), heads, -1)
        for at in np.ndindex(image.shape[2:])
    ]
    return np.stack(cut, 2)


def similarities(q: Array, k: Array, name: str) -> Array:
    """`(B, heads, queries, keys)`."""
    q, k = q[:, :, :, None], k[:, :, None]
    if name in ("l2", "l1", "pointwise"):
        power, factor = {"l2": (2, 1), "l1": (1, 1), "pointwise": (2, 0.5)}[name]
        return -factor * (np.abs(q - k) ** power).sum(-1)
    found = (q * k).sum(-1)
    if name == "cosine":
        found = found / (np.sqrt((q**2).sum(-1)) * np.sqrt((k**2).sum(-1)))
    return found / np.sqrt(q.shape[-1]) if name == "scaled_dot" else found


def places(size: Size) -> Array:
    """All positions, row by row: `(positions, dims)`."""
    return np.array(list(np.ndindex(size))).reshape(-1, len(size))


def homes(query: Size, key: Size) -> Array:
    """Where each query's position lies in the key's image."""
    return ((2 * places(query) + 1) * np.array(key)) // (2 * np.array(query))


def allowed(told: Compared, batch: int, query: Size, key: Size) -> Array:
    """Bool `(B, 1, queries, keys)`."""
    q, k = places(query), places(key)
    pairs = np.ones((batch, 1, len(q), len(k)), bool)
    if told.query_mask is not None:
        pairs = pairs & told.query_mask.reshape(-1, 1, len(q), 1)
    if told.key_mask is not None:
        pairs = pairs & told.key_mask.reshape(-1, 1, 1, len(k))
    if told.padding == "valid":
        inside = [
            ((at >= np.array(told.patch) // 2) & (at < np.array(size) - np.array(told.patch) // 2)).all(1)
            for at, size in ((q, query), (k, key))
        ]
        pairs = pairs & inside[0][:, None] & inside[1]
    if told.causal:
        before = np.arange(len(k))[None] < np.arange(len(q))[:, None] + (told.causal != "strict")
        pairs = pairs & before
    if told.max_offset is not None:
        pairs = pairs & (np.abs(k[None] - homes(query, key)[:, None]) <= np.array(told.max_offset)).all(-1)
    return pairs


def scores(query: Array, key: Array, told: Compared) -> Array:
    """Similarities `(B, heads, queries, keys)`, -inf where not allowed."""
    q, k = (patches(image, told.patch, told.padding, told.heads) for image in (query, key))
    seen = allowed(told, len(query), query.shape[2:], key.shape[2:])
    return np.where(seen, similarities(q, k, told.similarity), -np.inf)


def best(found: Array, k: int) -> Array:
    """All but the k best of each query at -inf."""
    if k >= found.shape[-1]:
        return found
    least = np.sort(found, -1)[..., -k, None]
    return np.where(found >= least, found, -np.inf)


def softmax(found: Array) -> Array:
    """Weights, all 0 where nothing is allowed."""
    peak = found.max(-1, keepdims=True)
    weights = np.exp(found - np.where(peak > -np.inf, peak, 0))
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


def weighted(weights: Array, value: Array, query: Size, key: Size) -> Array:
    """Sums of values, or of their blocks of r pixels in each dimension: `(B, Cv, *(r query))`."""
    batch, heads = weights.shape[:2]
    dims, r = len(key), value.shape[2] // key[0]
    blocks = patches_apart(value, key, r)  # (B, Cv, keys, r^D)
    blocks = blocks.reshape(len(value), heads, -1, *blocks.shape[2:])
    blocks = np.broadcast_to(blocks, (batch, *blocks.shape[1:]))
    found = np.einsum("bhqk,bhckr->bhcqr", weights, blocks).reshape(batch, -1, prod(query), *(r,) * dims)
    output = np.zeros((batch, found.shape[1], *(r * n for n in query)))
    for number, at in enumerate(np.ndindex(query)):
        output[(..., *(slice(r * a, r * a + r) for a in at))] = found[:, :, number]
    return output


def patches_apart(value: Array, key: Size, r: int) -> Array:
    """The block of each key: `(B, Cv, keys, r^D)`."""
    cut = [value[(..., *(slice(r * a, r * a + r) for a in at))] for at in np.ndindex(key)]
    return np.stack(cut, 2).reshape(*value.shape[:2], len(cut), -1)


def patch_attention(query: Array, key: Array, value: Array, told: Compared, k: int, aggregate: bool) -> Array:
    """PSAL's equations (4), (5), (9) and, with `aggregate`, (10)."""
    size, keys = query.shape[2:], key.shape[2:]
    found = best(scores(query, key, told), k)
    if not aggregate:
        return weighted(softmax(found / told.temperature), value, size, keys)
    peak = np.where(np.isfinite(found), found, -np.inf).max() if np.isfinite(found).any() else 0.0
    mass = np.zeros(found.shape)
    for i, at in enumerate(places(size)):
        for offset in product(*(range(-(p // 2), p // 2 + 1) for p in told.patch)):
            neighbor = at + offset
            if ((neighbor < 0) | (neighbor >= size)).any():
                continue
            n = np.ravel_multi_index(tuple(neighbor), size)
            for j, there in enumerate(places(keys)):
                target = there - offset
                if ((target >= 0) & (target < keys)).all():
                    votes = np.exp((found[:, :, n, j] - peak) / told.temperature)
                    mass[:, :, i, np.ravel_multi_index(tuple(target), keys)] += votes
    total = mass.sum(-1, keepdims=True)
    return weighted(mass / np.where(total > 0, total, 1), value, size, keys)


def masked_patch_attention(query: Array, key: Array, value: Array, told: Compared, k: int, aggregate: bool) -> Array:
    """Values where they are known, attention from all other positions to those."""
    assert told.key_mask is not None
    holes = Compared(**{**vars(told), "query_mask": ~told.key_mask})
    return np.where(told.key_mask[:, None], value, patch_attention(query, key, value, holes, k, aggregate))


def scram_attention(
    query: Array, key: Array, value: Array, told: Compared, k: int, expand: int, weighting: str, normalization: str
) -> Array:
    """SCRAM's equations (4), (8) and (9), with the keys around the best ones."""
    size, keys = query.shape[2:], key.shape[2:]
    every = scores(query, key, told)
    chosen, at = best(every, k) > -np.inf, places(keys)
    near = (np.abs(at[:, None] - at[None]) <= expand).all(-1)
    found = np.where((chosen[..., None] & near).any(-2) & (every > -np.inf), every, -np.inf) / told.temperature
    if weighting == "exp" and normalization == "sum":
        return weighted(softmax(found), value, size, keys)
    there = found > -np.inf
    known = np.where(there, found, 0)
    f = np.where(there, np.exp(known) if weighting == "exp" else 1 / (1 + known**2), 0)
    constant = {"sum": f.sum(-1), "count": there.sum(-1), "none": np.ones(f.shape[:-1])}[normalization][..., None]
    return weighted(np.where(constant != 0, f / np.where(constant != 0, constant, 1), 0), value, size, keys)


def full_attention(query: Array, key: Array, value: Array, told: Compared, key_stride: Size) -> Array:
    """PSAL's equation (1), over every so-many-th key."""
    size, keys = query.shape[2:], key.shape[2:]
    taken = (places(keys) % np.array(key_stride) == 0).all(1)
    found = np.where(taken, scores(query, key, told), -np.inf)
    return weighted(softmax(found / told.temperature), value, size, keys)


def local_attention(query: Array, key: Array, value: Array, told: Compared, window: Size) -> Array:
    """Parmar et al.: -floor(w / 2) <= j - i <= ceil(w / 2) - 1."""
    size, keys, w = query.shape[2:], key.shape[2:], np.array(window)
    offset = places(keys)[None] - homes(size, keys)[:, None]
    inside = ((offset >= -(w // 2)) & (offset <= -(-w // 2) - 1)).all(-1)
    return weighted(softmax(np.where(inside, scores(query, key, told), -np.inf) / told.temperature), value, size, keys)


def sparse_attention(query: Array, key: Array, value: Array, told: Compared, pattern: str, summary: int) -> Array:
    """Child et al.: the query's row, with its column or the last positions of every row."""
    size = query.shape[2:]
    at = places(size)
    same_row = (at[:, None, :-1] == at[None, :, :-1]).all(-1)
    other = at[:, None, -1] == at[None, :, -1] if pattern == "strided" else at[None, :, -1] >= size[-1] - summary
    found = np.where(same_row | other, scores(query, key, told), -np.inf)
    return weighted(softmax(found / told.temperature), value, size, size)


def linear_attention(query: Array, key: Array, value: Array, told: Compared) -> Array:
    """Katharopoulos et al.: phi(q) . phi(k), phi = elu + 1."""
    q, k = (patches(image, told.patch, told.padding, told.heads) for image in (query, key))
    q, k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    seen = allowed(told, len(query), query.shape[2:], key.shape[2:])
    mass = np.where(seen, similarities(q, k, "dot"), 0)
    total = mass.sum(-1, keepdims=True)
    return weighted(mass / np.where(total > 0, total, 1), value, query.shape[2:], key.shape[2:])


def cross_scale_attention(
    query: Array, key: Array, value: Array, patch: int, scale: float, divisor: float, k: int | None
) -> Array:
    """Mei et al.: patches of p positions stand for patches of r p pixels, which are pasted r pixels apart; with `k`,
    from the keys with the largest cosine alone.
    """
    size, keys, r = query.shape[2:], key.shape[2:], value.shape[2] // key.shape[2]
    q, kk = (patches(image, (patch, patch), "zeros", 1) for image in (query, key))
    unit = kk / np.maximum(np.sqrt((kk**2).sum(-1, keepdims=True)), 1e-4)
    found = similarities(q, unit, "dot")
    weights = softmax(scale * best(found, found.shape[-1] if k is None else k))[:, 0]
    reach = r * (patch // 2)
    bordered = np.pad(value, [(0, 0), (0, 0), (reach, reach), (reach, reach)])
    cut = [bordered[:, :, r * y : r * (y + patch), r * x : r * (x + patch)] for y, x in np.ndindex(keys)]
    mean = np.einsum(
        "bqk,bkchw->bqchw",
        weights,
        np.broadcast_to(np.stack(cut, 1), (len(query), *np.shape(cut)[:1], *cut[0].shape[1:])),
    )
    output = np.zeros((len(query), value.shape[1], *(r * n + 2 * reach for n in size)))
    for number, (y, x) in enumerate(np.ndindex(size)):
        output[:, :, r * y : r * (y + patch), r * x : r * (x + patch)] += mean[:, number]
    return output[:, :, reach : reach + r * size[0], reach : reach + r * size[1]] / divisor


def contextual_attention(
    query: Array, key: Array, value: Array, patch: int, rate: int, scale: float, fuse: bool, key_mask: Array | None
) -> Array:
    """Yu et al.: compared at a fraction of the size, pasted at full size."""
    small = query[..., ::rate, ::rate], key[..., ::rate, ::rate]
    size, keys = small[0].shape[2:], small[1].shape[2:]
    q, k = (patches(image, (patch, patch), "zeros", 1)[:, 0] for image in small)
    k = k / np.maximum(np.sqrt((k**2).sum(-1, keepdims=True)), 1e-4)
    found = np.einsum("bqe,bke->bkq", q, np.broadcast_to(k, (len(q), *k.shape[1:])))
    if fuse:
        for _ in range(2):
            padded = np.pad(found, [(0, 0), (1, 1), (1, 1)])
            found = padded[:, 1:-1, 1:-1] + padded[:, :-2, :-2] + padded[:, 2:, 2:]
            # From row by row to column by column, and back.
            found = found.reshape(-1, *keys, *size).transpose(0, 2, 1, 4, 3).reshape(found.shape)
            keys, size = keys[::-1], size[::-1]
    touched = np.zeros((1, prod(keys), 1), bool)
    if key_mask is not None:
        holes = patches((~key_mask[:, None, ::rate, ::rate]).astype(float), (patch, patch), "zeros", 1)[:, 0]
        touched = holes.any(-1)[..., None]
    weights = np.where(touched, 0, softmax((scale * np.where(touched, 0, found)).transpose(0, 2, 1)).transpose(0, 2, 1))
    first = rate // 2
    ends = [(first, (n + 1) * rate - have - first) for n, have in zip(keys, value.shape[2:], strict=True)]
    bordered = np.pad(value, [(0, 0), (0, 0), *ends])
    cut = np.stack(
        [bordered[..., rate * y : rate * y + 2 * rate, rate * x : rate * x + 2 * rate] for y, x in np.ndindex(keys)], 1
    )
    mean = np.einsum("bkq,bkchw->bqchw", weights, np.broadcast_to(cut, (len(q), *cut.shape[1:])))
    output = np.zeros((len(q), value.shape[1], *((n + 1) * rate for n in size)))
    for number, (y, x) in enumerate(np.ndindex(size)):
        output[..., rate * y : rate * y + 2 * rate, rate * x : rate * x + 2 * rate] += mean[:, number]
    return output[..., first : first + query.shape[2], first : first + query.shape[3]] / 4
